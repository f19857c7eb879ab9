"""Text: windows predict every byte, evaluation each exactly once; wrong files are named."""

import os
import sysconfig
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from torchstone.core.errors import UserError
from torchstone.core.protocols import TokenShape
from torchstone.data import PlainText, StdlibText
from torchstone.data.sources.text import IGNORED, covering_windows, whole_windows


def everything(split):
    return split.fetch(np.arange(len(split), dtype=np.int64))


def tokens(length: int) -> torch.Tensor:
    return torch.arange(length).remainder(251).add(1).to(torch.uint8)


@given(st.integers(2, 120), st.integers(1, 40))
def test_evaluation_predicts_every_byte_after_the_first_once(length: int, context: int) -> None:
    text = tokens(length)
    inputs, target = everything(covering_windows(text, context))
    kept = target != IGNORED
    assert target[kept].tolist() == text[1:].tolist()
    assert inputs[kept].tolist() == text[:-1].tolist()
    assert inputs.shape[1] == context
    assert inputs[~kept][1:].count_nonzero() == 0  # the first of them is the text's last byte, which has no successor


@given(st.integers(20, 120), st.integers(1, 10), st.integers(1, 25))
def test_training_windows_are_whole_and_start_every_stride(length: int, context: int, stride: int) -> None:
    text = tokens(length)
    split = whole_windows(text, context, stride)
    inputs, target = everything(split)
    starts = [s for s in range(0, length, stride) if s + context < length]
    assert len(split) == len(starts)
    for row, start in enumerate(starts):
        assert inputs[row].tolist() == text[start : start + context].tolist()
        assert target[row].tolist() == text[start + 1 : start + context + 1].tolist()


def test_batches_are_contiguous_int64_and_in_the_order_asked() -> None:
    split = covering_windows(tokens(50), 8)
    inputs, target = split.fetch(np.array([6, 0, 6]))
    assert inputs.is_contiguous()
    assert target.is_contiguous()
    assert inputs.dtype == target.dtype == torch.int64
    assert torch.equal(target[0], target[2])
    assert target[0].tolist() == [*tokens(50)[49:].tolist(), *[IGNORED] * 7]
    assert IGNORED not in target[1]


def test_stdlib_text_is_the_library_and_repeats() -> None:
    splits = StdlibText(context=64, max_bytes=300_000).open()
    assert splits.facts == StdlibText(context=64, max_bytes=300_000).open().facts
    assert splits.facts.inputs == TokenShape(256, 64)
    first = Path(sysconfig.get_paths()["stdlib"], "__future__.py").read_bytes()
    inputs, _ = splits.train.fetch(np.array([0, 1]))
    assert bytes(inputs.flatten().tolist()) == first[:128]
    # 300 000 bytes: 240 000 train in (240000 - 65) // 64 + 1 windows, 30 000 in each of the others.
    assert splits.facts.sizes == (("train", 3749), ("validation", 469), ("test", 469))


def test_the_last_tenth_validates_and_the_one_before_tests(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(bytes(range(200)))
    splits = PlainText(path=str(tmp_path / "a.txt"), context=4).open()
    assert everything(splits.test)[0][0].tolist() == [160, 161, 162, 163]
    assert everything(splits.validation)[0][0].tolist() == [180, 181, 182, 183]
    assert everything(splits.train)[1].max() < 160


def test_a_folder_is_its_txt_files_in_order_of_their_paths(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    for name, text in {"b/x.txt": b"3" * 30, "a.txt": b"1" * 30, "b.txt": b"2" * 30, "c.md": b"no" * 30}.items():
        (tmp_path / name).write_bytes(text)
    one = PlainText(path=str(tmp_path), context=4).open()
    (tmp_path / "all.text").write_bytes(b"1" * 30 + b"2" * 30 + b"3" * 30)
    assert one.facts == PlainText(path=str(tmp_path / "all.text"), context=4).open().facts


def test_another_text_has_another_fingerprint(tmp_path: Path) -> None:
    prints = []
    for text in (b"a" * 100, b"a" * 99 + b"b"):
        (tmp_path / "t.txt").write_bytes(text)
        prints.append(PlainText(path=str(tmp_path / "t.txt"), context=4).open().facts.fingerprint)
    assert prints[0] != prints[1]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda path: None, "No such file.*name a text file"),
        (lambda path: path.write_bytes(b""), "is empty; a context of 256 needs at least 771"),
        (lambda path: path.write_bytes(b"x" * 770), "holds 770 bytes; .*smaller data.context"),
        (lambda path: path.mkdir(), "without \\*.txt files"),
        (lambda path: os.mkfifo(path), "no regular file"),
    ],
)
def test_a_wrong_file_is_named_with_what_would_do(tmp_path: Path, make, says: str) -> None:
    path = tmp_path / "mine"
    make(path)
    with pytest.raises(UserError, match=says) as caught:
        PlainText(path=str(path)).open()
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_shortest_text_allowed_opens(tmp_path: Path) -> None:
    for context in (1, 6, 256):
        (tmp_path / "t.txt").write_bytes(b"x" * max(20, 3 * (context + 1)))
        splits = PlainText(path=str(tmp_path / "t.txt"), context=context).open()
        assert all(size > 0 for _, size in splits.facts.sizes)


@pytest.mark.parametrize("wrong", [{"context": 0}, {"stride": 0}, {"max_bytes": 0}])
def test_numbers_out_of_range_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=f"StdlibText.{next(iter(wrong))} must be"):
        StdlibText(**wrong)
