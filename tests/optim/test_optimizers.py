"""SGD, AdamW and Muon against torch.optim, in float64, with groups that differ in rate and decay; and what `found_inf` must not touch."""

import math
from collections import OrderedDict
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from torchstone.core.protocols import Group
from torchstone.optim import SGD, AdamW, Muon, kernels
from torchstone.optim.flat import FlatParameters
from torchstone.optim.muon import COEFFICIENTS, orthogonalized

STEPS = 12
GROUPS = (Group(("0.weight", "2.weight"), 0.5, 2.0), Group(("0.bias", "2.bias", "4.weight", "4.bias"), 1.0, 0.0))


def net(dtype: torch.dtype = torch.float64) -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(7, 9), nn.Tanh(), nn.Linear(9, 5), nn.Tanh(), nn.Linear(5, 3)).to(dtype)


def backward(model: nn.Module, step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    x = torch.randn(11, 7, generator=generator, dtype=torch.float64).to(next(model.parameters()).dtype)
    (model(x) - x[:, :3]).square().mean().backward()


def torch_groups(model: nn.Module, part) -> list[dict]:
    named = dict(model.named_parameters())
    return [
        {"params": [named[n] for n in g.names], "lr": part.lr * g.lr_scale, "weight_decay": part.weight_decay * g.decay_scale}
        for g in GROUPS
    ]


def train(part, groups=GROUPS, dtype=torch.float64, factor=lambda step: 1.0) -> FlatParameters:
    flat = FlatParameters(net(dtype), groups)
    memory = part.init(flat)
    for step in range(STEPS):
        flat.zero_grad()
        backward(flat.module, step)
        replace(part, lr=part.lr * factor(step)).step(flat, memory)
    return flat


def assert_same_weights(flat: FlatParameters, reference: nn.Module, tolerance: float = 1e-12) -> None:
    for name, p in reference.named_parameters():
        torch.testing.assert_close(flat.view(flat.data, name), p.detach(), rtol=0, atol=tolerance)
    padding = torch.ones_like(flat.data)
    for view in flat.named(padding).values():
        view.zero_()
    assert not flat.data[padding != 0].any()


@pytest.fixture(params=[True, False], ids=["fused", "fallback"])
def fused(request, monkeypatch) -> bool:
    monkeypatch.setattr(kernels, "has_fused", lambda tensor: request.param)
    return request.param


@pytest.mark.parametrize(
    "part",
    [
        SGD(),
        SGD(momentum=0.0, weight_decay=0.1),
        SGD(momentum=0.8, nesterov=True, weight_decay=0.05),
    ],
)
def test_sgd_is_torchs(part, fused):
    reference = net()
    optimizer = torch.optim.SGD(torch_groups(reference, part), momentum=part.momentum, nesterov=part.nesterov, foreach=False)
    for step in range(STEPS):
        optimizer.zero_grad()
        backward(reference, step)
        optimizer.step()
    assert_same_weights(train(part), reference)


@pytest.mark.parametrize("reference_kernel", [{"foreach": False}, {"fused": True}], ids=["loop", "fused_reference"])
def test_adamw_is_torchs_under_a_schedule(reference_kernel, fused):
    part, reference = AdamW(lr=0.03, betas=(0.8, 0.95), weight_decay=0.2), net()
    factor = lambda step: 1.0 / (1 + step)
    optimizer = torch.optim.AdamW(torch_groups(reference, part), betas=(0.8, 0.95), **reference_kernel)
    rates = [group["lr"] for group in optimizer.param_groups]
    for step in range(STEPS):
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * factor(step)
        optimizer.zero_grad()
        backward(reference, step)
        optimizer.step()
    assert_same_weights(train(part, factor=factor), reference)


def test_adamw_is_the_papers():
    """Algorithm 2 of Loshchilov and Hutter in NumPy, for one vector."""
    part = AdamW(lr=0.01, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.1)
    model = nn.Linear(5, 1, bias=False).double()
    w = model.weight.detach().numpy().copy()
    m, v = np.zeros_like(w), np.zeros_like(w)
    flat = FlatParameters(model)
    memory = part.init(flat)
    for t in range(1, 8):
        g = np.sin(w * t) + t
        flat.zero_grad()
        model.weight.grad.copy_(torch.from_numpy(g))
        part.step(flat, memory)
        m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g**2
        w = w - 0.01 * 0.1 * w - 0.01 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.99**t)) + 1e-8)
        np.testing.assert_allclose(model.weight.detach().numpy(), w, rtol=0, atol=1e-12)
    assert memory["step"] == 7 and memory["step"].ndim == 0


