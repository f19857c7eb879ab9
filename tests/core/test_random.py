"""Keys and draws: against big-integer arithmetic and scipy's distributions, and never against a global generator."""

import random as python_random

import numpy as np
import pytest
import torch
from scipy import stats

from torchstone.core import random

WORD = 2**64


def keys(n: int, *words: str | int) -> torch.Tensor:
    return random.sample_keys(random.key(0, *words), torch.arange(n))


def mix(z: int) -> int:
    """SplitMix64's finalizer as published, over Python's integers."""
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) % WORD
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) % WORD
    return z ^ (z >> 31)


def fits(numbers: torch.Tensor, distribution: str, *args: float) -> None:
    assert stats.kstest(numbers.double().flatten().numpy(), distribution, args).pvalue > 1e-3


def test_a_key_depends_on_each_word_its_type_and_its_place() -> None:
    tuples = [(0, "order", 1), (1, "order", 0), (0, "order", "1"), (0, "order1"), (0, "orde", "r1"), (0,), (0, 1, "order"), (0, "")]
    made = {random.key(*words) for words in tuples}
    assert len(made) == len(tuples) and all(0 <= key < 2**63 for key in made)
    assert random.key(-1) != random.key(1) and random.key(2**80) != random.key(0)


def test_keys_are_the_same_on_every_machine() -> None:
    """Pinned: a change here breaks the resume of every stored run."""
    assert random.key(0, "order", 1) == 3119674941621380089
    assert random.sample_keys(random.key(0, "order", 1), torch.tensor([0, 1, 2**40])).tolist() == [
        -371337440963838360,
        6115326346575849648,
        -7573577897884489269,
    ]


@pytest.mark.parametrize("stream", [0, 1, 2**63 - 1, random.key(5, "x")])
def test_int64_arithmetic_equals_big_integers(stream: int) -> None:
    indices = [0, 1, 2, 1796, 2**31, 2**62]
    made = random.sample_keys(stream, torch.tensor(indices))
    expected = [mix((i * 0x9E3779B97F4A7C15 + stream) % WORD) for i in indices]
    assert [key % WORD for key in made.tolist()] == expected
    draws = [[mix((key + (j + 1) * 0xD1342543DE82EF95) % WORD) for j in range(3)] for key in expected]
    assert random.uniform(made, 3).tolist() == [[(d >> 40) / 2**24 for d in row] for row in draws]
    assert random.integers(made, 3, 1000).tolist() == [[(d >> 32) * 1000 >> 32 for d in row] for row in draws]


def test_a_million_keys_do_not_collide() -> None:
    a, b = keys(500_000, "flip"), keys(500_000, "crop")
    assert len(torch.cat((a, b)).unique()) == 1_000_000


def test_seed_plus_epoch_is_no_collision() -> None:
    """Regression 6 of the notes: (seed 0, epoch 1) and (seed 1, epoch 0) shared their permutation elsewhere."""
    made = [random.key(seed, "order", epoch) for seed in range(300) for epoch in range(300)]
    assert len(set(made)) == len(made)
    orders = {(seed, epoch): tuple(random.permutation(random.key(seed, "order", epoch), 50)) for seed in range(5) for epoch in range(5)}
    assert len(set(orders.values())) == 25


def test_draws_follow_their_distributions() -> None:
    k = keys(20_000, "draws")
    fits(random.uniform(k, 4), "uniform")
    fits(random.normal(k, 3), "norm")
    counts = random.integers(k, 5, 7).flatten().bincount(minlength=7)
    assert stats.chisquare(counts.numpy()).pvalue > 1e-3


@pytest.mark.parametrize("alpha", [0.05, 0.2, 0.5, 1.0, 4.0, 100.0])
def test_beta_is_exact(alpha: float) -> None:
    draws = random.beta(keys(20_000, "beta"), alpha)
    assert bool(((draws >= 0) & (draws <= 1)).all())
    # The lower half alone, where float32 resolves the pile at the end; the upper half is its mirror image.
    below = draws[draws < 0.5]
    assert stats.binomtest(len(below), len(draws)).pvalue > 1e-3
    assert stats.kstest(below.double().numpy(), lambda x: 2 * stats.beta.cdf(x, alpha, alpha)).pvalue > 1e-3
    assert stats.binomtest(int((draws > 0.75).sum()), len(draws), float(stats.beta.sf(0.75, alpha, alpha))).pvalue > 1e-3


