"""SAM against its equations, and what it must give back: weights, buffers, the loss, and a gradient that is not finite."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from torchstone.optim import ASAM, SAM, Backprop, FlatParameters


class Net(nn.Module):
    """Batch norm, an integer buffer that counts the passes, dropout."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm, self.drop, self.last = nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(dropout), nn.Linear(6, 2)
        self.register_buffer("passes", torch.tensor(0))

    def forward(self, x: Tensor) -> Tensor:
        self.passes += 1
        return self.last(self.drop(self.norm(self.first(x)).tanh()))


def closure_of(flat: FlatParameters, seen: list[Tensor] | None = None) -> Callable[[], Tensor]:
    x = torch.randn(8, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def closure() -> Tensor:
        if seen is not None:
            seen.append(flat.data.clone())
        flat.zero_grad()
        torch.manual_seed(5)
        loss = flat.module(x).square().mean()
        loss.backward()
        return loss.detach()

    return closure


def test_gradient_is_the_papers_and_weights_come_back():
    rho, flat, seen = 0.3, FlatParameters(Net(0.5).double()), []
    before = flat.data.clone()
    closure_of(flat)()
    g = flat.grad.clone()
    loss = SAM(rho=rho)(flat.module, closure_of(flat, seen))
    assert torch.equal(flat.data, before) and torch.equal(seen[0], before)
    torch.testing.assert_close(seen[1], before + rho * g / g.norm(), rtol=0, atol=1e-14)
    found = flat.grad.clone()
    flat.data.copy_(seen[1])
    second_loss = closure_of(flat)()
    assert torch.equal(found, flat.grad) and second_loss > loss
    flat.check()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_come_back_bit_by_bit(dtype):
    flat = FlatParameters(Net().to(dtype))
    before, x = flat.data.clone(), torch.randn(8, 4).to(dtype)

    def closure() -> Tensor:
        flat.zero_grad()
        loss = flat.module(x).float().square().mean()
        loss.backward()
        return loss.detach()

    SAM(rho=123.4)(flat.module, closure)
    assert torch.equal(flat.data, before)


def test_buffers_and_loss_are_the_first_passes():
    once, sam = FlatParameters(Net().double()), FlatParameters(Net().double())
    assert torch.equal(Backprop()(once.module, closure_of(once)), SAM(rho=1.0)(sam.module, closure_of(sam)))
    assert not torch.equal(once.grad, sam.grad)
    for (name, a), b in zip(once.module.named_buffers(), sam.module.buffers(), strict=True):
        assert torch.equal(a, b), name
    assert sam.module.passes == 1 and sam.module.norm.num_batches_tracked == 1


def test_neutral_is_backprop():
    once, sam = FlatParameters(Net(0.5).double()), FlatParameters(Net(0.5).double())
    assert torch.equal(Backprop.neutral(once.module, closure_of(once)), SAM.neutral(sam.module, closure_of(sam)))
    assert torch.equal(once.grad, sam.grad)


def test_a_zero_gradient_stays_zero():
    flat = FlatParameters(Net().double())
    calls = []

    def closure() -> Tensor:
        calls.append(flat.data.clone())
        flat.zero_grad()
        return torch.zeros(())

    SAM(rho=10.0)(flat.module, closure)
    assert len(calls) == 2 and torch.equal(calls[0], calls[1]) and not flat.grad.any()


@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_reaches_the_guard(poison):
    flat = FlatParameters(Net().double())
    before, inner = flat.data.clone(), closure_of(flat)

    def closure() -> Tensor:
        loss = inner()
        flat.grad[3] = poison
        return loss

    SAM()(flat.module, closure)
    assert torch.equal(flat.data, before) and not flat.norm().isfinite()


def test_rho_is_checked():
    with pytest.raises(ValueError, match=r"SAM\.rho must be"):
        SAM(rho=-0.1)


# --- ASAM --------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("eta", [0.0, 0.01])
def test_asam_is_the_papers(eta):
    rho, flat, seen = 0.3, FlatParameters(Net(0.5).double()), []
    before = flat.data.clone()
    closure_of(flat)()
    w, g = (flat.named(x.clone()) for x in (before, flat.grad))
    T = {name: w[name].abs() + eta for name in w}
    length = math.sqrt(sum(float((T[name] * g[name]).square().sum()) for name in w))
    loss = ASAM(rho=rho, eta=eta)(flat.module, closure_of(flat, seen))
    assert torch.equal(flat.data, before) and len(seen) == 2
    for name, there in flat.named(seen[1]).items():
        torch.testing.assert_close(there, w[name] + rho * T[name] ** 2 * g[name] / length, rtol=0, atol=1e-14)
    found = flat.grad.clone()
    flat.data.copy_(seen[1])
    assert closure_of(flat)() > loss and torch.equal(found, flat.grad)
    flat.check()


def test_asam_does_not_see_a_rescaling():
    """Theorem 1: scale one layer up and the next down by as much, and the loss it climbs to is the same. SAM's is not."""

    def climbed(part, factor: float) -> float:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(4, 6, bias=False), nn.ReLU(), nn.Linear(6, 2, bias=False)).double()
        net[0].weight.data *= factor
        net[2].weight.data /= factor
        flat, x = FlatParameters(net), torch.randn(8, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        losses = []

        def closure() -> Tensor:
            flat.zero_grad()
            losses.append(net(x).square().mean())
            losses[-1].backward()
            return losses[-1].detach()

        part(net, closure)
        return float(losses[1].detach())

    assert climbed(ASAM(rho=0.3, eta=0.0), 8.0) == pytest.approx(climbed(ASAM(rho=0.3, eta=0.0), 1.0), rel=1e-12)
    assert climbed(SAM(rho=0.3), 8.0) != pytest.approx(climbed(SAM(rho=0.3), 1.0), rel=1e-2)


def test_asam_neutral_and_fields():
    once, asam = FlatParameters(Net(0.5).double()), FlatParameters(Net(0.5).double())
    assert torch.equal(Backprop.neutral(once.module, closure_of(once)), ASAM.neutral(asam.module, closure_of(asam)))
    assert torch.equal(once.grad, asam.grad)
    for field in ("rho", "eta"):
        with pytest.raises(ValueError, match=rf"ASAM\.{field} must be"):
            ASAM(**{field: -0.1})
