"""Attention against its definition, written out in float64."""

import math

import pytest
import torch

from torchstone.nn import CausalSelfAttention, KeyValueCache, causal_attention, rotary
from torchstone.nn.attention import BLOCK, LONGEST, BlockCausalAttention


def by_definition(q, k, v):
    T = q.shape[2]
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[3])
    return scores.masked_fill(torch.ones(T, T).triu(1).bool(), -math.inf).softmax(dim=-1) @ v


@pytest.mark.parametrize("T", [1, 5, BLOCK, BLOCK + 1, 2 * BLOCK, 3 * BLOCK + 17])
@pytest.mark.parametrize("N", [0, 2])
def test_causal_attention_equals_its_definition_with_gradients(N, T):
    generator = torch.Generator().manual_seed(T)
    q, k, v = (torch.randn(N, 3, T, 8, dtype=torch.float64, generator=generator, requires_grad=True) for _ in range(3))
    d_out = torch.randn(N, 3, T, 8, dtype=torch.float64, generator=generator)
    ours, truth = causal_attention(q, k, v), by_definition(q, k, v)
    torch.testing.assert_close(ours, truth, rtol=1e-12, atol=1e-12)
    for a, b in zip(torch.autograd.grad(ours, (q, k, v), d_out), torch.autograd.grad(truth, (q, k, v), d_out), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_gradcheck_of_the_blocks():
    q, k, v = (torch.randn(2, BLOCK + 3, 2, dtype=torch.float64, requires_grad=True) for _ in range(3))
    assert torch.autograd.gradcheck(BlockCausalAttention.apply, (q, k, v), fast_mode=True)


def test_long_sequences_and_inference_take_the_fused_kernel():
    q = torch.randn(1, 1, LONGEST + 1, 4, requires_grad=True)
    assert "BlockCausal" not in type(causal_attention(q, q, q).grad_fn).__name__
    q = q[:, :, : BLOCK + 1].detach()
    with torch.no_grad():
        fused = causal_attention(q, q, q)
    torch.testing.assert_close(fused, causal_attention(q.requires_grad_(), q, q))


@pytest.mark.parametrize("qk_norm", [False, True])
def test_cached_attention_equals_the_whole_sequence(qk_norm):
    attention = CausalSelfAttention(16, 2, qk_norm=qk_norm).double()
    x = torch.randn(2, 9, 16, dtype=torch.float64)
    whole = attention(x, rotary(0, 9, 8, like=x))
    cache = KeyValueCache(9)
    parts = [attention(x[:, :4], rotary(0, 4, 8, like=x), cache)]
    parts += [attention(x[:, t : t + 1], rotary(t, 1, 8, like=x), cache) for t in range(4, 9)]
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=1e-12, atol=1e-12)


def test_bfloat16_autocast_stays_in_bfloat16_inside():
    attention = CausalSelfAttention(32, 2, qk_norm=True)
    x = torch.randn(2, 70, 32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = attention(x, rotary(0, 70, 16, like=x))
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), attention(x, rotary(0, 70, 16, like=x)), rtol=0.05, atol=0.02)
