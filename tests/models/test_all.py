"""What every model keeps: an output layer `head`, tidy names, an empty batch, honest refusals, a start that learns."""

from dataclasses import replace

import pytest
import torch

from torchstone.core.errors import UserError
from torchstone.core.protocols import ImageShape, TokenShape, VectorShape
from torchstone.models import ConvNetConfig, GPTConfig, MLPConfig

CASES = [
    (MLPConfig(hidden=(6, 5), dropout=0.1), VectorShape(4), lambda n: torch.randn(n, 4)),
    (MLPConfig(), ImageShape(1, 8, 8), lambda n: torch.randn(n, 1, 8, 8)),
    (MLPConfig(hidden=()), VectorShape(4), lambda n: torch.randn(n, 4)),
    (
        ConvNetConfig(widths=(4, 6), blocks_per_stage=2, dropout=0.1, drop_path=0.1),
        ImageShape(3, 9, 11),
        lambda n: torch.randn(n, 3, 9, 11),
    ),
    (GPTConfig(depth=2, dim=8, num_heads=2, dropout=0.1, drop_path=0.1), TokenShape(7, 70), lambda n: torch.randint(0, 7, (n, 70))),
    (
        GPTConfig(depth=1, dim=8, num_heads=2, positions="learned", norm="rms", tie=True),
        TokenShape(7, 5),
        lambda n: torch.randint(0, 7, (n, 5)),
    ),
]
OUTPUTS = 7


@pytest.mark.parametrize(("config", "inputs", "make"), CASES)
@pytest.mark.parametrize("n", [0, 2, 3])
def test_forward_and_backward_of_any_batch_even_an_empty_one(config, inputs, make, n):
    model = config.build(inputs, OUTPUTS)
    logits = model(make(n))
    assert logits.shape[0] == n
    assert logits.shape[-1] == OUTPUTS
    logits.square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all()
        assert n > 0 or parameter.grad.eq(0).all()
    assert all(buffer.isfinite().all() for buffer in model.buffers())


@pytest.mark.parametrize(("config", "inputs", "make"), CASES)
def test_head_is_the_output_layer_and_the_state_is_the_parameters_and_statistics(config, inputs, make):
    model = config.build(inputs, OUTPUTS)
    assert model.head.out_features == OUTPUTS
    names = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    extra = set(model.state_dict()) - names
    assert all(name.endswith(("running_mean", "running_var", "num_batches_tracked")) for name in extra)


@pytest.mark.parametrize(("config", "inputs", "make"), CASES)
def test_building_is_a_function_of_the_default_generator(config, inputs, make):
    def built(seed):
        torch.manual_seed(seed)
        return config.build(inputs, OUTPUTS).state_dict()

    first, again, other = built(1), built(1), built(2)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["head.weight"], other["head.weight"])


@pytest.mark.parametrize(("config", "inputs", "make"), CASES)
def test_it_learns_eight_samples_by_heart(config, inputs, make):
    torch.manual_seed(0)
    off = {name: 0.0 for name in ("dropout", "drop_path") if hasattr(config, name)}
    model = replace(config, **off).build(inputs, OUTPUTS)
    x = make(8) if not isinstance(inputs, TokenShape) else make(1).repeat(8, 1)
    y = torch.randint(0, OUTPUTS, (8,)) if not isinstance(inputs, TokenShape) else x.roll(-1, dims=1).flatten()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    losses = []
    for _ in range(60):
        loss = torch.nn.functional.cross_entropy(model(x).flatten(0, -2), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] < 6
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize(
    ("config", "inputs", "words"),
    [
        (MLPConfig(), TokenShape(5, 4), "mlp reads vectors or images.*TokenShape.*gpt reads tokens"),
        (ConvNetConfig(), VectorShape(5), "conv_net reads images.*VectorShape.*mlp reads vectors"),
        (GPTConfig(), ImageShape(1, 8, 8), "gpt reads tokens.*ImageShape.*conv_net reads images"),
        (GPTConfig(tie=True), TokenShape(5, 4), "tie needs"),
    ],
)
def test_a_model_refuses_what_it_cannot_read_and_says_which_can(config, inputs, words):
    with pytest.raises(UserError, match=words):
        config.build(inputs, OUTPUTS)


@pytest.mark.parametrize(
    ("config", "edits"),
    [
        (MLPConfig, [{"hidden": (0,)}, {"activation": "tanhh"}, {"dropout": 1.0}]),
        (
            ConvNetConfig,
            [{"widths": ()}, {"widths": (0,)}, {"blocks_per_stage": 0}, {"activation": ""}, {"dropout": -0.1}, {"drop_path": 1.0}],
        ),
        (
            GPTConfig,
            [
                {"depth": 0},
                {"dim": 0},
                {"num_heads": 0},
                {"num_heads": 3},
                {"num_heads": 256},
                {"mlp_ratio": 0.0},
                {"mlp_ratio": float("inf")},
                {"activation": ""},
                {"positions": "none"},
                {"norm": "batch"},
                {"dropout": float("nan")},
                {"drop_path": 1.0},
            ],
        ),
    ],
)
def test_a_config_refuses_a_bad_field_by_name(config, edits):
    for edit in edits:
        part = config()
        for name, value in edit.items():
            object.__setattr__(part, name, value)  # past the suite's type check, which users do not have
        with pytest.raises(ValueError, match=rf"^{config.__name__}\.{next(iter(edit))} must"):
            part.__post_init__()
