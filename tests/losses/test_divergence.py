"""Divergences against SciPy; their bounds and symmetries (canon D5)."""

from math import log

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from scipy.special import rel_entr

from losses.test_every_loss import draw, whole
from torchstone.losses import CrossEntropy, JSDiv, KLDiv

N, C = 12, 5


def distributions(seed: int, sharpness: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    return sharpness * draw(N, C, seed=seed), (sharpness * draw(N, C, seed=seed + 1)).softmax(1)


def test_kl_is_scipys() -> None:
    logits, q = distributions(0)
    q[0] = torch.tensor([0.5, 0.5, 0.0, 0.0, 0.0])
    p = logits.softmax(1).numpy()
    np.testing.assert_allclose(KLDiv()(logits, q).numpy(), rel_entr(q.numpy(), p).sum(1), rtol=1e-12)
    np.testing.assert_allclose(KLDiv(unit="bits")(logits, q).numpy(), rel_entr(q.numpy(), p).sum(1) / log(2), rtol=1e-12)


@pytest.mark.parametrize("unit, base", [("bits", 2), ("nats", None)])
def test_js_is_scipys(unit: str, base: int | None) -> None:
    logits, q = distributions(0)
    q[0] = torch.tensor([0.0, 1.0, 0.0, 0.0, 0.0])
    expected = jensenshannon(logits.softmax(1).numpy(), q.numpy(), axis=1, base=base) ** 2
    np.testing.assert_allclose(JSDiv(unit=unit)(logits, q).numpy(), expected, rtol=1e-10)  # type: ignore[arg-type]


@given(st.integers(0, 5000), st.floats(0.01, 40))
def test_trap_d5(seed: int, sharpness: float) -> None:
    """KL >= 0 and not symmetric; JS symmetric, in [0, 1] only in bits: in nats it ends at ln 2, and claiming [0, 1] is wrong."""
    logits, q = distributions(seed, sharpness)
    p = logits.softmax(1)
    assert bool((KLDiv()(logits, q) >= -1e-15).all())
    bits, nats = JSDiv()(logits, q), JSDiv(unit="nats")(logits, q)
    assert bool((bits >= -1e-15).all()) and bool((bits <= 1 + 1e-15).all()) and bool((nats <= log(2) + 1e-15).all())
    torch.testing.assert_close(nats, bits * log(2), rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(JSDiv()(q.log(), p), bits, rtol=1e-9, atol=1e-13)


def test_trap_d5_the_ends_are_reached() -> None:
    """Disjoint distributions: 1 bit, 0.693 nats, KL without bound; equal ones: 0. KL the other way round is another number."""
    logits = torch.tensor([[400.0, -400.0]], dtype=torch.float64, requires_grad=True)
    target = torch.tensor([1])
    assert JSDiv()(logits, target).item() == pytest.approx(1.0, rel=1e-14)
    assert JSDiv(unit="nats")(logits, target).item() == pytest.approx(log(2), rel=1e-14)
    assert KLDiv()(logits, target).item() == pytest.approx(800.0, rel=1e-14)
    JSDiv()(logits, target).sum().backward()
    assert logits.grad is not None and bool(logits.grad.isfinite().all())
    other, q = distributions(3)
    assert float(JSDiv()(other, other.softmax(1)).abs().max()) < 1e-14 and float(KLDiv()(other, other.softmax(1)).abs().max()) < 1e-14
    there, back = KLDiv()(other, q), KLDiv()(q.log(), other.softmax(1))
    assert float((there - back).abs().max()) > 0.1


def test_of_classes_kl_is_cross_entropy_and_ignored_ones_are_left_out() -> None:
    logits, target = draw(N, C), whole(N)
    assert torch.equal(KLDiv()(logits, target), CrossEntropy()(logits, target))
    target[3] = -100
    for loss in (KLDiv(), JSDiv()):
        x = logits.clone().requires_grad_()
        loss(x, target).sum().backward()
        assert x.grad is not None and float(x.grad[3].abs().sum()) == float(loss.weight(target)[3]) == 0
    with pytest.raises(Exception, match="unit"):
        KLDiv(unit="dits")  # type: ignore[arg-type]
