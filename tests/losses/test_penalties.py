"""L2: its value, its gradient, and that it is weight decay for SGD."""

import pytest
import torch
from torch import nn

from torchstone.losses import L2


def model() -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3)).double()
    net.get_parameter("0.weight").requires_grad_(False)
    return net


def test_gradient_is_strength_times_weight() -> None:
    net = model()
    value = L2(strength=0.3)(net)
    value.backward()
    weight = net.get_parameter("3.weight")
    torch.testing.assert_close(value, 0.15 * weight.square().sum())
    torch.testing.assert_close(weight.grad, 0.3 * weight)
    assert all(p.grad is None for name, p in net.named_parameters() if name != "3.weight")


def test_neutral_adds_exactly_nothing() -> None:
    value = L2.neutral(model())
    value.backward()
    assert value.item() == 0.0


def test_a_model_without_weights() -> None:
    value = L2()(nn.BatchNorm1d(3))
    value.backward()
    assert value.item() == 0.0


def test_it_is_weight_decay_for_sgd() -> None:
    one, other = nn.Linear(4, 3, bias=False), nn.Linear(4, 3, bias=False)
    other.load_state_dict(one.state_dict())
    decayed = torch.optim.SGD(one.parameters(), lr=0.1, weight_decay=0.2)
    plain = torch.optim.SGD(other.parameters(), lr=0.1)
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    for _ in range(5):
        decayed.zero_grad()
        plain.zero_grad()
        one(x).square().sum().backward()
        (other(x).square().sum() + L2(strength=0.2)(other)).backward()
        decayed.step()
        plain.step()
    torch.testing.assert_close(one.weight, other.weight)


def test_wrong_fields() -> None:
    with pytest.raises(ValueError, match=r"L2\.strength must be"):
        L2(strength=-1)
