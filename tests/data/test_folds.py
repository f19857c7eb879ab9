"""Folds: scikit-learn's indices, no leak across them, and statistics of a fold's own training samples."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.model_selection import GroupKFold, KFold, StratifiedGroupKFold, StratifiedKFold, TimeSeriesSplit

from data.folder_of_pictures import fill, picture, save
from torchstone.core import tree
from torchstone.core.errors import UserError
from torchstone.core.protocols import Splits
from torchstone.data import Arrays, Digits, Fold, ImageFolder, LabelNoise, StdlibText, Subset
from torchstone.data.folds import By, Pool, fold_rows, scheme_for
from torchstone.data.pictures import StoredPictures
from torchstone.data.sources.fold import pooled
from torchstone.data.splits import TensorSplit, hold_out_groups

DRAW = np.random.default_rng(0)
LABELS = DRAW.choice(3, 90, p=[0.6, 0.3, 0.1]).astype(np.int64)
GROUPS = DRAW.integers(0, 17, 90)
CLASSES = ("a", "b", "c")
ORACLES: dict[str, Any] = {
    "stratified": StratifiedKFold(5, shuffle=True, random_state=3),
    "plain": KFold(5, shuffle=True, random_state=3),
    "grouped": StratifiedGroupKFold(5, shuffle=True, random_state=3),
    "temporal": TimeSeriesSplit(5),
}


def pool(**changes: Any) -> Pool:
    return Pool(**{"count": 90, "labels": LABELS, "classes": CLASSES, "groups": GROUPS, "ordered": True} | changes)


@pytest.mark.parametrize("by", ORACLES)
def test_indices_are_scikit_learn_s(by: By) -> None:
    found = fold_rows(by, 5, pool(), seed=3)
    expected = list(ORACLES[by].split(np.zeros(90), LABELS, GROUPS if by == "grouped" else None))
    assert len(found) == len(expected) == 5
    for (train, held), (train_, held_) in zip(found, expected, strict=True):
        np.testing.assert_array_equal(train, np.sort(train_))
        np.testing.assert_array_equal(held, np.sort(held_))


def test_groups_without_classes() -> None:
    found = fold_rows("grouped", 4, pool(labels=None), seed=1)
    expected = GroupKFold(4, shuffle=True, random_state=1).split(np.zeros(90), groups=GROUPS)
    for (train, held), (train_, held_) in zip(found, expected, strict=True):
        np.testing.assert_array_equal(train, np.sort(train_))
        np.testing.assert_array_equal(held, np.sort(held_))


@pytest.mark.parametrize("by", ORACLES)
@pytest.mark.parametrize("folds", [2, 5, 9])
def test_nothing_leaks(by: By, folds: int) -> None:
    found = fold_rows(by, folds, pool())
    for train, held in found:
        assert not set(train) & set(held) and len(train) and len(held)
        assert len(set(train)) == len(train) and len(set(held)) == len(held)
        if by == "temporal":
            assert train.max() < held.min(), "trains on the future"
        else:
            assert len(train) + len(held) == 90
        if by == "grouped":
            assert not set(GROUPS[train]) & set(GROUPS[held]), "a group is on both sides"
        if by == "stratified":
            shares = np.bincount(LABELS[held], minlength=3) - np.bincount(LABELS) / folds
            assert (np.abs(shares) < 1).all()
    everywhere = np.sort(np.concatenate([held for _, held in found]))
    if by != "temporal":
        np.testing.assert_array_equal(everywhere, np.arange(90))
    else:
        assert len(set(everywhere)) == len(everywhere)


def test_auto_asks_the_data() -> None:
    assert scheme_for("auto", pool()) == "grouped"
    assert scheme_for("auto", pool(groups=None)) == "temporal"
    assert scheme_for("auto", pool(groups=None, ordered=False)) == "stratified"
    assert scheme_for("auto", pool(groups=None, ordered=False, labels=None)) == "plain"
    assert scheme_for("plain", pool()) == "plain"


@pytest.mark.parametrize(
    "by, folds, changes, words",
    [
        ("stratified", 1, {}, "at least 2 folds"),
        ("plain", 91, {}, "91 folds need 91 samples or more; 90 train and validate"),
        ("stratified", int((LABELS == 2).sum()) + 1, {}, "class c has"),
        ("stratified", 5, {"labels": None}, "these targets are numbers"),
        ("grouped", 5, {"groups": None}, "which samples belong together"),
        ("grouped", 18, {}, "18 grouped folds need 18 groups or more; 17 train"),
        ("temporal", 5, {"ordered": False}, "data.split=temporal"),
        ("temporal", 90, {}, "90 folds need 91 samples"),
    ],
)
def test_bad_divisions_in_one_line(by: By, folds: int, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words) as error:
        fold_rows(by, folds, pool(**changes))
    assert "\n" not in str(error.value)


def test_a_fold_without_a_class_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    labels = np.array([0] * 8 + [1] * 8 + [2] * 2)
    fold_rows("temporal", 2, Pool(18, labels, ("one", "two", "three"), ordered=True))
    assert "fold 1 of 2 trains without a sample of class two, three" in capsys.readouterr().err


# --- the source --------------------------------------------------------------------------------------------------------


def rows_in(split: TensorSplit, whole: TensorSplit) -> list[int]:
    """Where the samples of a split are in another one whose first number is unique."""
    places = {float(value): row for row, value in enumerate(whole.inputs.flatten(1)[:, 0])}
    return [places[float(value)] for value in split.inputs.flatten(1)[:, 0]]


def written(folder: Path, **arrays: np.ndarray) -> str:
    np.savez(folder / "data.npz", **arrays)  # type: ignore[arg-type]
    return str(folder / "data.npz")


def test_digits_divided_anew_have_their_own_statistics() -> None:
    plain = Digits().open()
    whole, _ = pooled(plain, "digits")
    fingerprints, seen = {plain.facts.fingerprint}, []
    for number in (1, 2, 3):
        splits = Fold(number=number, of=3).open()
        facts, train = splits.facts, splits.train
        assert isinstance(train, TensorSplit) and isinstance(splits.validation, TensorSplit) and isinstance(splits.test, TensorSplit)
        assert torch.equal(splits.test.inputs, plain.test.inputs)  # type: ignore[attr-defined]
        pixels = train.inputs.double().numpy()
        np.testing.assert_allclose(facts.mean, [pixels.mean()], rtol=1e-12)
        np.testing.assert_allclose(facts.std, [pixels.std()], rtol=1e-12)
        assert facts.class_counts == tuple(np.bincount(train.target.numpy(), minlength=10))
        assert dict(facts.sizes) == {"train": len(train), "validation": len(splits.validation), "test": 270}
        assert facts.mean != plain.facts.mean and facts.fingerprint not in fingerprints
        fingerprints.add(facts.fingerprint)
        seen.append(splits.validation.inputs)
    assert sum(map(len, seen)) == len(whole) == 1797 - 270
    assert torch.equal(torch.cat(seen).double().sum(0), whole.inputs.double().sum(0))  # type: ignore[union-attr]


def planted(folder: Path, groups: np.ndarray, **settings: Any) -> Splits:
    """60 samples that carry their own number."""
    path = written(folder, x=np.arange(120, dtype=np.float32).reshape(60, 2), y=np.arange(60) % 3, groups=groups)
    return Arrays(path=path, **settings).open()


@pytest.mark.parametrize("named", [False, True])
def test_groups_of_arrays_are_never_on_two_sides(tmp_path: Path, named: bool) -> None:
    numbers = np.random.default_rng(1).integers(0, 12, 60)
    groups = np.array([f"patient {number}" for number in numbers]) if named else numbers
    splits = planted(tmp_path, groups)

    def of(split: Any) -> set[int]:
        return {int(numbers[int(row)]) for row in split.inputs[:, 0] / 2}

    sides = [of(splits.train), of(splits.validation), of(splits.test)]
    assert all(sides) and not sides[0] & sides[1] and not sides[0] & sides[2] and not sides[1] & sides[2]
    assert splits.groups is not None and len(splits.groups) == len(splits.train) + len(splits.validation)
    assert "whole groups" in splits.facts.split_rule
    for number in (1, 2, 3):
        fold = Fold(source=Arrays(path=str(tmp_path / "data.npz")), number=number, of=3).open()
        assert "grouped" in fold.facts.split_rule
        assert not of(fold.train) & of(fold.validation) and not (of(fold.train) | of(fold.validation)) & of(fold.test)


def test_temporal_arrays_end_with_the_test(tmp_path: Path) -> None:
    splits = planted(tmp_path, np.zeros(60, dtype=np.int64), split="temporal")
    times = [split.inputs[:, 0] for split in (splits.train, splits.validation, splits.test)]  # type: ignore[attr-defined]
    assert splits.ordered and torch.equal(torch.cat(times), torch.arange(0, 120, 2.0))
    source = Arrays(path=str(tmp_path / "data.npz"), split="temporal")
    for number in (1, 2, 3, 4):
        fold = Fold(source=source, number=number, of=4, by="temporal").open()
        assert fold.train.inputs.max() < fold.validation.inputs.min() < fold.test.inputs.min()  # type: ignore[attr-defined]


def test_ordinary_arrays_are_split_as_before(tmp_path: Path) -> None:
    x, y = DRAW.normal(size=(40, 3)).astype(np.float32), np.arange(40) % 2
    splits = Arrays(path=written(tmp_path, x=x, y=y)).open()
    assert splits.groups is None and not splits.ordered and "stratified by class" in splits.facts.split_rule


@pytest.mark.parametrize(
    "groups, words",
    [
        ({"groups": np.arange(59)}, r"array groups: holds int64 \[59\]; groups are whole numbers or texts \[60\]"),
        ({"groups": np.ones(60)}, "holds float64"),
        ({"groups_train": np.arange(60)}, "has groups_train, but no groups"),
        ({"groups": np.zeros(60, dtype=int)}, "only one is left"),
        ({"groups": np.arange(60), "groups_test": np.arange(3)}, "has groups_test without the x and y"),
    ],
)
def test_bad_groups_in_one_line(tmp_path: Path, groups: dict[str, np.ndarray], words: str) -> None:
    path = written(tmp_path, x=np.zeros((60, 2), dtype=np.float32), y=np.arange(60) % 3, **groups)
    with pytest.raises(UserError, match=words):
        Arrays(path=path).open()


def test_shared_groups_of_given_splits_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    x, y = np.zeros((20, 2), dtype=np.float32), np.arange(20) % 2
    given = {f"{name}_{split}": value for split in ("train", "validation", "test") for name, value in (("x", x), ("y", y))}
    groups = {"groups_train": np.arange(20) // 5, "groups_validation": 4 + np.arange(20) // 5, "groups_test": 3 + np.arange(20)}
    splits = Arrays(path=written(tmp_path, **given, **groups)).open()
    assert "1 groups are in train and in test" in capsys.readouterr().err
    assert splits.groups is not None and len(np.unique(splits.groups)) == 8


def test_whole_groups_are_held_out_near_the_share() -> None:
    cut = hold_out_groups(GROUPS, 15, LABELS)
    assert not set(GROUPS[cut.kept]) & set(GROUPS[cut.held]) and 8 <= len(cut.held) <= 22
    assert len(cut.kept) + len(cut.held) == 90


def test_folders_divide_by_class_and_by_pattern(tmp_path: Path) -> None:
    fill(tmp_path / "pictures")
    source = ImageFolder(path=str(tmp_path / "pictures"), cache_dir=str(tmp_path / "cache"))
    for number in (1, 2):
        splits = Fold(source=source, number=number, of=2).open()
        train = splits.train
        assert isinstance(train, StoredPictures) and isinstance(splits.validation, StoredPictures)
        assert not set(train.names) & set(splits.validation.names)
        pixels = train.fetch(np.arange(len(train)))[0].double().numpy() / 255
        np.testing.assert_allclose(splits.facts.mean, pixels.mean(axis=(0, 2, 3)), rtol=1e-12)
        np.testing.assert_allclose(splits.facts.std, pixels.std(axis=(0, 2, 3)), rtol=1e-9)
    with pytest.raises(UserError, match="which samples belong together"):
        Fold(source=source, by="grouped").open()


def test_folders_keep_the_groups_of_their_file_names(tmp_path: Path) -> None:
    for label, name in enumerate(("ant", "bee")):
        for scene in range(8):
            for shot in range(3):
                save(tmp_path / "p" / name / f"scene{scene}-{shot}.png", picture(100 * label + 10 * scene + shot))
    source = ImageFolder(path=str(tmp_path / "p"), cache_dir=str(tmp_path / "cache"), groups="scene([0-9]+)-")

    def scenes(split: Any) -> set[str]:
        return {name.split("scene")[1].split("-")[0] for name in split.names}

    splits = source.open()
    assert "in whole groups" in splits.facts.split_rule and splits.groups is not None
    assert not scenes(splits.test) & (scenes(splits.train) | scenes(splits.validation))
    for number in (1, 2):
        fold = Fold(source=source, number=number, of=2).open()
        assert "grouped" in fold.facts.split_rule
        sides = [scenes(fold.train), scenes(fold.validation), scenes(fold.test)]
        assert all(sides) and not sides[0] & sides[1] and not (sides[0] | sides[1]) & sides[2]
    with pytest.raises(UserError, match=r"finds no group in ant/scene0-0.png.* and 38 more"):
        ImageFolder(path=str(tmp_path / "p"), cache_dir=str(tmp_path / "cache"), groups="patient([0-9]+)").open()


def test_what_cannot_be_divided_is_refused() -> None:
    class Text:
        def open(self) -> Splits:
            return StdlibText(context=16, max_bytes=4000).open()

    with pytest.raises(UserError, match="a text is one stretch"):
        Fold(source=Text()).open()
    wrongs: list[dict[str, Any]] = [{"of": 1}, {"of": 3, "number": 4}, {"number": 0}, {"seed": -1}]
    for wrong in wrongs:
        with pytest.raises(ValueError, match="must be"):
            Fold(**wrong)
    with pytest.raises(ValueError, match="regular expression with one"):
        ImageFolder(groups="[")


def test_scikit_learn_s_warnings_stay_inside() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fold_rows("grouped", 9, pool())


def test_folds_of_a_subset_are_read_back() -> None:
    """`--folds` stores a run whose data are a fold of a subset: the text must come back as that."""
    part = Fold(source=Subset(source=Digits(), samples=100), number=2, of=3)
    assert tree.decode(Fold, tree.encode(part)) == part
    sizes, whole = dict(part.open().facts.sizes), dict(Digits().open().facts.sizes)
    assert sizes["train"] + sizes["validation"] == 100 + whole["validation"]


def test_folds_do_not_validate_on_wrong_labels() -> None:
    with pytest.raises(UserError, match="wrong labels"):
        Fold(source=LabelNoise(source=Digits(), share=0.1)).open()
