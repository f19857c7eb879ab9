"""Without: which samples are left and what is said of them, the list as a file, and the lists that are refused."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from torchstone.core import tree
from torchstone.core.errors import UserError
from torchstone.data import IDX, Arrays, Digits, LabelNoise, PlainText, Subset, Without
from torchstone.data.facts import fingerprint, mean_and_std
from torchstone.data.sources.without import list_text, read_list
from torchstone.recipes import digits_mini

WHOLE = Digits().open()
PRINT = WHOLE.facts.fingerprint


def listed(folder: Path, text: str) -> str:
    (folder / "list.json").write_text(text)
    return str(folder / "list.json")


def of_rows(folder: Path, train: tuple[int, ...] = (), validation: tuple[int, ...] = (), digest: str = PRINT) -> str:
    return listed(folder, list_text(digest, {"train": dict.fromkeys(train, "copy"), "validation": dict.fromkeys(validation, "")}))


def test_the_listed_samples_are_gone_and_everything_else_is_there(tmp_path: Path) -> None:
    left = Without(leave_out=of_rows(tmp_path, (0, 5, 1256), (2,))).open()
    assert torch.equal(left.train.inputs, torch.cat((WHOLE.train.inputs[1:5], WHOLE.train.inputs[6:1256])))
    assert torch.equal(left.validation.target, torch.cat((WHOLE.validation.target[:2], WHOLE.validation.target[3:])))
    assert torch.equal(left.test.inputs, WHOLE.test.inputs)
    facts = left.facts
    assert dict(facts.sizes) == {"train": 1254, "validation": 269, "test": 270}
    assert facts.class_counts == tuple(torch.bincount(left.train.target).tolist())
    assert (facts.mean, facts.std) == mean_and_std(left.train) and facts.mean != WHOLE.facts.mean
    assert facts.split_rule.startswith("without 3 train and 1 validation samples of a list; before that: ")


def test_the_fingerprint_follows_the_rows(tmp_path: Path) -> None:
    prints = [Without(leave_out=of_rows(tmp_path, *rows)).open().facts.fingerprint for rows in (((1,),), ((1,),), ((2,),), ((), (1,)))]
    assert prints[0] == prints[1] and len({*prints, PRINT}) == 4


def test_an_empty_list_is_the_source_bit_for_bit(tmp_path: Path) -> None:
    left = Without(leave_out=of_rows(tmp_path)).open()
    assert left.facts == WHOLE.facts
    assert fingerprint({"x": left.train.inputs}) == fingerprint({"x": WHOLE.train.inputs})


def test_around_other_sources(tmp_path: Path) -> None:
    for source in (LabelNoise(share=0.2), Subset(samples=300)):
        whole = source.open()
        left = Without(source=source, leave_out=of_rows(tmp_path, (0, 7), digest=whole.facts.fingerprint)).open()
        assert torch.equal(left.train.target, torch.cat((whole.train.target[1:7], whole.train.target[8:])))


def test_groups_and_a_regression(tmp_path: Path) -> None:
    x = np.arange(400, dtype=np.float32).reshape(100, 4)
    np.savez(tmp_path / "all.npz", x=x, y=x[:, 0], groups=np.arange(100) // 2)
    source = Arrays(path=str(tmp_path / "all.npz"))
    whole = source.open()
    left = Without(source=source, leave_out=of_rows(tmp_path, (3,), (0,), whole.facts.fingerprint)).open()
    assert left.groups is not None and whole.groups is not None
    assert left.groups.tolist() == np.delete(whole.groups, [3, len(whole.train)]).tolist()
    assert left.facts.class_counts == () and len(left.train) == len(whole.train) - 1


def test_the_list_comes_back_as_it_was_written(tmp_path: Path) -> None:
    path = of_rows(tmp_path, (9, 3), (1,))
    assert read_list(Path(path)) == (PRINT, {"train": {3: "copy", 9: "copy"}, "validation": {1: ""}})
    assert len(Path(path).read_text().splitlines()) == 12, "a line a row, to be taken out by hand"


@pytest.mark.parametrize(
    "text, said",
    [
        ("{", "not JSON"),
        ("[]", "no list of samples to leave out"),
        ('{"kind": "leave_out", "version": 2}', "a list of version 2, this torchstone reads 1"),
        (list_text("0" * 64, {"train": {1: ""}}), "made for other data (fingerprint 000000000000…) than data.source=digits has now"),
        (list_text(PRINT, {"train": {1257: ""}}), "train row 1257 is listed, and the split has 1257 samples"),
        (list_text(PRINT, {"validation": dict.fromkeys(range(270), "")}), "all 270 validation samples are listed; nothing would be left"),
        (list_text(PRINT, {"train": {1: ""}}).replace('"row": 1', '"row": -1'), "entry 1 of train is not"),
        (list_text(PRINT, {"train": {1: ""}}).replace('"row": 1', '"row": true'), "entry 1 of train is not"),
        (json.dumps({"kind": "leave_out", "version": 1, "fingerprint": PRINT, "train": 3}), "entry 1 of train is not"),
        (
            list_text(PRINT, {"train": dict.fromkeys(np.flatnonzero(WHOLE.train.target.numpy() == 4).tolist(), "")}),
            "leaves out all 127 training samples of 4",
        ),
    ],
)
def test_a_wrong_list_is_one_line(text: str, said: str, tmp_path: Path) -> None:
    path = listed(tmp_path, text)
    with pytest.raises(UserError, match=re.escape(said)) as caught:
        Without(leave_out=path).open()
    assert str(caught.value).startswith(path) and "\n" not in str(caught.value)


def test_no_list_and_no_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data.leave_out must be given: the list that `torchstone doctor RECIPE --out DIR` leaves"):
        Without().open()
    with pytest.raises(UserError, match="No such file"):
        Without(leave_out=str(tmp_path / "absent.json")).open()


def test_a_text_has_no_samples_to_leave_out(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("words and words and more words\n" * 200)
    source = PlainText(path=str(tmp_path / "a.txt"), context=16)
    path = of_rows(tmp_path, (1,), digest=source.open().facts.fingerprint)
    with pytest.raises(UserError, match="only splits that are TensorSplit or pictures can leave samples out"):
        Without(source=source, leave_out=path).open()


def test_as_an_edit(tmp_path: Path) -> None:
    path = of_rows(tmp_path, (1,))
    edited = tree.edit(digits_mini(), ["data=without", f"data.leave_out={path}", "data.source=idx", "data.source.path=/somewhere"])
    assert edited.data == Without(leave_out=path, source=IDX(path="/somewhere"))