def test_muon_is_torchs_and_adamw_elsewhere(monkeypatch):
    """torch.optim.Muon casts to bfloat16; with that cast taken out both are float64 and must agree to 1e-12."""
    part = Muon(lr=0.02, weight_decay=0.1, other_lr_scale=0.3)
    groups = [Group(("0.weight", "2.weight", "0.bias", "2.bias", "head.weight", "head.bias"))]
    monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.clone)

    def build() -> nn.Sequential:
        return nn.Sequential(OrderedDict(zip(["0", "1", "2", "3", "head"], net(), strict=True)))

    flat, reference = FlatParameters(build(), groups), build()
    assert {name for stack in flat.stacks for name in stack.names} == {"0.weight", "2.weight"}
    named = dict(reference.named_parameters())
    hidden = [named.pop("0.weight"), named.pop("2.weight")]
    muon = torch.optim.Muon(hidden, lr=0.02, weight_decay=0.1)
    other = torch.optim.AdamW(named.values(), lr=0.02 * 0.3, betas=(0.9, 0.95), weight_decay=0.1)
    memory = part.init(flat)
    for step in range(STEPS):
        flat.zero_grad()
        reference.zero_grad()
        backward(flat.module, step)
        backward(reference, step)
        part.step(flat, memory)
        muon.step()
        other.step()
    assert_same_weights(flat, reference)
    assert not any(flat.view(memory["exp_avg_sq"], name).any() for name in ("0.weight", "2.weight"))


def test_muon_in_float32_follows_torchs_bfloat16():
    part, reference = Muon(lr=0.02, other_lr_scale=0.0), net(torch.float32)
    optimizer = torch.optim.Muon([p for p in reference.parameters() if p.ndim == 2], lr=0.02, weight_decay=0.0)
    for step in range(STEPS):
        reference.zero_grad()
        backward(reference, step)
        optimizer.step()
    flat = train(part, None, torch.float32)
    moved = torch.cat([(p - q).flatten() for p, q in zip(reference.parameters(), net(torch.float32).parameters(), strict=True)]).norm()
    apart = torch.cat([(p - flat.view(flat.data, n)).flatten() for n, p in reference.named_parameters()]).norm()
    assert apart < 0.05 * moved  # bfloat16 has three digits


def test_muon_scales_each_group():
    slow, fast = Muon(lr=0.01, weight_decay=0.1), Muon(lr=0.02, weight_decay=0.1)
    names = tuple(name for name, _ in net().named_parameters())
    torch.testing.assert_close(train(fast, [Group(names, 0.5)]).data, train(slow, [Group(names)]).data, rtol=0, atol=1e-12)
    torch.testing.assert_close(
        train(fast, [Group(names, 1.0, 0.5)]).data, train(replace(fast, weight_decay=0.05), [Group(names)]).data, rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5, 7])
@pytest.mark.parametrize("shape", [(1, 4, 4), (2, 5, 7), (3, 20, 8), (2, 8, 33)])
def test_orthogonalized_is_near_the_polar_factor(shape, steps):
    stack = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    result = orthogonalized(stack, steps)
    u, s, v = torch.linalg.svd(stack, full_matrices=False)
    # The rounds act on singular values alone: the same polynomial on numbers is the reference.
    x = s / s.norm(dim=1, keepdim=True)
    a, b, c = COEFFICIENTS
    for _ in range(steps):
        x = a * x + b * x**3 + c * x**5
    torch.testing.assert_close(result, u @ torch.diag_embed(x) @ v, rtol=0, atol=1e-11)
    assert steps < 5 or ((x > 0.4).all() and (x < 1.3).all())
    torch.testing.assert_close(orthogonalized(stack.float(), steps).double(), result, rtol=0, atol=1e-4)
    assert torch.equal(orthogonalized(stack.float(), steps), orthogonalized(stack.float(), steps))
    assert not orthogonalized(torch.zeros(shape), steps).any()


@pytest.mark.parametrize("values", ["even", "one large", "falling", "few"])
@pytest.mark.parametrize("shape", [(128, 512), (384, 128), (128, 128)])
def test_orthogonalized_bears_bfloat16(shape, values):
    """As near to the float64 result as the plain rounds in bfloat16 are, and no singular value runs away."""
    few = min(shape)
    s = {
        "even": torch.ones(few),
        "one large": torch.ones(few).index_fill(0, torch.tensor(0), 100.0),
        "falling": torch.logspace(0, -5, few),
        "few": torch.ones(few).index_fill(0, torch.arange(8, few), 0.0),
    }[values].double()
    u, _, v = torch.linalg.svd(torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64), full_matrices=False)
    exact = (u * s @ v)[None]
    result, reference = orthogonalized(exact.bfloat16()).double(), orthogonalized(exact)
    assert torch.linalg.svdvals(result[0]).max() < 1.25
    x = exact.bfloat16() / exact.norm().bfloat16()
    x = x if shape[0] <= shape[1] else x.mT
    a, b, c = COEFFICIENTS
    for _ in range(5):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    plain = (x if shape[0] <= shape[1] else x.mT).double()
    assert (result - reference).norm() < 1.5 * (plain - reference).norm() + 0.02 * reference.norm()


