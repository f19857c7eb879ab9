"""The reliability diagram against a computation in one piece, and files that hold something else."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file
from scipy.special import softmax

from torchstone.report import calibration
from torchstone.report.calibration import BINS, PREDICTIONS, read_calibration


def kept(folder: Path, outputs: np.ndarray, target: np.ndarray) -> Path:
    save_file({"index": np.arange(len(target)), "outputs": outputs, "target": target}, folder / PREDICTIONS)
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("predictions")


@given(st.integers(1, 300), st.integers(2, 12), st.floats(0.01, 20), st.integers(0, 1000))
def test_bins_are_those_of_the_definition(place: Path, n: int, classes: int, scale: float, seed: int) -> None:
    draw = np.random.default_rng(seed)
    outputs, target = (scale * draw.normal(size=(n, classes))).astype(np.float32), draw.integers(0, classes, n)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calibration, "CHUNK", 7 * classes)
        found, problem = read_calibration(kept(place, outputs, target))
    assert found is not None and problem == ""
    p = softmax(outputs.astype(np.float64), axis=1)
    sure, right = p.max(axis=1), outputs.argmax(axis=1) == target
    edges = np.linspace(0, 1, BINS + 1)
    error, counts = 0.0, []
    for low, high in pairwise(edges):
        inside = (sure > low) & (sure <= high)
        if inside.any():
            counts.append(int(inside.sum()))
            error += inside.sum() / n * abs(right[inside].mean() - sure[inside].mean())
    assert found.error == pytest.approx(error, abs=1e-9)
    assert [each.n for each in found.bins] == counts and (found.right, found.total) == (right.sum(), n)
    assert found.confidence == pytest.approx(sure.mean(), abs=1e-12)


def test_rows_that_are_not_finite_are_left_out(tmp_path: Path) -> None:
    outputs = np.array([[1, 0], [np.nan, 0], [np.inf, 0], [0, 3]], np.float32)
    found, _ = read_calibration(kept(tmp_path, outputs, np.array([0, 0, 0, 0])))
    assert found is not None and (found.right, found.total) == (1, 2)


@pytest.mark.parametrize(
    ("outputs", "target"),
    [
        (np.zeros((3, 1), np.float32), np.zeros(3, np.int64)),
        (np.zeros(3, np.float32), np.zeros(3, np.int64)),
        (np.zeros((3, 2), np.float32), np.zeros(4, np.int64)),
        (np.zeros((3, 2), np.int32), np.zeros(3, np.int64)),
        (np.zeros((3, 2), np.float32), np.zeros(3, np.float32)),
        (np.zeros((0, 2), np.float32), np.zeros(0, np.int64)),
        (np.full((3, 2), np.nan, np.float32), np.zeros(3, np.int64)),
    ],
)
def test_other_tensors_are_refused_in_words(tmp_path: Path, outputs: np.ndarray, target: np.ndarray) -> None:
    found, problem = read_calibration(kept(tmp_path, outputs, target))
    assert found is None and PREDICTIONS in problem


@pytest.mark.parametrize("content", [b"", b"garbage" * 100, (1 << 62).to_bytes(8, "little") + b"{}", b"\x02" + b"\0" * 7 + b"{}"])
def test_other_files_are_refused_in_words(tmp_path: Path, content: bytes) -> None:
    (tmp_path / PREDICTIONS).write_bytes(content)
    found, problem = read_calibration(tmp_path)
    assert found is None and PREDICTIONS in problem


def test_no_file_and_a_link(tmp_path: Path) -> None:
    assert read_calibration(tmp_path) == (None, "")
    (tmp_path / PREDICTIONS).symlink_to(tmp_path / "elsewhere")
    assert "not a plain file" in read_calibration(tmp_path)[1]
