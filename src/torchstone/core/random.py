"""Randomness as arguments: keys made by hashing words, and numbers that are pure functions of a key and a position.

Nothing here reads or moves a global generator. A sample's numbers depend on its key alone, so the order of the batches,
the number of workers and ranks, and a resume change none of them. Whoever draws twice for one sample makes two keys
(`key(seed, "flip", epoch)`, `key(seed, "crop", epoch)`): the same key gives the same numbers again.

The mixing function is the finalizer of SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number
generators", OOPSLA 2014, with Stafford's variant 13), computed in wrapping int64 arithmetic, which torch does alike on
every device. Shapes: N samples.
"""

import hashlib
import math

import numpy as np
import torch
from jaxtyping import Float, Float64, Int, Int64
from torch import Tensor


def key(seed: int, *words: str | int) -> int:
    """A 63-bit key of `seed` and the words, by BLAKE2b: `key(0, "order", 1)` and `key(1, "order", 0)` are unrelated.

    >>> key(7, "order", 3) == key(7, "order", 3), key(7, "order", 3) == key(7, "order", "3")
    (True, False)
    """
    digest = hashlib.blake2b(digest_size=8)
    for word in (seed, *words):
        tag, text = ("s", word) if isinstance(word, str) else ("i", str(int(word)))
        payload = text.encode()
        digest.update(f"{tag}{len(payload)}:".encode())
        digest.update(payload)
    return int.from_bytes(digest.digest(), "big") >> 1


def derived(key: int, *numbers: int) -> int:
    """A 63-bit key for these numbers under `key`, by SplitMix64: ten times cheaper than hashing, for what needs one at every step."""
    for number in numbers:
        key = (key + (number + 1) * 0x9E3779B97F4A7C15) & _MASK
        key = ((key ^ (key >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        key = ((key ^ (key >> 27)) * 0x94D049BB133111EB) & _MASK
        key ^= key >> 31
    return key >> 1


def sample_keys(key: int, indices: Int[Tensor, " N"]) -> Int64[Tensor, " N"]:
    """A key for each sample from the key of a stream; different indices never share one. On the device of `indices`."""
    return _mix(indices.to(torch.int64) * _STRIDE_OF_SAMPLES + _signed(key))


def uniform(keys: Int64[Tensor, " N"], count: int) -> Float[Tensor, "N {count}"]:
    """`count` numbers a key, uniform in [0, 1), float32 with 24 random bits each. More columns leave the first ones as they are."""
    return _shift(_bits(keys, count), 40).to(torch.float32).mul_(2.0**-24)


def normal(keys: Int64[Tensor, " N"], count: int) -> Float[Tensor, "N {count}"]:
    """`count` standard normal numbers a key, float32 (Box and Muller, 1958)."""
    bits = _bits(keys, (count + 1) // 2)
    # One draw of 64 bits makes two numbers. The radius reads the upper half as (0, 1], so that its logarithm is finite.
    radius = (_shift(bits, 32) + 1).to(torch.float32).mul_(2.0**-32).log_().mul_(-2.0).sqrt_()
    angle = bits.bitwise_and_(2**32 - 1).to(torch.float32).mul_(2.0 * math.pi * 2.0**-32)
    both = torch.stack((radius * angle.cos(), radius * angle.sin()), dim=2)
    return both.flatten(1)[:, :count]


def integers(keys: Int64[Tensor, " N"], count: int, high: int) -> Int64[Tensor, "N {count}"]:
    """`count` whole numbers a key in [0, high), 1 <= high <= 2**31. No value is likelier than another by more than 2**-32."""
    if not 1 <= high <= 2**31:
        raise ValueError(f"high must be in 1..2**31, got {high}")
    return _shift(_bits(keys, count), 32).mul_(high).bitwise_right_shift_(32)


def beta(keys: Int64[Tensor, " N"], alpha: float) -> Float[Tensor, " N"]:
    """One draw a key from Beta(alpha, alpha), float32, alpha > 0.

    Exact: T = sqrt(2 alpha (U^(-1/alpha) - 1)) cos(2 pi V) is Student's t with 2 alpha degrees of freedom (Bailey, "Polar
    generation of random variates with the t-distribution", 1994), and (1 + T / sqrt(2 alpha + T^2)) / 2 is Beta(alpha, alpha).
    """
    if not alpha > 0:
        raise ValueError(f"alpha must be > 0, got {alpha}")
    u, v = _uniform_64(keys, 2).unbind(dim=1)
    w = (1.0 - u).pow_(1.0 / alpha)
    cosine = torch.cos(2.0 * math.pi * v)
    share = (1.0 - w) * cosine.square()
    # With s = T^2 / (2 alpha + T^2) = share / (share + w), the smaller side (1 - sqrt(s)) / 2 without its cancellation:
    smaller = 0.5 * w / (w + share) / (1.0 + (share / (w + share)).sqrt())
    return torch.where(cosine < 0, smaller, 1.0 - smaller).to(torch.float32)


def generator(key: int) -> np.random.Generator:
    """NumPy's counter-based generator (Philox) started at `key`, for code that draws a lot on the CPU."""
    return np.random.Generator(np.random.Philox(key=key))


def permutation(key: int, n: int) -> np.ndarray:
    """The numbers 0 .. n-1 (int64) in an order that depends on `key` alone."""
    return generator(key).permutation(n)


_MASK = 2**64 - 1


def _signed(value: int) -> int:
    """The int64 with the bits of `value` modulo 2**64."""
    return (value + 2**63) % 2**64 - 2**63


_STRIDE_OF_SAMPLES = _signed(0x9E3779B97F4A7C15)
_STRIDE_OF_DRAWS = _signed(0xD1342543DE82EF95)
_FACTOR_1 = _signed(0xBF58476D1CE4E5B9)
_FACTOR_2 = _signed(0x94D049BB133111EB)


def _shift(bits: Int64[Tensor, "*shape"], by: int) -> Int64[Tensor, "*shape"]:
    """Right shift that brings in zeros; torch's own repeats the sign."""
    return (bits >> by).bitwise_and_(2 ** (64 - by) - 1)


def _mix(z: Int64[Tensor, "*shape"]) -> Int64[Tensor, "*shape"]:
    """A bijection of 64 bits in which every input bit reaches every output bit. Overwrites `z`."""
    z.bitwise_xor_(_shift(z, 30)).mul_(_FACTOR_1)
    z.bitwise_xor_(_shift(z, 27)).mul_(_FACTOR_2)
    return z.bitwise_xor_(_shift(z, 31))


def _bits(keys: Int64[Tensor, " N"], count: int) -> Int64[Tensor, "N {count}"]:
    """64 random bits a key and position."""
    # The first stride away from the key itself: position 0 of one stream is no other stream's key.
    positions = torch.arange(1, count + 1, device=keys.device).mul_(_STRIDE_OF_DRAWS)
    return _mix(keys[:, None] + positions)


def _uniform_64(keys: Int64[Tensor, " N"], count: int) -> Float64[Tensor, "N {count}"]:
    """As `uniform`, in float64 with 53 random bits."""
    return _shift(_bits(keys, count), 11).to(torch.float64).mul_(2.0**-53)