def test_muon_flattens_filters():
    torch.manual_seed(0)
    conv = FlatParameters(nn.Sequential(nn.Conv2d(3, 4, 2, bias=False)))
    linear = FlatParameters(nn.Sequential(nn.Linear(12, 4, bias=False)))
    linear.data.copy_(conv.data)
    conv.grad.normal_()
    linear.grad.copy_(conv.grad)
    for flat in (conv, linear):
        Muon().step(flat, Muon().init(flat))
    assert torch.equal(conv.data, linear.data)


@pytest.mark.parametrize("part", [SGD(), SGD(momentum=0.0), AdamW(), Muon(weight_decay=0.1)], ids=lambda part: type(part).__name__)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("poison", [0.0, math.nan, math.inf])
def test_found_inf_changes_nothing_at_all(part, dtype, poison, fused):
    flat = FlatParameters(net(dtype), GROUPS)
    memory = part.init(flat)
    for _ in range(2):
        backward(flat.module, 0)
        part.step(flat, memory, found_inf=torch.zeros(()))
    data, before = flat.data.clone(), {key: value.clone() for key, value in memory.items()}
    flat.grad.add_(poison)
    part.step(flat, memory, found_inf=torch.ones(()))
    assert torch.equal(flat.data, data)
    assert all(torch.equal(memory[key], before[key]) for key in before)


@pytest.mark.parametrize("part", [SGD(), AdamW(), Muon()], ids=lambda part: type(part).__name__)
def test_a_flag_that_is_down_is_no_flag(part):
    flats = [FlatParameters(net(), GROUPS) for _ in range(2)]
    for flat, flag in zip(flats, (None, torch.zeros(())), strict=True):
        memory = part.init(flat)
        for step in range(3):
            flat.zero_grad()
            backward(flat.module, step)
            part.step(flat, memory, found_inf=flag)
    assert torch.equal(flats[0].data, flats[1].data)


@pytest.mark.parametrize("part", [SGD(), AdamW(), Muon()], ids=lambda part: type(part).__name__)
def test_memory_is_flat_or_a_number(part):
    flat = FlatParameters(net())
    for value in part.init(flat).values():
        assert value.ndim == 0 or value.shape == flat.data.shape
        assert not value.any()


@pytest.mark.parametrize("part", [SGD(), AdamW(lr=0.03), Muon()], ids=lambda part: type(part).__name__)
def test_bfloat16_parameters_train(part):
    """The fused SGD kernel of torch 2.13 leaves them where they are on the CPU, but for the last few of each tensor."""
    flat, start = train(part, None, torch.bfloat16), FlatParameters(net(torch.bfloat16))
    exact = train(part, None, torch.float64)
    for name in flat.names:
        assert not torch.equal(flat.view(flat.data, name), start.view(start.data, name))
    assert flat.data.dtype == torch.bfloat16
    moved = (exact.data - start.data.double()).norm()
    assert (flat.data.double() - exact.data).norm() < 0.3 * moved


def test_moments_follow_names_not_positions():
    """Case 27: reorder the layout, load by name, and the next step is the same."""
    first, part = train(AdamW(lr=0.1)), AdamW(lr=0.1)
    flats = [FlatParameters(net(), groups) for groups in (GROUPS, None)]
    results = []
    for flat in flats:
        flat.load(flat.data, first.named(first.data))
        memory = part.init(flat)
        for key, seed in (("exp_avg", 1.0), ("exp_avg_sq", 2.0)):
            flat.load(memory[key], {n: torch.full_like(v, seed) * v.abs() for n, v in first.named(first.data).items()})
        memory["step"].fill_(4)
        flat.zero_grad()
        backward(flat.module, 0)
        replace(part, weight_decay=0.0).step(flat, memory)
        results.append(flat.named(flat.data))
    for name in ("4.weight", "4.bias", "2.bias", "0.bias"):  # of lr_scale 1 in both
        torch.testing.assert_close(results[0][name], results[1][name], rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SGD(lr=-1.0), "SGD.lr must be"),
        (lambda: SGD(momentum=1.0), "SGD.momentum must be"),
        (lambda: SGD(momentum=0.0, nesterov=True), "SGD.nesterov must be"),
        (lambda: AdamW(lr=math.nan), "AdamW.lr must be"),
        (lambda: AdamW(betas=(0.9,)), "AdamW.betas must be"),
        (lambda: AdamW(eps=0.0), "AdamW.eps must be"),
        (lambda: AdamW(weight_decay=-0.1), "AdamW.weight_decay must be"),
        (lambda: Muon(ns_steps=0), "Muon.ns_steps must be"),
        (lambda: Muon(momentum=-0.1), "Muon.momentum must be"),
    ],
)
def test_fields_are_checked(make, message):
    with pytest.raises(ValueError, match=message):
        make()
