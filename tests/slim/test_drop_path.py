"""The drop-path ramp: what it writes, when it is neutral, what it refuses."""

import pytest
import torch

from torchstone.core.errors import UserError
from torchstone.core.protocols import ImageShape, TokenShape
from torchstone.models import ConvNetConfig, GPTConfig, MLPConfig
from torchstone.nn import DropPath
from torchstone.slim import DropPathRamp


def rates(model):
    return [module.rate.item() for module in model.modules() if isinstance(module, DropPath)]


def test_the_rate_grows_with_time_and_depth():
    model = GPTConfig(depth=3, dim=8, num_heads=1).build(TokenShape(5, 4), 5)
    ramp = DropPathRamp(rate=0.4, share=0.5)
    assert ramp(model) is model
    for step, last in ((0, 0.0), (25, 0.2), (50, 0.4), (99, 0.4)):
        ramp.apply(model, step, 100)
        assert rates(model) == pytest.approx([0.0, last / 2, last])


def test_it_drops_in_training_only():
    torch.manual_seed(0)
    model = GPTConfig(depth=2, dim=8, num_heads=1).build(TokenShape(5, 4), 5)
    tokens = torch.tensor([[1, 2, 3]])
    before = model(tokens)
    ramp = DropPathRamp(rate=0.9)
    ramp(model)
    ramp.apply(model, 0, 10)
    assert torch.equal(model(tokens), before)
    ramp.apply(model, 10, 10)
    assert any(not torch.equal(model(tokens), before) for _ in range(5))
    assert torch.equal(model.eval()(tokens), before)


def test_neutral_leaves_the_model_and_its_own_rate():
    model = ConvNetConfig(widths=(4, 4), drop_path=0.2).build(ImageShape(1, 8, 8), 2)
    assert DropPathRamp.neutral(model) is model
    DropPathRamp.neutral.apply(model, 5, 10)
    assert rates(model) == pytest.approx([0.0, 0.2])
    still = ConvNetConfig(widths=(4, 4)).build(ImageShape(1, 8, 8), 2)
    DropPathRamp.neutral(still)
    state = torch.get_rng_state()
    still(torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(torch.get_rng_state(), state)


def test_what_it_refuses():
    with pytest.raises(UserError, match="MLP has none"):
        DropPathRamp()(MLPConfig().build(ImageShape(1, 8, 8), 2))
    with pytest.raises(UserError, match="drop_path must be 0"):
        DropPathRamp()(ConvNetConfig(drop_path=0.1).build(ImageShape(1, 8, 8), 2))
    for edit in ({"rate": 1.0}, {"rate": -0.1}, {"rate": float("nan")}, {"share": 0.0}, {"share": 1.5}):
        with pytest.raises(ValueError, match=f"DropPathRamp.{next(iter(edit))} must be"):
            DropPathRamp(**edit)
