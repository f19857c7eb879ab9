"""Arrays: what fits is read as it should be; what does not is refused with file, array and row, and no code is run."""

import os
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from torchstone.core.errors import UserError
from torchstone.core.protocols import ImageShape, VectorShape
from torchstone.data import Arrays

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 3))
Y = np.arange(40) % 4


def opened(folder: Path, fields=None, **arrays):
    path = folder / "mine.npz"
    np.savez(path, **arrays)
    return Arrays(path=str(path), **(fields or {})).open()


def everything(split):
    return split.fetch(np.arange(len(split), dtype=np.int64))


def test_vectors_and_labels_are_split_in_three(tmp_path: Path) -> None:
    splits = opened(tmp_path, x=X, y=Y)
    assert splits.facts.inputs == VectorShape(3)
    assert splits.facts.classes == ("0", "1", "2", "3")
    assert splits.facts.sizes == (("train", 28), ("validation", 6), ("test", 6))
    assert splits.facts.split_rule.count("stratified by class") == 2
    rows = torch.cat([everything(s)[0] for s in (splits.train, splits.validation, splits.test)])
    assert sorted(rows[:, 0].tolist()) == sorted(X[:, 0].astype(np.float32).tolist())
    train = everything(splits.train)[0].double()
    np.testing.assert_allclose(splits.facts.mean, train.mean(0), rtol=1e-12)
    np.testing.assert_allclose(splits.facts.std, train.std(0, correction=0), rtol=1e-12)


def test_splits_of_the_file_are_kept_and_the_missing_one_is_held_out(tmp_path: Path) -> None:
    splits = opened(tmp_path, {"validation": 0.25}, x_train=X, y_train=Y, x_test=X[:5] + 100, y_test=Y[:5])
    assert splits.facts.sizes == (("train", 30), ("validation", 10), ("test", 5))
    assert torch.equal(everything(splits.test)[0], torch.from_numpy((X[:5] + 100).astype(np.float32)))
    assert splits.facts.split_rule.startswith("test as in the file; validation is 10 of 40 rows")


def test_floats_are_what_a_regression_predicts(tmp_path: Path) -> None:
    for y in (X[:, 0], X[:, :2]):
        splits = opened(tmp_path, x=X, y=y)
        assert splits.facts.classes == splits.facts.class_counts == ()
        assert everything(splits.train)[1].dtype == torch.float32
        assert everything(splits.train)[1].shape[1:] == y.shape[1:]


def test_names_of_classes_are_kept_and_a_class_may_be_absent(tmp_path: Path) -> None:
    facts = opened(tmp_path, {"classes": ("a", "b", "c", "d", "e")}, x=X, y=Y.astype(np.uint8)).facts
    assert facts.classes == ("a", "b", "c", "d", "e")
    assert facts.class_counts[4] == 0


@pytest.mark.parametrize(
    ("shape", "layout", "becomes"),
    [
        ((40, 8, 6), "auto", (1, 8, 6)),
        ((40, 3, 8, 6), "auto", (3, 8, 6)),
        ((40, 8, 6, 3), "auto", (3, 8, 6)),
        ((40, 7, 8, 6), "auto", (7, 8, 6)),
        ((40, 3, 6, 3), "channels_last", (3, 3, 6)),
        ((40, 8, 6, 3), "channels_first", (8, 6, 3)),
    ],
)
def test_images_come_out_channels_first_as_the_bytes_they_are(tmp_path: Path, shape, layout: str, becomes) -> None:
    pixels = RNG.integers(0, 256, shape).astype(np.uint8)
    splits = opened(tmp_path, {"layout": layout}, x_train=pixels, y_train=Y, x_validation=pixels, y_validation=Y, x_test=pixels, y_test=Y)
    assert splits.facts.inputs == ImageShape(*becomes)
    images, _ = everything(splits.train)
    expected = pixels
    if expected.ndim == 3:
        expected = expected[:, None]
    elif images.shape != expected.shape or layout == "channels_last":
        expected = expected.transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(images.numpy(), expected)
    assert images.dtype == torch.uint8
    np.testing.assert_allclose(splits.facts.mean, expected.mean((0, 2, 3), dtype=np.float64) / 255, rtol=1e-6)


def nan_in_row_7() -> np.ndarray:
    x = X.copy()
    x[7, 1] = np.nan
    return x


