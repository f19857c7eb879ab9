"""What every model keeps: an output layer `head`, tidy names, an empty batch, honest refusals, a start that learns."""

from dataclasses import replace

import pytest
import torch

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
    PretrainedConfig,
    ResnetConfig,
    VITConfig,
)

CASES = [
    (MLPConfig(hidden=(6, 5), dropout=0.1), VectorShape(4), lambda n: torch.randn(n, 4)),
    (MLPConfig(), ImageShape(1, 8, 8), lambda n: torch.randn(n, 1, 8, 8)),
    (MLPConfig(hidden=()), VectorShape(4), lambda n: torch.randn(n, 4)),
    (
        ConvNetConfig(widths=(4, 6), blocks_per_stage=2, dropout=0.1, drop_path=0.1),
        ImageShape(3, 9, 11),
        lambda n: torch.randn(n, 3, 9, 11),
    ),
    *(
        (config, ImageShape(channels, *size), lambda n, shape=(channels, *size): torch.randn(n, *shape))
        for config, channels, size in (
            (LenetConfig(dropout=0.1), 1, (28, 28)),
            (LenetConfig(variant="1998"), 3, (9, 40)),
            (ResnetConfig(width=4, dropout=0.1, drop_path=0.1), 3, (17, 16)),
            (ResnetConfig(depth=50, width=2, stem="imagenet", zero_init_residual=False), 1, (64, 65)),
            (CifarResnetConfig(depth=8, width=4, drop_path=0.1), 3, (16, 17)),
            (CifarResnetConfig(depth=14, width=3, shortcut="projection"), 1, (9, 8)),
            (CifarResnetConfig(depth=8, residual=False, width=4), 3, (16, 16)),
            (FastConvNetConfig(widths=(6, 8), dropout=0.1), 1, (28, 28)),
            (FastConvNetConfig(widths=(8, 8, 9), convs_per_stage=3, residual=True, whiten_kernel=3, dirac=False), 3, (19, 32)),
            (MobileNetV2Config(width=0.1, dropout=0.1, drop_path=0.1), 3, (24, 16)),
            (MobileNetV2Config(width=0.1, stem="imagenet"), 1, (64, 70)),
            (VITConfig(depth=2, dim=12, num_heads=2, dropout=0.1, drop_path=0.1), 3, (8, 12)),
            (VITConfig(patch_size=5, depth=1, dim=6, num_heads=1, pool="mean"), 1, (10, 5)),
            (PretrainedConfig(body=VITConfig(depth=1, dim=12, num_heads=2)), 3, (8, 12)),
        )
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
    assert all(name.endswith(("running_mean", "running_var", "num_batches_tracked")) or name == "whitening.weight" for name in extra)


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
    config = getattr(config, "body", config)
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


@pytest.mark.parametrize(("config", "inputs", "make"), [case for case in CASES if isinstance(case[1], ImageShape)])
def test_images_may_lie_channels_last_and_compute_in_bfloat16(config, inputs, make):
    torch.manual_seed(0)
    model = config.build(inputs, OUTPUTS).eval()
    x = make(3)
    expected = model(x)
    laid = model.to(memory_format=torch.channels_last)
    torch.testing.assert_close(laid(x.to(memory_format=torch.channels_last)), expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())
    for train in (False, True):
        model.train(train)
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(x.to(memory_format=torch.channels_last))
        logits.float().square().sum().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
        if not train:
            spread = expected.std() + 0.1 * expected.abs().max()
            assert (logits.float() - expected).abs().max() < 0.25 * spread


@pytest.mark.parametrize(("config", "inputs", "make"), [case for case in CASES if isinstance(case[1], ImageShape)])
def test_a_row_does_not_depend_on_the_others_in_evaluation(config, inputs, make):
    model = config.build(inputs, OUTPUTS).double().eval()
    x = make(5).double()
    torch.testing.assert_close(model(x)[3:4], model(x[3:4]), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("config", "inputs", "words"),
    [
        (MLPConfig(), TokenShape(5, 4), "mlp reads vectors or images.*TokenShape.*gpt reads tokens"),
        (ConvNetConfig(), VectorShape(5), "conv_net reads images.*VectorShape.*mlp reads vectors"),
        (GPTConfig(), ImageShape(1, 8, 8), "gpt reads tokens.*ImageShape.*conv_net reads images"),
        (GPTConfig(tie=True), TokenShape(5, 4), "tie needs"),
        *(
            (config, VectorShape(5), f"model {kind} reads images.*VectorShape.*mlp reads vectors")
            for config, kind in (
                (LenetConfig(), "lenet"),
                (ResnetConfig(), "resnet"),
                (CifarResnetConfig(), "cifar_resnet"),
                (FastConvNetConfig(), "fast_conv_net"),
                (MobileNetV2Config(), "mobile_net_v2"),
                (VITConfig(), "vit"),
            )
        ),
        (VITConfig(patch_size=8), ImageShape(3, 32, 36), "patch_size=8 does not divide images of 32x36"),
        (FastConvNetConfig(whiten_kernel=3), ImageShape(3, 2, 8), "whiten_kernel=3 does not fit in images of 2x8"),
        (PretrainedConfig(), ImageShape(3, 8, 8), "model.body"),
    ],
)
def test_a_model_refuses_what_it_cannot_read_and_says_which_can(config, inputs, words):
    with pytest.raises(UserError, match=words):
        config.build(inputs, OUTPUTS)


@pytest.mark.parametrize(
    ("config", "edits"),
    [
        (MLPConfig, [{"hidden": (0,)}, {"activation": "tanhh"}, {"norm": "instance"}, {"norm": "batsch"}, {"dropout": 1.0}]),
        (
            ConvNetConfig,
            [{"widths": ()}, {"widths": (0,)}, {"blocks_per_stage": 0}, {"activation": ""}, {"dropout": -0.1}, {"drop_path": 1.0}],
        ),
        (LenetConfig, [{"variant": "1999"}, {"activation": "swiglu"}, {"norm": "instance"}, {"dropout": 1.0}]),
        (
            ResnetConfig,
            [{"depth": 20}, {"stem": "large"}, {"width": 0}, {"activation": ""}, {"dropout": 1.0}, {"drop_path": -0.1}],
        ),
        (
            CifarResnetConfig,
            [{"depth": 18}, {"depth": 2}, {"shortcut": "none"}, {"width": 0}, {"drop_path": 1.0}, {"drop_path": 0.1, "residual": False}],
        ),
        (
            FastConvNetConfig,
            [
                {"widths": ()},
                {"widths": (4, 0)},
                {"convs_per_stage": 0},
                {"residual": True},
                {"whiten_kernel": 0},
                {"whiten_epsilon": 0.0},
                {"whiten_epsilon": float("nan")},
                {"activation": ""},
                {"norm_momentum": 0.0},
                {"head_scale": float("inf")},
                {"dropout": 1.0},
                {"drop_path": 0.1},
            ],
        ),
        (MobileNetV2Config, [{"width": 0.0}, {"width": float("nan")}, {"stem": ""}, {"dropout": 1.0}, {"drop_path": 1.0}]),
        (
            VITConfig,
            [
                {"patch_size": 0},
                {"depth": 0},
                {"dim": 0},
                {"num_heads": 0},
                {"num_heads": 5},
                {"mlp_ratio": float("nan")},
                {"activation": ""},
                {"pool": "max"},
                {"dropout": 1.0},
                {"drop_path": 1.0},
            ],
        ),
        (PretrainedConfig, [{"sha256": "00"}, {"sha256": "G" * 64}]),
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
