"""Cross-entropy against torch, a NumPy closed form, and the identities of its gradient."""

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from torchstone.core.errors import UserError
from torchstone.core.protocols import Facts, TokenShape, VectorShape
from torchstone.losses import CrossEntropy

N, C = 12, 5
WEIGHTS = (0.2, 1.0, 3.5, 0.7, 1.3)


def draws(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def indices(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randint(0, C, shape, generator=torch.Generator().manual_seed(seed))


def mean(loss: CrossEntropy, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    weight = loss.weight(target)
    return (loss(logits, target) * weight).sum() / weight.sum()


@pytest.mark.parametrize(
    ("smoothing", "ignore", "weights", "soft"), list(itertools.product([0.0, 0.1], [-100, 2], [(), WEIGHTS], [False, True]))
)
def test_weighted_mean_is_torch(smoothing: float, ignore: int, weights: tuple[float, ...], soft: bool) -> None:
    """pytorch#73205, #69339: smoothing x ignored x weights, value and gradient."""
    loss = CrossEntropy(smoothing=smoothing, ignore_index=ignore, class_weights=weights)
    target = draws(N, C, seed=2).softmax(-1) if soft else indices(N)
    if not soft:
        target[[0, 5]] = ignore
    ours, theirs = draws(N, C).requires_grad_(), draws(N, C).requires_grad_()
    a = mean(loss, ours, target)
    w = torch.tensor(weights, dtype=torch.float64) if weights else None
    b = F.cross_entropy(theirs, target, weight=w, ignore_index=-100 if soft else ignore, label_smoothing=smoothing)
    a.backward()
    b.backward()
    assert ours.grad is not None
    torch.testing.assert_close(a, b, rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-13, atol=1e-15)


@given(st.integers(0, 10_000), st.floats(0, 0.9), st.booleans())
def test_terms_are_the_closed_form(seed: int, smoothing: float, weighted: bool) -> None:
    """p_y = 1 - (C-1)/C eps, the others eps/C; class weights reweigh each class, then the term is divided by its own."""
    logits, target = draws(N, C, seed=seed), indices(N, seed=seed)
    loss = CrossEntropy(smoothing=smoothing, class_weights=WEIGHTS if weighted else ())
    x, y = logits.numpy(), target.numpy()
    log_p = x - np.log(np.exp(x).sum(1, keepdims=True))
    q = np.full((N, C), smoothing / C)
    q[np.arange(N), y] = 1 - (C - 1) / C * smoothing
    w = np.array(WEIGHTS if weighted else [1.0] * C)
    expected = -(w * q * log_p).sum(1) / w[y]
    np.testing.assert_allclose(loss(logits, target).numpy(), expected, rtol=1e-12)
    np.testing.assert_array_equal(loss.weight(target).numpy(), w[y])


def test_gradient_is_p_minus_q() -> None:
    logits = draws(N, C).requires_grad_()
    q = draws(N, C, seed=3).softmax(-1)
    CrossEntropy()(logits, q).sum().backward()
    torch.testing.assert_close(logits.grad, logits.detach().softmax(-1) - q, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weights", [(), WEIGHTS])
def test_all_ignored_is_zero_with_zero_gradient(smoothing: float, weights: tuple[float, ...]) -> None:
    loss = CrossEntropy(smoothing=smoothing, class_weights=weights)
    logits, target = draws(N, C).requires_grad_(), torch.full((N,), -100)
    terms = loss(logits, target)
    (terms * loss.weight(target)).sum().backward()
    assert torch.equal(terms, torch.zeros(N, dtype=torch.float64))
    assert loss.weight(target).sum() == 0
    assert logits.grad is not None
    assert torch.equal(logits.grad, torch.zeros(N, C, dtype=torch.float64))


def test_class_of_weight_zero_is_left_out() -> None:
    """Finite also where the logits of such an example are not; torch would add the smoothing of the left-out example."""
    loss = CrossEntropy(smoothing=0.1, class_weights=(0.0, 1.0, 1.0, 1.0, 1.0))
    logits, target = draws(N, C), indices(N)
    target[:3] = 0
    kept = target != 0
    assert torch.equal(loss(logits, target)[~kept], torch.zeros(int((~kept).sum()), dtype=torch.float64))
    torch.testing.assert_close(mean(loss, logits, target), mean(loss, logits[kept], target[kept]))


def test_any_leading_shape_and_empty() -> None:
    loss = CrossEntropy(smoothing=0.1, class_weights=WEIGHTS)
    logits, target = draws(3, 4, C), indices(3, 4)
    assert loss(logits, target).shape == loss.weight(target).shape == (3, 4)
    assert torch.equal(loss(logits, target).flatten(), loss(logits.flatten(0, 1), target.flatten()))
    assert loss(logits, draws(3, 4, C).softmax(-1)).shape == (3, 4)
    assert loss(logits[0, 0], target[0, 0]).shape == ()
    empty = draws(0, C).requires_grad_()
    CrossEntropy()(empty, indices(0)).sum().backward()
    assert CrossEntropy()(draws(0, 4, C), indices(0, 4)).shape == (0, 4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_logits_are_read_in_float32(dtype: torch.dtype) -> None:
    logits = draws(N, C).to(dtype)
    terms = CrossEntropy()(logits, indices(N))
    assert terms.dtype == torch.float32
    assert torch.equal(terms, CrossEntropy()(logits.float(), indices(N)))


@pytest.mark.parametrize("split", [1, 2, 3, 4, 8])
def test_accumulated_is_one_large_batch(split: int) -> None:
    """transformers#34191: micro-batches of unequal numbers of tokens, divided once by the global weight."""
    loss = CrossEntropy(smoothing=0.1, class_weights=WEIGHTS)
    target = indices(8, 6)
    for row in range(8):
        target[row, row:] = -100  # the first micro-batch may have no target at all
    whole, parts = draws(8, 6, C).requires_grad_(), draws(8, 6, C).requires_grad_()
    mean(loss, whole, target).backward()
    total = loss.weight(target).sum()
    for logits, some in zip(parts.chunk(split), target.chunk(split), strict=True):
        ((loss(logits, some) * loss.weight(some)).sum() / total).backward()
    assert parts.grad is not None
    torch.testing.assert_close(parts.grad, whole.grad, rtol=1e-12, atol=1e-15)


def test_balanced_weights() -> None:
    from sklearn.utils.class_weight import compute_class_weight

    counts = (10, 1, 5, 4, 30)
    facts = Facts(inputs=VectorShape(3), classes=tuple("abcde"), class_counts=counts)
    loss = CrossEntropy(weighting="balanced").resolve(facts)
    reference = compute_class_weight("balanced", classes=np.arange(5), y=np.repeat(np.arange(5), counts))
    np.testing.assert_allclose(loss.class_weights, reference, rtol=1e-15)
    assert loss.resolve(facts) == loss
    everything = torch.repeat_interleave(torch.arange(5), torch.tensor(counts))
    assert math.isclose(float(loss.weight(everything).mean()), 1.0, rel_tol=1e-12)


def test_what_resolve_refuses() -> None:
    facts = Facts(inputs=VectorShape(3), classes=("cat", "dog"), class_counts=(4, 0))
    with pytest.raises(UserError, match=r"without training examples: dog"):
        CrossEntropy(weighting="balanced").resolve(facts)
    with pytest.raises(UserError, match=r"method\.loss\.class_weights .* found 3, the data have 2"):
        CrossEntropy(class_weights=(1, 2, 3)).resolve(facts)
    text = Facts(inputs=TokenShape(256, 8))
    with pytest.raises(UserError, match="no classes"):
        CrossEntropy(weighting="balanced").resolve(text)
    assert CrossEntropy(class_weights=(1.0,) * 256).resolve(text).class_weights
    assert CrossEntropy().resolve(text) == CrossEntropy()
    with pytest.raises(ValueError, match="resolve"):
        CrossEntropy(weighting="balanced").weight(indices(3))


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"smoothing": 1.0}, "smoothing"),
        ({"smoothing": float("nan")}, "smoothing"),
        ({"class_weights": (1.0, -1.0)}, "class_weights"),
        ({"class_weights": (0.0, 0.0)}, "class_weights"),
        ({"class_weights": (1.0, float("nan"))}, "class_weights"),
        ({"class_weights": (1.0, 2.0), "weighting": "balanced"}, "class_weights"),
    ],
)
def test_wrong_fields(fields: dict, field: str) -> None:
    with pytest.raises(ValueError, match=rf"CrossEntropy\.{field} must be"):
        CrossEntropy(**fields)


def test_weights_first_met_in_inference_mode_still_train() -> None:
    loss = CrossEntropy(class_weights=(0.123, 1.0, 2.0, 3.0, 4.0))
    with torch.inference_mode():
        loss(draws(N, C), indices(N))
    logits = draws(N, C).requires_grad_()
    mean(loss, logits, indices(N)).backward()
    assert logits.grad is not None


def test_target_out_of_range_is_an_error() -> None:
    with pytest.raises(IndexError):
        CrossEntropy()(draws(N, C), torch.full((N,), C))