WRONG = {
    "NaN": ({"x": nan_in_row_7(), "y": Y}, "array x, row 7: .*NaN"),
    "too large for float32": ({"x": np.where(np.arange(120).reshape(40, 3) == 5, 1e200, X), "y": Y}, "array x, row 1: .*infinite"),
    "NaN target": ({"x": X, "y": nan_in_row_7()[:, 1]}, "array y, row 7: .*NaN"),
    "label -1": ({"x": X, "y": np.where(Y == 3, -1, Y)}, r"array y, row 3: is label -1; .*\(9 more such rows\)"),
    "label 2^63": (
        {"x": X, "y": np.where(np.arange(40) == 9, np.uint64(2**63), Y.astype(np.uint64))},
        "array y, row 9: is label 9223372036854775808",
    ),
    "labels of two axes": ({"x": X, "y": Y[:, None]}, r"array y: has shape \[40, 1\]; labels are \[N\]"),
    "text": ({"x": X, "y": Y.astype(str)}, "array y: holds <U"),
    "complex": ({"x": X + 1j, "y": Y}, "array x: holds complex128"),
    "lengths": ({"x": X, "y": Y[:-1]}, "array x has 40 rows, y has 39"),
    "no rows": ({"x": X[:0], "y": Y[:0]}, r"array x: has shape \[0, 3\]"),
    "too few rows": ({"x": X[:2], "y": Y[:2]}, "2 rows to train on are too few"),
    "one axis": ({"x": X[:, 0], "y": Y}, r"array x: has shape \[40\]"),
    "a single number": ({"x": np.float64(3), "y": Y}, "array x: is a single number"),
    "absent x": ({"features": X, "y": Y}, "has no array x; found features, y"),
    "absent both": ({"a": X, "b": Y}, "has no array x and y, or x_train and y_train; found a, b"),
    "absent y_test": ({"x_train": X, "y_train": Y, "x_test": X}, "has no array y_test"),
    "both kinds": ({"x": X, "y": Y, "x_test": X, "y_test": Y}, "holds x or y beside x_test, y_test"),
    "shapes that differ": ({"x_train": X, "y_train": Y, "x_test": X[:, :2], "y_test": Y}, "array x_test: a row has shape"),
    "targets that differ": ({"x_train": X, "y_train": Y, "x_test": X, "y_test": X[:, 0]}, "array y_test: float64"),
    "Python objects": ({"x": X, "y": np.array([{}] * 40, dtype=object)}, "array y: holds Python objects, which are never read"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_learned_from_is_refused(tmp_path: Path, case: str) -> None:
    arrays, says = WRONG[case]
    with pytest.raises(UserError, match=says) as caught:
        opened(tmp_path, **arrays)
    assert "mine.npz" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_labels_beyond_the_names_and_floats_under_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="array y, row 2: is label 2; labels are 0 to 1"):
        opened(tmp_path, {"classes": ("a", "b")}, x=X, y=Y)
    with pytest.raises(UserError, match=r"array y: holds float64, but data\.classes are given"):
        opened(tmp_path, {"classes": ("a", "b")}, x=X, y=Y.astype(float))


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.npz"
    np.savez_compressed(path, x=X, y=Y)
    whole = path.read_bytes()
    damaged = [whole[:n] for n in range(0, len(whole), 13)]
    damaged += [whole[:n] + bytes([whole[n] ^ 0xFF]) + whole[n + 1 :] for n in range(0, len(whole), 7)]
    refused = 0
    for content in damaged:
        path.write_bytes(content)
        try:
            Arrays(path=str(path)).open()
        except UserError as error:
            refused += 1
            assert "mine.npz" in str(error)
    # A flipped bit in a date or an attribute of the archive harms nobody.
    assert refused > 0.85 * len(damaged)


def npy(shape: str, descr: str = "'<f8'", body: bytes = b"") -> bytes:
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (63 - (len(header) + 10) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + body


@pytest.mark.parametrize(
    "content",
    [
        npy("(9223372036854775807,)"),
        npy("(4294967296, 4294967296, 3)"),
        npy("(-1, 3)"),
        npy("(1099511627776,)"),
        npy("(2,)", "'|O'", b"cos\nsystem\n"),
        npy("(2,)", "__import__('os').abort()"),
        npy("(((((((" * 500),
        b"",
        b"\x93NUMPY\x09\x00",
        b"\x93NUMPY\x02\x00\xff\xff\xff\xff",
    ],
    ids=["2^63 rows", "2^65 numbers", "negative", "8 TiB", "pickle", "code", "nested", "empty", "version", "long header"],
)
def test_hostile_headers_are_refused(tmp_path: Path, content: bytes) -> None:
    with zipfile.ZipFile(tmp_path / "mine.npz", "w") as archive:
        archive.writestr("x.npy", content)
        archive.writestr("y.npy", content)
    with pytest.raises(UserError, match="array x: "):
        Arrays(path=str(tmp_path / "mine.npz")).open()


def test_an_archive_larger_than_memory_is_refused_before_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torchstone.data.sources.npz._memory", lambda: 1000)
    with pytest.raises(UserError, match="more than half of this machine's memory"):
        opened(tmp_path, x=X, y=Y)


def test_a_crowd_of_members_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "mine.npz", "w") as archive:
        for number in range(1001):
            archive.writestr(f"{number}.npy", b"")
    with pytest.raises(UserError, match="holds 1001 arrays"):
        Arrays(path=str(tmp_path / "mine.npz")).open()


def test_names_in_the_file_cannot_write_to_the_terminal(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "mine.npz", "w") as archive:
        archive.writestr("\x1b[31mred\n.npy", b"")
    with pytest.raises(UserError, match="found red") as caught:
        Arrays(path=str(tmp_path / "mine.npz")).open()
    assert "\x1b" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "make", [lambda p: None, lambda p: p.mkdir(), os.mkfifo, lambda p: p.write_bytes(b"x"), lambda p: np.save(p.open("wb"), X)]
)
def test_what_is_no_archive_is_refused(tmp_path: Path, make) -> None:
    path = tmp_path / "mine.npz"
    make(path)
    with pytest.raises(UserError, match=r"mine\.npz .*numpy\.savez"):
        Arrays(path=str(path)).open()


@pytest.mark.parametrize("wrong", [{"validation": 0.0}, {"test": 1.0}, {"validation": 0.5, "test": 0.5}, {"classes": ("a", "a")}])
def test_settings_out_of_range_are_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match=f"Arrays.{next(iter(wrong))}"):
        Arrays(path="x.npz", **wrong)


def test_a_file_without_room_for_every_class_in_every_split_says_so(tmp_path: Path) -> None:
    y = Y.copy()
    y[0] = 9
    assert "at random" in opened(tmp_path, x=X, y=y).facts.split_rule
