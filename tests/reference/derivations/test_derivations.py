"""Every backward by hand equals autograd's, in float64; each has its page; and the traps on those pages are what they say."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.spatial.distance
import scipy.stats
import torch
import torch.nn.functional as F
from torch import Tensor

from reference.derivations import (
    attention,
    batch_norm,
    conv,
    dense,
    layer_norm,
    lstm_cell,
    pooling,
    sigmoid_mse,
    softmax_cross_entropy,
    softmax_mse,
)

PAGES = Path(__file__).parents[3] / "docs" / "derivations"


def drawn(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).normal(size=shape)


def agree(
    theirs: Callable[..., Tensor], inputs: list[np.ndarray], ours: np.ndarray, back: Callable[[np.ndarray], object], atol: float = 1e-12
) -> None:
    """Forward and every gradient, for a random gradient from above."""
    leaves = [torch.from_numpy(x).requires_grad_() for x in inputs]
    y = theirs(*leaves)
    np.testing.assert_allclose(ours, y.detach().numpy(), rtol=0, atol=atol)
    dy = drawn(*y.shape, seed=9)
    found = back(dy)
    found = found if isinstance(found, tuple) else (found,)
    for expected, mine in zip(torch.autograd.grad(y, leaves, torch.from_numpy(dy)), found, strict=True):
        np.testing.assert_allclose(mine, expected.numpy(), rtol=0, atol=atol)


def test_dense():
    x, w, b = drawn(5, 4), drawn(3, 4), drawn(3)
    agree(F.linear, [x, w, b], dense.forward(x, w, b), lambda dy: dense.backward(dy, x, w))


@pytest.mark.parametrize("stride, padding, dilation", [(1, 0, 1), (1, 1, 1), (2, 1, 1), (2, 2, 2), (3, 0, 1)])
@pytest.mark.parametrize("kernel", [1, 3])
def test_conv(stride, padding, dilation, kernel):
    x, w, b = drawn(2, 3, 8, 7), drawn(4, 3, kernel, kernel), drawn(4)
    settings = (stride, padding, dilation)
    agree(lambda *a: F.conv2d(*a, *settings), [x, w, b], conv.forward(x, w, b, *settings), lambda dy: conv.backward(dy, x, w, *settings))


@pytest.mark.parametrize("kernel, stride", [(2, 2), (3, 2), (3, 1), (2, 3)])
@pytest.mark.parametrize("tied", [False, True])
def test_pooling(kernel, stride, tied):
    x = np.round(drawn(2, 3, 7, 8)) if tied else drawn(2, 3, 7, 8)
    agree(
        lambda x: F.max_pool2d(x, kernel, stride),
        [x],
        pooling.max_forward(x, kernel, stride),
        lambda dy: pooling.max_backward(dy, x, kernel, stride),
    )
    agree(
        lambda x: F.avg_pool2d(x, kernel, stride),
        [x],
        pooling.average_forward(x, kernel, stride),
        lambda dy: pooling.average_backward(dy, x, kernel, stride),
    )


def test_batch_norm():
    x, gamma, beta = 3 * drawn(6, 4) + 1, drawn(4), drawn(4, seed=1)
    agree(
        lambda x, g, b: F.batch_norm(x, None, None, g, b, training=True),
        [x, gamma, beta],
        batch_norm.forward(x, gamma, beta),
        lambda dy: batch_norm.backward(dy, x, gamma),
    )
    dx, _, _ = batch_norm.backward(drawn(6, 4, seed=2), x, gamma)
    np.testing.assert_allclose(dx.sum(axis=0), 0, atol=1e-12)  # adding a constant to a feature changes nothing


def test_batch_norm_in_evaluation():
    x, gamma, beta, mean, variance = drawn(6, 4), drawn(4), drawn(4, seed=1), drawn(4, seed=2), drawn(4, seed=3) ** 2
    agree(
        lambda x, g, b: F.batch_norm(x, torch.from_numpy(mean), torch.from_numpy(variance), g, b),
        [x, gamma, beta],
        gamma * (x - mean) / np.sqrt(variance + 1e-5) + beta,
        lambda dy: batch_norm.evaluation_backward(dy, x, gamma, mean, variance),
    )


def test_layer_norm():
    x, gamma, beta = 3 * drawn(6, 4) + 1, drawn(4), drawn(4, seed=1)
    agree(
        lambda x, g, b: F.layer_norm(x, (4,), g, b),
        [x, gamma, beta],
        layer_norm.forward(x, gamma, beta),
        lambda dy: layer_norm.backward(dy, x, gamma),
    )


@pytest.mark.parametrize("target", ["one_hot", "soft", "weighted"])
def test_softmax_cross_entropy(target):
    z = 4 * drawn(5, 3)
    q = {
        "one_hot": np.eye(3)[[0, 2, 1, 1, 0]],
        "soft": softmax_cross_entropy.softmax(drawn(5, 3, seed=1)),
        "weighted": np.abs(drawn(5, 3, seed=2)),
    }[target]
    agree(
        lambda z: F.cross_entropy(z, torch.from_numpy(q), reduction="none"),
        [z],
        softmax_cross_entropy.forward(z, q),
        lambda dy: softmax_cross_entropy.backward(dy, z, q),
    )


def test_softmax_jacobian():
    z = torch.from_numpy(drawn(4))
    expected = torch.autograd.functional.jacobian(lambda z: z.softmax(0), z)
    np.testing.assert_allclose(softmax_cross_entropy.jacobian(z.softmax(0).numpy()), expected.numpy(), rtol=0, atol=1e-15)


def test_sigmoid_mse():
    z, q = 3 * drawn(5, 4), (drawn(5, 4, seed=1) > 0).astype(float)
    agree(lambda z: (z.sigmoid() - torch.from_numpy(q)).square(), [z], sigmoid_mse.forward(z, q), lambda dy: sigmoid_mse.backward(dy, z, q))
    z = torch.from_numpy(z).requires_grad_()
    F.binary_cross_entropy_with_logits(z, torch.from_numpy(q), reduction="sum").backward()
    found = sigmoid_mse.cross_entropy_backward(np.ones((5, 4)), z.detach().numpy(), q)
    np.testing.assert_allclose(found, z.grad.numpy(), rtol=0, atol=1e-14)


def test_softmax_mse():
    z, q = 2 * drawn(5, 3), np.eye(3)[[0, 2, 1, 1, 0]]
    agree(
        lambda z: (z.softmax(1) - torch.from_numpy(q)).square().sum(1),
        [z],
        softmax_mse.forward(z, q),
        lambda dy: softmax_mse.backward(dy, z, q),
    )


@pytest.mark.parametrize("causal", [False, True])
def test_attention(causal):
    q, k, v = drawn(2, 4, 6), drawn(2, 4, 6, seed=1), drawn(2, 4, 5)
    agree(
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=causal),
        [q, k, v],
        attention.forward(q, k, v, causal),
        lambda dy: attention.backward(dy, q, k, v, causal),
    )


def test_lstm_cell():
    x, h, c = drawn(5, 3), drawn(5, 4), drawn(5, 4, seed=1)
    weights = (drawn(16, 3), drawn(16, 4), drawn(16), drawn(16, seed=1))
    cell = torch.nn.LSTMCell(3, 4).double()
    with torch.no_grad():
        for p, w in zip(cell.parameters(), weights, strict=True):
            p.copy_(torch.from_numpy(w))
    leaves = [torch.from_numpy(a).requires_grad_() for a in (x, h, c)]
    theirs = cell(leaves[0], (leaves[1], leaves[2]))
    for mine, expected in zip(lstm_cell.forward(x, h, c, weights), theirs, strict=True):
        np.testing.assert_allclose(mine, expected.detach().numpy(), rtol=0, atol=1e-13)
    dh, dc = drawn(5, 4, seed=5), drawn(5, 4, seed=6)
    expected = torch.autograd.grad(theirs, [*leaves, *cell.parameters()], [torch.from_numpy(dh), torch.from_numpy(dc)])
    dx, dh_old, dc_old, dweights = lstm_cell.backward(dh, dc, x, h, c, weights)
    for mine, theirs_ in zip((dx, dh_old, dc_old, *dweights), expected, strict=True):
        np.testing.assert_allclose(mine, theirs_.numpy(), rtol=0, atol=1e-12)


# --- the traps that the pages name ---------------------------------------------------------------------------------------


def test_trap_d3_in_the_derivation():
    """At the true class both terms pull the same way; the often copied formula with a plus is not the derivative."""
    z = torch.from_numpy(drawn(4)).requires_grad_()
    y = z.softmax(0)
    (y - torch.eye(4, dtype=torch.float64)[2]).square().sum().backward()
    right = softmax_mse.at_the_true_class(y.detach().numpy(), 2)
    assert right == pytest.approx(float(z.grad[2]), abs=1e-15)
    assert abs(softmax_mse.wrong_at_the_true_class(y.detach().numpy(), 2) - right) > 1e-3


def test_trap_d5_in_the_derivation():
    """JS ends at 1 in bits and at ln 2 = 0.693 in nats; KL is not symmetric and may be infinite."""
    p, q = np.array([0.2, 0.5, 0.3]), np.array([0.6, 0.1, 0.3])
    kl, js = softmax_cross_entropy.kl, softmax_cross_entropy.js
    assert kl(p, q) == pytest.approx(scipy.stats.entropy(p, q)) and kl(p, q) != pytest.approx(kl(q, p))
    assert js(p, q) == pytest.approx(js(q, p)) == pytest.approx(scipy.spatial.distance.jensenshannon(p, q) ** 2)
    apart = (np.array([1.0, 0.0]), np.array([0.0, 1.0]))
    assert js(*apart) == pytest.approx(np.log(2)) and js(*apart) / np.log(2) == pytest.approx(1)
    assert kl(*apart) == np.inf and kl(p, p) == 0


def test_every_derivation_has_its_page():
    files = {path.stem for path in Path(__file__).parent.glob("*.py") if not path.stem.startswith(("test_", "__"))}
    assert files == {path.stem for path in PAGES.glob("*.md")} - {"README"}
    index = (PAGES / "README.md").read_text()
    for name in files:
        page = (PAGES / f"{name}.md").read_text()
        assert f"tests/reference/derivations/{name}.py" in page and f"({name}.md)" in index
