"""Initial weights have the variance they promise, and keep it through fifty layers."""

import math

import pytest
import torch
from torch import nn

from torchstone.core.protocols import ImageShape, VectorShape
from torchstone.models import ConvNetConfig, GPTConfig, MLPConfig, ResnetConfig
from torchstone.nn import INITS, LSUV, draw_weights, fan_in_normal_, gain, residual_scale
from torchstone.nn import init as rules


@pytest.mark.parametrize("shape", [(300, 200), (100, 20, 3, 3)])
def test_fan_in_normal(shape):
    torch.manual_seed(0)
    weight = torch.empty(shape)
    fan_in_normal_(weight)
    assert weight.std().item() == pytest.approx(math.sqrt(2 / weight[0].numel()), rel=0.03)


def test_residual_scale():
    assert residual_scale(8) == 0.25


class Layers(nn.Module):
    """fan in and out of each by hand: 36 and 90; 300 and 200; 9 and 9 (depthwise)."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 64, 1)
        self.conv = nn.Conv2d(40, 100, 3)
        self.depthwise = nn.Conv2d(400, 400, 3, groups=400)
        self.dense = nn.Linear(300, 200)
        self.head = nn.Linear(200, 100)


FANS = {"conv": (360, 900), "depthwise": (9, 9), "dense": (300, 200), "head": (200, 100)}
ROOT2 = math.sqrt(2)
CASES = [
    (rules.Normal(std=0.3), lambda name, i, o: 0.3),
    (rules.Uniform(r=0.6), lambda name, i, o: 0.6 / math.sqrt(3)),
    (rules.Uniform(), lambda name, i, o: (3 * i) ** -0.5),
    (rules.Truncated(std=0.1, cut=2.0), lambda name, i, o: 0.0879626),  # scipy.stats.truncnorm(-2, 2).std() = 0.879626
    (rules.Xavier(), lambda name, i, o: math.sqrt(2 / (i + o))),
    (rules.Xavier(distribution="uniform", gain=2.0), lambda name, i, o: 2 * math.sqrt(2 / (i + o))),
    (rules.Kaiming(), lambda name, i, o: (1 if name == "head" else ROOT2) * i**-0.5),
    (rules.Kaiming(fan="out", distribution="truncated"), lambda name, i, o: (1 if name == "head" else ROOT2) * o**-0.5),
    (rules.Kaiming(fan="mean", distribution="uniform", gain=1.0), lambda name, i, o: math.sqrt(2 / (i + o))),
    (rules.MuP(base=5), lambda name, i, o: (40**-0.5 * 5**0.5 if name == "head" else ROOT2) * i**-0.5),  # narrowest behind the stem: 40
]


@pytest.mark.parametrize(("rule", "expected"), [pytest.param(*case, id=str(case[0])[:40]) for case in CASES])
def test_standard_deviation(rule, expected):
    torch.manual_seed(0)
    model = Layers()
    draw_weights(model, rule, "relu")
    for name, (reads, feeds) in FANS.items():
        layer = model.get_submodule(name)
        assert layer.weight.std().item() == pytest.approx(expected(name, reads, feeds), rel=0.04), name
        assert abs(layer.weight.mean().item()) < 0.06 * layer.weight.std()
        assert layer.bias.eq(0).all()


@pytest.mark.parametrize("distribution", ["uniform", "truncated"])
def test_distributions_end_where_they_should(distribution):
    model = Layers()
    draw_weights(model, rules.Kaiming(distribution=distribution, gain=1.0), "relu")
    end = math.sqrt(3) if distribution == "uniform" else 2 / 0.8796256610342398
    largest = model.dense.weight.abs().max().item() * math.sqrt(300)
    assert 0.99 * end < largest <= end * (1 + 1e-6)


def test_orthogonal():
    model = Layers()
    draw_weights(model, rules.Orthogonal(), "relu")
    flat = model.conv.weight.flatten(1).double()
    torch.testing.assert_close(flat @ flat.T, 2 * torch.eye(100, dtype=torch.float64), rtol=0, atol=1e-5)
    head = model.head.weight.double()
    torch.testing.assert_close(head @ head.T, torch.eye(100, dtype=torch.float64), rtol=0, atol=1e-5)


def second_moments(model, x):
    seen = []
    hooks = [layer.register_forward_hook(lambda _, __, out: seen.append(out.square().mean().item())) for layer in model.hidden]
    with torch.no_grad():
        model(x)
    for hook in hooks:
        hook.remove()
    return seen


# ReLU's variance wanders with the width, like exp of a walk of steps sqrt(5 / width); the others pull it back.
@pytest.mark.parametrize(("activation", "width"), [("relu", 1024), ("tanh", 256), ("selu", 256), ("sigmoid", 256), ("elu", 256)])
def test_kaiming_with_the_activations_gain_keeps_the_variance_through_fifty_layers(activation, width):
    torch.manual_seed(2)
    model = MLPConfig(hidden=(width,) * 50, activation=activation, init=rules.Kaiming()).build(VectorShape(width), 3)
    moments = second_moments(model, torch.randn(64, width))
    assert 0.5 < min(moments) <= max(moments) < 2


@pytest.mark.parametrize("activation", ["relu", "gelu", "silu", "mish", "hardswish", "leaky_relu"])
def test_lsuv_keeps_it_for_those_whose_errors_grow_as_well(activation):
    torch.manual_seed(0)
    rule = LSUV()
    model = MLPConfig(hidden=(128,) * 50, activation=activation, init=rule).build(VectorShape(128), 3)
    x = torch.randn(256, 128)
    rule.initialize_from(model, x)
    outputs = []
    for layer in model.hidden:
        layer.register_forward_hook(lambda _, __, out: outputs.append(out.std(correction=0).item()))
    model(x)
    assert outputs == pytest.approx([1.0] * 50, abs=0.02)


@pytest.mark.parametrize(
    "config", [ConvNetConfig(widths=(4, 8), norm="none"), ResnetConfig(width=4, norm="none", zero_init_residual=False)]
)
def test_lsuv_of_convolutions_leaves_no_hook_and_the_mode(config):
    torch.manual_seed(0)
    model = config.build(ImageShape(1, 12, 12), 3)
    LSUV()(model, "relu")
    x = torch.randn(64, 1, 12, 12)
    LSUV(samples=64).initialize_from(model, x)
    assert model.training
    seen = {}
    for name, module in model.named_modules():
        assert not module._forward_hooks
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda _, __, out, name=name: seen.__setitem__(name, out.std(correction=0).item()))
    model.eval()(x)
    assert list(seen.values()) == pytest.approx([1.0] * len(seen), abs=1e-3)


def test_small_weights_vanish_and_large_explode():
    for std, low, high in ((0.01, 0.0, 1e-6), (0.3, 1e6, math.inf)):
        torch.manual_seed(0)
        model = MLPConfig(hidden=(64,) * 20, init=rules.Normal(std=std)).build(VectorShape(64), 3)
        assert low <= second_moments(model, torch.randn(16, 64))[-1] < high


def test_gpt_keeps_its_branch_scale_and_its_embedding():
    from torchstone.core.protocols import TokenShape

    torch.manual_seed(0)
    model = GPTConfig(depth=8, dim=64, num_heads=2, init=rules.Kaiming(gain=1.0), tie=True).build(TokenShape(50, 4), 50)
    assert model.embedding.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert model.blocks[0].attention.qkv.weight.std().item() == pytest.approx(1 / 8, rel=0.05)
    assert model.blocks[0].attention.out.weight.std().item() == pytest.approx(1 / 32, rel=0.05)


def test_mup_at_the_base_is_kaiming():
    made = []
    for rule in (rules.MuP(base=32), rules.Kaiming()):
        torch.manual_seed(0)
        made.append(MLPConfig(hidden=(32, 64), init=rule).build(VectorShape(7), 3).state_dict())
    assert all(torch.equal(made[0][name], made[1][name]) for name in made[0])


def test_the_tables_hold_every_rule():
    assert set(rules.ABOUT) == set(INITS)
    assert gain("relu") == ROOT2


@pytest.mark.parametrize(
    ("rule", "edit"),
    [
        (rules.Normal, {"std": -1.0}),
        (rules.Uniform, {"r": math.nan}),
        (rules.Truncated, {"std": math.inf}),
        (rules.Truncated, {"cut": 0.0}),
        (rules.Xavier, {"distribution": "cauchy"}),
        (rules.Xavier, {"gain": 0.0}),
        (rules.Kaiming, {"fan": "both"}),
        (rules.Kaiming, {"gain": -1.0}),
        (rules.Orthogonal, {"gain": math.inf}),
        (rules.LSUV, {"samples": 1}),
        (rules.MuP, {"base": 0}),
    ],
)
def test_what_they_refuse(rule, edit):
    part = rule()
    object.__setattr__(part, *next(iter(edit.items())))
    with pytest.raises(ValueError, match=rf"^{rule.__name__}\.{next(iter(edit))} must"):
        part.__post_init__()
