"""TensorSplit fetches by one gather; hold_out is a partition that depends on nothing but its arguments."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from torchstone.data.pixels import as_float
from torchstone.data.splits import TensorSplit, hold_out


def test_fetch_gathers_rows_in_the_order_asked() -> None:
    split = TensorSplit(torch.arange(12.0).reshape(4, 3), torch.arange(4))
    inputs, target = split.fetch(np.array([3, 0, 3]))
    assert target.tolist() == [3, 0, 3]
    assert torch.equal(inputs, split.inputs[[3, 0, 3]])


def test_bytes_stay_bytes_and_stand_for_0_to_1() -> None:
    pixels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    inputs, _ = TensorSplit(pixels, torch.zeros(1, dtype=torch.int64)).fetch(np.array([0]))
    assert inputs.dtype == torch.uint8
    np.testing.assert_array_equal(as_float(inputs).numpy().ravel(), np.arange(256, dtype=np.float32) / np.float32(255))


def test_a_row_that_is_not_there_is_an_error() -> None:
    with pytest.raises(IndexError):
        TensorSplit(torch.zeros(4, 3), torch.arange(4)).fetch(np.array([4]))


@given(st.lists(st.integers(0, 4), min_size=2, max_size=60), st.data())
def test_hold_out_is_a_sorted_partition_and_repeats(labels: list[int], data: st.DataObject) -> None:
    held = data.draw(st.integers(1, len(labels) - 1))
    cut = hold_out(len(labels), held, np.array(labels))
    again = hold_out(len(labels), held, np.array(labels))
    assert sorted([*cut.kept, *cut.held]) == list(range(len(labels)))
    assert len(cut.held) == held
    assert (np.diff(cut.kept) > 0).all()
    np.testing.assert_array_equal(cut.held, again.held)


def test_hold_out_is_stratified_where_it_can_be() -> None:
    labels = np.repeat([0, 1], [90, 10])
    cut = hold_out(100, 20, labels)
    assert cut.stratified
    assert np.bincount(labels[cut.held]).tolist() == [18, 2]
    assert not hold_out(100, 20, np.repeat([0, 1], [99, 1])).stratified
    assert not hold_out(100, 20).stratified