def test_draws_of_neighbors_columns_and_streams_are_unrelated() -> None:
    n = 50_000
    one = random.uniform(keys(n, "one"), 2).double()
    other = random.uniform(keys(n, "other"), 2).double()
    bound = 5 / n**0.5
    pairs = [(one[:, 0], one[:, 1]), (one[1:, 0], one[:-1, 0]), (one[1:, 0], one[:-1, 1]), (one[:, 0], other[:, 0])]
    for a, b in pairs:
        assert abs(float(torch.corrcoef(torch.stack((a, b)))[0, 1])) < bound
    cells = (one[:, 0] * 16).long() * 16 + (one[:, 1] * 16).long()
    assert stats.chisquare(cells.bincount(minlength=256).numpy()).pvalue > 1e-3


def test_every_bit_of_a_key_reaches_every_bit_of_a_draw() -> None:
    k = keys(2_000, "avalanche")
    for bit in range(64):
        flipped = k ^ (1 << bit if bit < 63 else -(2**63))
        changed = random.integers(k, 1, 2**31) ^ random.integers(flipped, 1, 2**31)
        shares = torch.tensor([float((changed >> i & 1).double().mean()) for i in range(31)])
        assert bool(((shares - 0.5).abs() < 0.06).all())


@pytest.mark.parametrize("draw", [random.uniform, random.normal, lambda k, n: random.integers(k, n, 10)])
def test_a_draw_depends_on_its_sample_and_column_only(draw) -> None:
    k = keys(64, "samples")
    whole = draw(k, 6)
    order = torch.from_numpy(random.permutation(3, 64))
    assert torch.equal(draw(k[order], 6), whole[order])
    assert torch.equal(draw(k[5:6], 6), whole[5:6])
    assert torch.equal(draw(k, 4), whole[:, :4])
    assert draw(k, 3).shape == (64, 3) and draw(k[:0], 3).shape == (0, 3) and draw(k, 0).shape == (64, 0)


def test_ranges_and_types() -> None:
    k = keys(100_000, "ranges")
    u = random.uniform(k, 2)
    assert u.dtype == torch.float32 and float(u.min()) >= 0 and float(u.max()) < 1
    assert bool(random.normal(k, 3).isfinite().all()) and random.normal(k, 3).dtype == torch.float32
    i = random.integers(k, 3, 5)
    assert i.dtype == torch.int64 and i.min() == 0 and i.max() == 4
    assert random.beta(k, 0.2).dtype == torch.float32
    with pytest.raises(ValueError, match="high"):
        random.integers(k, 1, 0)
    with pytest.raises(ValueError, match="alpha"):
        random.beta(k, 0.0)


def test_permutations() -> None:
    order = random.permutation(random.key(0, "order", 0), 1000)
    assert order.dtype == np.int64 and sorted(order) == list(range(1000))
    assert np.array_equal(order, random.permutation(random.key(0, "order", 0), 1000))
    assert not np.array_equal(order, random.permutation(random.key(0, "order", 1), 1000))
    assert len(random.permutation(1, 0)) == 0 and random.permutation(1, 1).tolist() == [0]


def test_no_global_generator_is_read_or_moved() -> None:
    def states() -> tuple:
        return torch.get_rng_state().tolist(), str(np.random.get_state()), python_random.getstate()

    before = states()
    first = [f(keys(9), 4) for f in (random.uniform, random.normal)]
    assert states() == before
    torch.manual_seed(99)
    np.random.seed(99)
    assert all(torch.equal(a, f(keys(9), 4)) for a, f in zip(first, (random.uniform, random.normal), strict=True))


@pytest.mark.gpu
def test_an_accelerator_draws_the_same_bits() -> None:
    k = keys(1000, "device")
    assert torch.equal(random.sample_keys(3, torch.arange(9, device="cuda")).cpu(), random.sample_keys(3, torch.arange(9)))
    assert torch.equal(random.uniform(k.cuda(), 5).cpu(), random.uniform(k, 5))
    assert torch.equal(random.integers(k.cuda(), 5, 99).cpu(), random.integers(k, 5, 99))
