"""Accuracy, top-k and confusion against scikit-learn."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, confusion_matrix, top_k_accuracy_score

from torchstone.metrics import Accuracy, Confusion, TopK

C = 6


@given(n=st.integers(1, 50), seed=st.integers(0, 10_000), soft=st.booleans())
def test_against_scikit_learn(n: int, seed: int, soft: bool) -> None:
    g = torch.Generator().manual_seed(seed)
    outputs, target = torch.randn(n, C, generator=g), torch.randint(0, C, (n,), generator=g)
    weight = torch.rand(n, generator=g) * (torch.arange(n) % 3 > 0)  # how much a term weighs does not matter, whether it does
    weight[0] = 0.5
    given_target = torch.nn.functional.one_hot(target, C) * 0.6 + 0.4 / C if soft else target
    arguments = (outputs, given_target, weight, torch.zeros(n))
    counted = weight.numpy() > 0
    truth, predicted = target.numpy()[counted], outputs.argmax(-1).numpy()[counted]
    assert Accuracy().result(Accuracy().measure(*arguments)) == {"accuracy": accuracy_score(truth, predicted)}
    matrix = Confusion().result(Confusion().measure(*arguments))["confusion"]
    np.testing.assert_array_equal(matrix, confusion_matrix(truth, predicted, labels=np.arange(C)))


@given(n=st.integers(1, 50), seed=st.integers(0, 10_000), k=st.integers(1, C - 1))
def test_top_k_against_scikit_learn(n: int, seed: int, k: int) -> None:
    g = torch.Generator().manual_seed(seed)
    outputs, target = torch.randn(n, C, generator=g), torch.randint(0, C, (n,), generator=g)
    weight = (torch.arange(n) % 3 != 1).float()
    counted = weight.numpy() > 0
    result = TopK(k=k).result(TopK(k=k).measure(outputs, target, weight, torch.zeros(n)))
    expected = top_k_accuracy_score(target.numpy()[counted], outputs.numpy()[counted], k=k, labels=np.arange(C))
    assert result == {f"top_{k}_accuracy": pytest.approx(expected, abs=1e-12)}


@given(n=st.integers(1, 40), seed=st.integers(0, 10_000))
def test_equal_outputs_are_ranked_as_accuracy_ranks_them(n: int, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    outputs, target = torch.randint(0, 3, (n, C), generator=g).float(), torch.randint(0, C, (n,), generator=g)
    arguments = (outputs, target, torch.ones(n), torch.zeros(n))
    found = [float(TopK(k=k).measure(*arguments)["found"]) for k in range(1, C + 1)]
    assert found[0] == float(Accuracy().measure(*arguments)["correct"])
    assert found == sorted(found) and found[-1] == n


def test_top_k_of_what_is_no_number_is_wrong() -> None:
    outputs = torch.tensor([[float("nan"), 1.0, 0.0], [float("nan")] * 3, [2.0, 1.0, 0.0]])
    sums = TopK(k=2).measure(outputs, torch.tensor([0, 2, 1]), torch.ones(3), torch.zeros(3))
    assert TopK(k=2).result(sums) == {"top_2_accuracy": 1 / 3}
    with pytest.raises(ValueError, match="TopK.k must be >= 1, got 0"):
        TopK(k=0)


def test_counts_beyond_float32() -> None:
    """Lightning#21859: counts are integers from end to end."""
    sums = Accuracy().measure(torch.eye(2), torch.arange(2), torch.ones(2), torch.zeros(2))
    many = {name: value * (2**24 + 1) for name, value in sums.items()}
    assert many["count"].dtype == torch.int64
    assert int(many["count"]) == 2**25 + 2
    assert Accuracy().result(many) == {"accuracy": 1.0}
