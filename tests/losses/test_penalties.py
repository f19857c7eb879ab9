"""Penalties against closed forms: values and gradients; L2 is weight decay for SGD; L0 counts what its gates let through."""

import numpy as np
import pytest
import scipy.special
import torch
from torch import nn

from torchstone.core.errors import UserError
from torchstone.losses import L0, L1, L2, CrossEntropy, Orthogonality
from torchstone.slim import HardConcrete
from torchstone.train.method import Method, check


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


# --- l1, orthogonality, l0 ----------------------------------------------------------------------------------------------------------------


def test_l1_and_its_subgradient() -> None:
    net = model()
    weight = net.get_parameter("3.weight")
    weight.data[0, :2] = 0.0
    value = L1(strength=0.3)(net)
    value.backward()
    torch.testing.assert_close(value, torch.tensor(0.3 * np.abs(weight.detach().numpy()).sum()))
    torch.testing.assert_close(weight.grad, 0.3 * weight.sign())
    assert all(p.grad is None for name, p in net.named_parameters() if name != "3.weight")


@pytest.mark.parametrize("shape", [(3, 8), (8, 3), (4, 4)])
def test_orthogonality_is_the_papers(shape: tuple[int, int]) -> None:
    """Value and gradient in NumPy; 0 for orthonormal rows or columns, whichever there are fewer of."""
    net = nn.Linear(shape[1], shape[0]).double()
    value = Orthogonality(strength=0.7)(net)
    value.backward()
    W = net.weight.detach().numpy()
    gram, eye = (W @ W.T, np.eye(shape[0])) if shape[0] <= shape[1] else (W.T @ W, np.eye(shape[1]))
    assert value.item() == pytest.approx(0.7 * ((gram - eye) ** 2).sum(), rel=1e-12)
    slope = 4 * 0.7 * ((gram - eye) @ W if shape[0] <= shape[1] else W @ (gram - eye))
    np.testing.assert_allclose(net.weight.grad.numpy(), slope, rtol=1e-10, atol=1e-12)
    nn.init.orthogonal_(net.weight)
    assert Orthogonality(strength=1.0)(net).item() < 1e-24


def test_orthogonality_leaves_embeddings_and_vectors() -> None:
    net = nn.Sequential(nn.Embedding(4, 3), nn.LayerNorm(3))
    value = Orthogonality()(net)
    value.backward()
    assert value.item() == 0.0
    conv = nn.Conv2d(2, 3, 3).double()
    W = conv.weight.detach().numpy().reshape(3, -1)
    assert Orthogonality(strength=1.0)(conv).item() == pytest.approx(((W @ W.T - np.eye(3)) ** 2).sum(), rel=1e-12)


def test_l0_counts_the_weights_behind_open_gates() -> None:
    """Closed form: governed x P(z > 0), and a share of draws that is as large."""
    net = HardConcrete()(nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 2, 3), nn.Flatten(), nn.Linear(8, 3)).double())
    draw = torch.Generator().manual_seed(0)
    for gate in (net[1].gate, net[3].gate):
        gate.log_alpha.data.normal_(0, 2, generator=draw)
    open_ = lambda gate: scipy.special.expit(gate.log_alpha.detach().numpy() - 2 / 3 * np.log(0.1 / 1.1))
    expected = (2 * 9) * open_(net[1].gate).sum() + 3 * open_(net[3].gate).sum()
    value = L0(strength=0.01)(net)
    assert value.item() == pytest.approx(0.01 * expected, rel=1e-12)
    value.backward()
    p = open_(net[3].gate)
    np.testing.assert_allclose(net[3].gate.log_alpha.grad.numpy(), 0.01 * 3 * p * (1 - p), rtol=1e-10)
    assert net[0].weight.grad is None and L0()(nn.Linear(3, 2)).item() == 0.0


@pytest.mark.parametrize("part", [L0, L1, Orthogonality], ids=lambda cls: cls.__name__)
def test_neutrals_and_fields(part: type) -> None:
    net = HardConcrete()(nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)))
    value = part.neutral(net)
    value.backward()
    assert value.item() == 0.0 and all(p.grad is None or not p.grad.any() for p in net.parameters())
    with pytest.raises(ValueError, match=rf"{part.__name__}\.strength must be"):
        part(strength=-1.0)


def test_l0_wants_gates() -> None:
    with pytest.raises(UserError, match="hard_concrete"):
        check(Method(loss=CrossEntropy(), penalties=(L0(),)))
    check(Method(loss=CrossEntropy(), penalties=(L0(),), model_transforms=(HardConcrete(),)))
