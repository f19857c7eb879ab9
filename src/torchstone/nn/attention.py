"""Causal self-attention, the fastest exact way for each device, and its key-value cache.

Vaswani et al., "Attention Is All You Need", 2017, https://arxiv.org/abs/1706.03762, section 3.2. Query-key normalization: Dehghani et al.,
"Scaling Vision Transformers to 22 Billion Parameters", 2023, https://arxiv.org/abs/2302.05442, section 2. Scores over D: Yang et al.,
"Tensor Programs V", 2022, https://arxiv.org/abs/2203.03466, definition 4.1.
Shapes: N sequences, T tokens, H heads, D channels a head, C the cache's capacity.
"""

from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from torchstone.nn.position import Rotation

BLOCK = 64
LONGEST = 1024

AttentionScale = Literal["rsqrt", "inverse", "none"]
"""What multiplies q k^T: 1 / sqrt(D), 1 / D, or nothing."""


def score_scale(choice: AttentionScale, channels: int) -> float | None:
    """The factor of the scores at `channels` a head; None is 1 / sqrt(D), which PyTorch's kernels take by themselves."""
    return {"rsqrt": None, "inverse": 1 / channels, "none": 1.0}[choice]


def causal_attention(
    q: Float[Tensor, "N H T D"], k: Float[Tensor, "N H T D"], v: Float[Tensor, "N H T D"], scale: float | None = None
) -> Float[Tensor, "N H T D"]:
    """softmax(scale q k^T) v where a token sees itself and what came before; scale is 1 / sqrt(D) unless given.

    Training in float32 or float64 on a CPU goes by blocks of rows, everything else by PyTorch's fused kernel. Milliseconds forward and
    backward on one thread, (N, H, T, D) fused -> blocks: (32,4,64,64) 9.4 -> 9.6, (8,4,128,64) 7.3 -> 6.1, (8,4,256,64) 25.4 -> 19.3,
    (4,4,512,64) 50.0 -> 32.7, (2,4,1024,64) 73 -> 56. Blocks keep the probabilities, T^2 / 2 numbers a head, hence the limit on T.
    """
    by_blocks = q.device.type == "cpu" and q.dtype in (torch.float32, torch.float64) and BLOCK < q.shape[2] <= LONGEST
    if by_blocks and torch.is_grad_enabled() and not torch.compiler.is_exporting():
        N, H = q.shape[:2]
        return BlockCausalAttention.apply(q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1), scale).unflatten(0, (N, H))
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale)


class BlockCausalAttention(torch.autograd.Function):
    """Causal attention over q, k, v [NH T D], a block of rows at a time, which never computes the blocks above the diagonal."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, scale: float | None = None) -> Tensor:
        T, D = q.shape[1:]
        ctx.scale = D**-0.5 if scale is None else scale
        # The last BLOCK rows and columns hold the diagonal: a block's bias is cut out of this one from the lower right corner.
        bias = torch.full((BLOCK, T), float("-inf"), dtype=q.dtype, device=q.device).triu(T - BLOCK + 1)
        out = torch.empty_like(q)
        probabilities = []
        for start in range(0, T, BLOCK):
            stop = min(start + BLOCK, T)
            block_bias = bias[BLOCK - (stop - start) :, T - stop :]
            p = torch.baddbmm(block_bias, q[:, start:stop], k[:, :stop].mT, alpha=ctx.scale).softmax(dim=-1)
            out[:, start:stop] = torch.bmm(p, v[:, :stop])
            probabilities.append(p)
        ctx.save_for_backward(q, k, v, out, *probabilities)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        q, k, v, out, *probabilities = ctx.saved_tensors
        T = q.shape[1]
        d_q, d_k, d_v = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        # sum_j p_ij dp_ij = out_i . d_out_i, so the softmax's backward is one product and one multiplication in place.
        row_sum = (out * d_out).sum(dim=-1, keepdim=True)
        for p, start in zip(probabilities, range(0, T, BLOCK), strict=True):
            stop = start + p.shape[1]
            rows = slice(start, stop)
            d_v[:, :stop].baddbmm_(p.mT, d_out[:, rows])
            d_scores = torch.baddbmm(row_sum[:, rows], d_out[:, rows], v[:, :stop].mT, beta=-1.0).mul_(p)
            d_q[:, rows] = torch.bmm(d_scores, k[:, :stop])
            d_k[:, :stop].baddbmm_(d_scores.mT, q[:, rows], alpha=ctx.scale)
        return d_q.mul_(ctx.scale), d_k, d_v, None


class KeyValueCache:
    """The keys and values of the tokens read so far, in memory for `capacity` tokens."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.length = 0
        self.store: Tensor | None = None

    def extend(self, k: Float[Tensor, "N H T D"], v: Float[Tensor, "N H T D"]) -> tuple[Tensor, Tensor]:
        """Adds T tokens; returns the keys and values [N H length D] of all so far."""
        if self.store is None:
            self.store = k.new_empty(2, *k.shape[:2], self.capacity, k.shape[3])
        start, self.length = self.length, self.length + k.shape[2]
        assert self.length <= self.capacity
        self.store[0, :, :, start : self.length] = k
        self.store[1, :, :, start : self.length] = v
        return self.store[0, :, :, : self.length], self.store[1, :, :, : self.length]


class CausalSelfAttention(nn.Module):
    """Multi-head causal self-attention [N T dim] -> [N T dim], with rotary positions when a rotation is given.

    With a cache, the tokens are the continuation of those in it: any number into an empty cache, one at a time after that.
    """

    def __init__(self, dim: int, num_heads: int, *, qk_norm: bool = False, bias: bool = False, scale: AttentionScale = "rsqrt") -> None:
        super().__init__()
        self.num_heads = num_heads
        self.scale = score_scale(scale, dim // num_heads)
        self.qk_norm = qk_norm
        self.qkv = nn.Linear(dim, 3 * dim, bias=bias)
        self.out = nn.Linear(dim, dim, bias=bias)

    def forward(
        self, x: Float[Tensor, "N T dim"], rotation: Rotation | None = None, cache: KeyValueCache | None = None
    ) -> Float[Tensor, "N T dim"]:
        qk, v = self.qkv(x).unflatten(-1, (3, self.num_heads, x.shape[-1] // self.num_heads)).permute(2, 0, 3, 1, 4).split([2, 1])
        if self.qk_norm:
            qk = F.rms_norm(qk, qk.shape[-1:], eps=1e-6)
        if rotation is not None:
            qk = rotation(qk)
        q, k = qk.to(v.dtype).unbind()  # rotation and norm may have widened a bfloat16
        v = v[0]
        if cache is None or cache.length == 0:
            if cache is not None:
                cache.extend(k, v)
            y = causal_attention(q, k, v, self.scale)
        else:
            assert x.shape[1] == 1
            y = F.scaled_dot_product_attention(q, *cache.extend(k, v), scale=self.scale)
        return self.out(y.transpose(1, 2).flatten(2))
