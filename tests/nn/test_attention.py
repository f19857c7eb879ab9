"""Attention against its definition, written out in float64."""

import math
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from torchstone import recipes
from torchstone.core import tree
from torchstone.core.errors import UserError
from torchstone.core.protocols import ImageShape, TokenShape
from torchstone.models import GPTConfig, VITConfig
from torchstone.models.vision.vit import attention as full_attention
from torchstone.nn import CausalSelfAttention, KeyValueCache, causal_attention, rotary, score_scale
from torchstone.nn.attention import BLOCK, LONGEST, BlockCausalAttention

DIVISORS = {"rsqrt": math.sqrt, "inverse": float, "none": lambda channels: 1.0}


def by_definition(q, k, v, scale="rsqrt", *, causal=True):
    T = q.shape[2]
    scores = q @ k.transpose(-1, -2) / DIVISORS[scale](q.shape[3])
    if causal:
        scores = scores.masked_fill(torch.ones(T, T).triu(1).bool(), -math.inf)
    return scores.softmax(dim=-1) @ v


def drawn(*shape, dtype=torch.float64):
    generator = torch.Generator().manual_seed(shape[-2])
    return [torch.randn(*shape, dtype=dtype, generator=generator, requires_grad=True) for _ in range(3)]


def assert_same(ours, truth, inputs, tolerance=1e-12):
    torch.testing.assert_close(ours, truth, rtol=tolerance, atol=tolerance)
    d_out = torch.randn(truth.shape, dtype=truth.dtype, generator=torch.Generator().manual_seed(1))
    for a, b in zip(torch.autograd.grad(ours, inputs, d_out), torch.autograd.grad(truth, inputs, d_out), strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("T", [1, 5, BLOCK, BLOCK + 1, 2 * BLOCK, 3 * BLOCK + 17])
@pytest.mark.parametrize("N", [0, 2])
def test_causal_attention_equals_its_definition_with_gradients(N, T):
    qkv = drawn(N, 3, T, 8)
    assert_same(causal_attention(*qkv), by_definition(*qkv), qkv)


@pytest.mark.parametrize("scale", DIVISORS)
@pytest.mark.parametrize("T", [BLOCK // 2, BLOCK + 5])
def test_every_scale_equals_its_definition_with_gradients(scale, T):
    """Fused, by blocks, and where each token sees all."""
    qkv = drawn(2, 3, T, 6)
    factor = score_scale(scale, 6)
    assert_same(causal_attention(*qkv, factor), by_definition(*qkv, scale), qkv)
    assert_same(full_attention(*qkv, factor), by_definition(*qkv, scale, causal=False), qkv)


@pytest.mark.parametrize("scale", DIVISORS)
def test_every_scale_in_bfloat16_where_each_token_sees_all(scale):
    qkv = [(x.detach() / 2).bfloat16() for x in drawn(2, 3, 20, 6)]
    truth = by_definition(*(x.double() for x in qkv), scale, causal=False)
    torch.testing.assert_close(full_attention(*qkv, score_scale(scale, 6)).double(), truth, rtol=0, atol=0.03)


@pytest.mark.parametrize("channels", [6, 8, 16, 64])
@pytest.mark.parametrize("T", [20, BLOCK + 20])
def test_the_default_scale_is_that_of_the_kernels_to_the_last_bit(T, channels):
    qkv = drawn(2, 3, T, channels, dtype=torch.float32)
    assert score_scale("rsqrt", channels) is None
    assert torch.equal(causal_attention(*qkv, None), causal_attention(*qkv))
    assert torch.equal(full_attention(*qkv), F.scaled_dot_product_attention(*qkv))
    assert_same(causal_attention(*qkv, channels**-0.5), causal_attention(*qkv), qkv, tolerance=0)


@pytest.mark.parametrize(
    ("config", "inputs", "x"),
    [
        (GPTConfig(depth=1, dim=12, num_heads=2), TokenShape(7, 80), torch.randint(7, (2, 80), generator=torch.Generator().manual_seed(0))),
        (VITConfig(depth=1, dim=12, num_heads=2), ImageShape(1, 8, 8), torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))),
    ],
    ids=["gpt", "vit"],
)
def test_a_model_divides_its_scores_as_it_is_told(config, inputs, x):
    """Dividing by D what was not divided is to divide the queries' weights by D: the same model."""
    models = {scale: replace(config, attention_scale=scale).build(inputs, 7).double().eval() for scale in DIVISORS}
    x = x if x.dtype == torch.int64 else x.double()
    for scale, divisor in DIVISORS.items():
        weights = {name: 8 * tensor for name, tensor in models["none"].state_dict().items()}  # far from uniform attention
        models[scale].load_state_dict(weights)
        weights["blocks.0.attention.qkv.weight"] = weights["blocks.0.attention.qkv.weight"].clone()
        weights["blocks.0.attention.qkv.weight"][:12] /= divisor(6)
        twin = replace(config, attention_scale="none").build(inputs, 7).double().eval()
        twin.load_state_dict(weights)
        torch.testing.assert_close(models[scale](x), twin(x), rtol=1e-10, atol=1e-10)
    assert not torch.allclose(models["none"](x), models["rsqrt"](x), rtol=1e-3)


def test_a_scale_that_is_none_of_the_three_is_refused():
    with pytest.raises(UserError, match="has no value .*rsqrt, inverse, none"):
        tree.edit(recipes.gpt_bytes(), ["model.attention_scale=sqrt"])


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


@pytest.mark.parametrize("scale", DIVISORS)
@pytest.mark.parametrize("qk_norm", [False, True])
def test_cached_attention_equals_the_whole_sequence(qk_norm, scale):
    attention = CausalSelfAttention(16, 2, qk_norm=qk_norm, scale=scale).double()
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
