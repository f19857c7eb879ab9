"""Rotary positions against complex multiplication, and their reason: only the distance counts."""

import torch

from torchstone.nn import rotary


def test_rotary_is_complex_multiplication():
    x = torch.randn(2, 3, 7, 10, dtype=torch.float64)
    angle = torch.arange(4.0, 11.0, dtype=torch.float64)[:, None] * 10_000 ** (-torch.arange(5, dtype=torch.float64) / 5)
    turned = torch.complex(x[..., :5], x[..., 5:]) * torch.polar(torch.ones_like(angle), angle)
    ours = rotary(4, 7, 10, like=x)(x)
    torch.testing.assert_close(ours, torch.cat([turned.real, turned.imag], dim=-1), rtol=1e-12, atol=1e-12)


def test_products_see_the_distance_only():
    q, k = torch.randn(2, 1, 8, dtype=torch.float64)
    at = lambda x, position: rotary(position, 1, 8, like=x)(x)
    torch.testing.assert_close(at(q, 3) @ at(k, 1).T, at(q, 103) @ at(k, 101).T, rtol=1e-12, atol=1e-12)


def test_rotary_is_at_least_float32():
    assert rotary(0, 3, 8, like=torch.zeros(1, dtype=torch.bfloat16)).cos.dtype == torch.float32
