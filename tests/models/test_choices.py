"""Every model with every norm, activation and initial rule: it builds, runs and passes gradients back, or says why not."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from torchstone import recipes
from torchstone.core import tree
from torchstone.core.errors import UserError
from torchstone.core.protocols import ImageShape, TokenShape, VectorShape
from torchstone.models import (
    CifarResnetConfig,
    ConvNetConfig,
    FastConvNetConfig,
    GPTConfig,
    LenetConfig,
    MLPConfig,
    MobileNetV2Config,
    ResnetConfig,
    VITConfig,
)
from torchstone.nn import INITS, LSUV, NORMS, DropBlock

IMAGE = ImageShape(1, 16, 16)
MODELS = {
    "mlp": (MLPConfig(hidden=(16, 16)), VectorShape(5)),
    "lenet": (LenetConfig(), ImageShape(1, 28, 28)),
    "conv_net": (ConvNetConfig(widths=(4, 8)), IMAGE),
    "resnet": (ResnetConfig(width=2), IMAGE),
    "bottlenecks": (ResnetConfig(depth=50, width=2), IMAGE),
    "cifar_resnet": (CifarResnetConfig(depth=8, width=4, shortcut="projection"), IMAGE),
    "fast_conv_net": (FastConvNetConfig(widths=(4, 6), convs_per_stage=3, residual=True), IMAGE),
    "mobile_net_v2": (MobileNetV2Config(width=0.1), IMAGE),
    "vit": (VITConfig(depth=1, dim=16, num_heads=2), IMAGE),
    "gpt": (GPTConfig(depth=1, dim=16, num_heads=2), TokenShape(7, 6)),
}


def make(inputs, n=3):
    match inputs:
        case ImageShape(channels, height, width):
            return torch.randn(n, channels, height, width)
        case VectorShape(features):
            return torch.randn(n, features)
        case _:
            return torch.randint(0, inputs.vocabulary, (n, inputs.length))


def runs(config, inputs):
    """The logits of a batch, once their gradients have reached every parameter."""
    torch.manual_seed(0)
    model = config.build(inputs, 7)
    logits = model(make(inputs))
    logits.square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    assert logits.isfinite().all() and logits.shape[-1] == 7
    return model


def allowed(config, field):
    return tree.slots_of(type(config))[field].words


REFUSED = {("mlp", "instance"), ("lenet", "instance"), ("gpt", "batch"), ("gpt", "instance"), ("gpt", "switchable")}


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", MODELS)
def test_every_norm(name, norm):
    config, inputs = MODELS[name]
    if (name, norm) in REFUSED:
        with pytest.raises(ValueError, match="norm must"):
            replace(config, norm=norm)
        return
    runs(replace(config, norm=norm), inputs)


@pytest.mark.parametrize("name", MODELS)
def test_every_activation(name):
    config, inputs = MODELS[name]
    assert len(allowed(config, "activation")) == (22 if name in ("mlp", "vit", "gpt") else 17)
    for activation in allowed(config, "activation"):
        if activation == "squared_relu" and type(config) in (ResnetConfig, CifarResnetConfig) and getattr(config, "residual", True):
            with pytest.raises(ValueError, match="activation must not be squared_relu: it stands behind the sum"):
                replace(config, activation=activation)
            continue
        runs(replace(config, activation=activation), inputs)


@pytest.mark.parametrize("rule", INITS)
@pytest.mark.parametrize("name", MODELS)
def test_every_rule_of_initial_weights(name, rule):
    config, inputs = MODELS[name]
    plain = runs(config, inputs).state_dict()
    model = runs(replace(config, init=INITS[rule]()), inputs)
    drawn = [name for name, module in model.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    changed = [name for name in drawn if not torch.equal(model.state_dict()[f"{name}.weight"], plain[f"{name}.weight"])]
    assert len(changed) >= len(drawn) - 1 - sum("conv_2" in name for name in drawn)
    if rule == "lsuv":
        LSUV().initialize_from(model, make(inputs, 8))
        model(make(inputs))


@pytest.mark.parametrize("name", MODELS)
def test_every_share_that_is_dropped_is_off_in_evaluation(name):
    config, inputs = MODELS[name]
    for field in ("dropout", "drop_path", "drop_block", "word_dropout"):
        if field not in tree.names_of(type(config)):
            continue
        torch.manual_seed(0)
        model = replace(config, **{field: 0.5}).build(inputs, 7)
        for parameter in model.parameters():  # a branch that starts at 0 has nothing to lose
            nn.init.normal_(parameter, std=0.3)
        torch.manual_seed(0)
        x = make(inputs, 8)
        assert not torch.equal(model(x), model(x)), field
        assert torch.equal(model.eval()(x), model(x)), field
        logits = model.train()(x)
        logits.sum().backward()
        assert logits.isfinite().all()


def test_drop_block_sits_in_the_last_two_stages():
    model = ResnetConfig(width=2, drop_block=0.1).build(IMAGE, 3)
    rates = [block.drop_block.rate for block in model.blocks]
    assert rates == [0, 0, 0, 0, 0.1, 0.1, 0.1, 0.1]
    assert isinstance(model.blocks[0].drop_block, DropBlock)


@pytest.mark.parametrize("model", ["mlp", "lenet"])
def test_drop_path_without_a_residual_branch_is_refused_with_the_reason(model):
    for edit in ("model.drop_path=0.1", "drop_path=0.1"):
        with pytest.raises(UserError, match=f'{model} has no "drop_path": it has no residual branch'):
            tree.edit(recipes.digits(), [f"model={model}", edit])
    with pytest.raises(UserError, match='has no setting "drop_path": it has no residual branch'):
        tree.edit(recipes.digits(), [f"model={{kind={model},drop_path=0.1}}"])


def test_choices_by_name_on_the_command_line():
    edits = ["model=conv_net", "model.norm=group", "model.activation=mish", "model.init=kaiming", "model.init.fan=out"]
    config = tree.edit(recipes.digits(), edits).model
    assert (config.norm, config.activation, config.init) == ("group", "mish", INITS["kaiming"](fan="out"))
    with pytest.raises(UserError, match="swiglu"):
        tree.edit(recipes.digits(), ["model=conv_net", "model.activation=swiglu"])


def test_gates_keep_the_number_of_parameters():
    count = lambda config, inputs: sum(p.numel() for p in config.build(inputs, 7).parameters())
    for config, inputs in ((VITConfig(dim=48), IMAGE), (GPTConfig(dim=96), TokenShape(7, 6))):
        assert count(replace(config, activation="swiglu"), inputs) == pytest.approx(count(config, inputs), rel=0.005)


def test_a_gated_mlp_by_hand():
    model = MLPConfig(hidden=(6,), activation="geglu").build(VectorShape(4), 3)
    x = torch.randn(5, 4)
    a, b = F.linear(x, model.hidden[0].weight, model.hidden[0].bias).chunk(2, dim=1)
    torch.testing.assert_close(model(x), F.linear(a * F.gelu(b), model.head.weight, model.head.bias))


def test_convolutions_have_a_bias_where_the_norm_has_no_shift():
    for norm in NORMS:
        model = ResnetConfig(width=2, norm=norm).build(IMAGE, 3)
        assert (model.stem.bias is not None) == (norm in ("none", "rms"))
