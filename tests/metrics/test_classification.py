"""Accuracy and confusion against scikit-learn."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, confusion_matrix

from torchstone.metrics import Accuracy, Confusion

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


def test_counts_beyond_float32() -> None:
    """Lightning#21859: counts are integers from end to end."""
    sums = Accuracy().measure(torch.eye(2), torch.arange(2), torch.ones(2), torch.zeros(2))
    many = {name: value * (2**24 + 1) for name, value in sums.items()}
    assert many["count"].dtype == torch.int64
    assert int(many["count"]) == 2**25 + 2
    assert Accuracy().result(many) == {"accuracy": 1.0}
