"""Folders of pictures: every layout, the splits, the side that is chosen, and what is counted or refused."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data.folder_of_pictures import COUNTS, fill, picture, save
from torchstone.core import errors, tree
from torchstone.core.errors import UserError
from torchstone.core.protocols import ImageShape, Splits
from torchstone.data.decode import read_fitted
from torchstone.data.sources import ImageFolder
from torchstone.data.sources.image_folder import chosen_side
from torchstone.data.workers import Workers


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHSTONE_CACHE", str(tmp_path / "cache"))
    errors._warned.clear()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "pictures"


def opened(root: Path, **fields) -> Splits:
    return ImageFolder(path=str(root), **fields).open()


def refused(root: Path, **fields) -> str:
    with pytest.raises(UserError) as error:
        opened(root, **fields)
    assert "\n" not in str(error.value) and str(root) in str(error.value)
    return str(error.value)


def everything(split) -> tuple[torch.Tensor, torch.Tensor]:
    return split.fetch(np.arange(len(split), dtype=np.int64))


# --- layouts -----------------------------------------------------------------------------------------------------------


def test_class_folders_alone_are_split_in_three(root: Path) -> None:
    splits = opened(fill(root), cache_side=8)
    facts = splits.facts
    assert facts.classes == ("ant", "bee", "cow")
    assert facts.inputs == ImageShape(3, 8, 8)
    assert facts.sizes == (("train", 20), ("validation", 4), ("test", 4))
    assert facts.class_counts == tuple(torch.bincount(everything(splits.train)[1]).tolist()) and min(facts.class_counts) >= 5
    assert "test is 4 of 28, held out stratified by class" in facts.split_rule and "validation is 4 of 28" in facts.split_rule
    assert facts.notes == ()
    names = [name for split in (splits.train, splits.validation, splits.test) for name in split.names]
    assert sorted(names) == sorted(path.relative_to(root).as_posix() for path in root.rglob("*.png"))
    for split in (splits.train, splits.validation, splits.test):
        inputs, target = everything(split)
        assert inputs.dtype == torch.uint8
        for name, image, label in zip(split.names, inputs, target, strict=True):
            assert torch.equal(image, read_fitted(root / name, 3, 8, 8, "crop"))
            assert facts.classes[label] == name.split("/")[0]


@pytest.mark.parametrize(
    "validation,test", [("val", "test"), ("valid", "testing"), ("Validation", "TEST"), ("dev", None), (None, "test"), (None, None)]
)
def test_split_folders_in_all_their_names(root: Path, validation: str | None, test: str | None) -> None:
    fill(root / "train")
    if validation:
        fill(root / validation, {"ant": 2, "cow": 3}, start=5000)
    if test:
        fill(root / test, {"ant": 1, "bee": 1, "cow": 1}, start=9000)
    splits = opened(root, cache_side=8)
    sizes = dict(splits.facts.sizes)
    assert sizes["validation"] == (5 if validation else 4) and sizes["test"] == (3 if test else 4)
    assert sizes["train"] == 28 - (0 if validation else 4) - (0 if test else 4)
    if validation:
        assert all(name.startswith(f"{validation}/") for name in splits.validation.names)
        assert f"validation as in {validation} (5)" in splits.facts.split_rule
    assert splits.facts.classes == ("ant", "bee", "cow")


def test_a_class_called_train_is_a_class(root: Path) -> None:
    assert opened(fill(root, {"plane": 8, "train": 8}), cache_side=8).facts.classes == ("plane", "train")


def test_facts_are_those_of_the_training_pixels(root: Path) -> None:
    splits = opened(fill(root), cache_side=8)
    pixels = everything(splits.train)[0].double() / 255
    np.testing.assert_allclose(splits.facts.mean, pixels.mean((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(splits.facts.std, pixels.std((0, 2, 3), correction=0), rtol=1e-12)


def test_the_split_is_the_same_every_time_and_any_change_of_the_data_is_seen(root: Path) -> None:
    first = opened(fill(root), cache_side=8)
    again = opened(root, cache_side=8)
    assert first.facts == again.facts and first.train.names == again.train.names
    assert opened(root, cache_side=8, cache=False).facts == first.facts
    prints = {first.facts.fingerprint}
    prints.add(opened(root, cache_side=9).facts.fingerprint)
    prints.add(opened(root, cache_side=8, fit="pad").facts.fingerprint)
    prints.add(opened(root, cache_side=8, validation=0.3).facts.fingerprint)
    save(root / "ant" / "000.png", picture(4242))
    prints.add(opened(root, cache_side=8).facts.fingerprint)
    assert len(prints) == 5


def test_without_a_cache_the_same_bytes_also_in_a_worker(root: Path, tmp_path: Path) -> None:
    stored, fetched = opened(fill(root), cache_side=8), opened(root, cache_side=8, cache=False)
    for name in ("train", "validation", "test"):
        one, other = everything(getattr(stored, name)), everything(getattr(fetched, name))
        assert torch.equal(one[0], other[0]) and torch.equal(one[1], other[1])
        assert getattr(stored, name).names == getattr(fetched, name).names
    rows = np.array([3, 0, 3, 17], dtype=np.int64)
    for split in (stored.train, fetched.train):
        with Workers(lambda positions, note, split=split: split.fetch(positions), 2, timeout=30) as workers:
            inputs, target = next(iter(workers.map([rows])))
        assert torch.equal(inputs, everything(stored.train)[0][rows]) and torch.equal(target, everything(stored.train)[1][rows])
    assert fetched.train.fetch(rows[:0])[0].shape == (0, 3, 8, 8)


def test_folders_below_a_class_hidden_files_and_others(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(root)
    save(root / "ant" / "more" / "deep" / "x.PNG", picture(1))
    save(root / "ant" / ".hidden.png", picture(2))
    save(root / ".git" / "a.png", picture(3))
    (root / "ant" / "notes.txt").write_text("hello")
    (root / "readme").write_text("hello")
    (root / "empty").mkdir()
    save(root / "lost.png", picture(4))
    splits = opened(root, cache_side=8)
    assert sum(size for _, size in splits.facts.sizes) == sum(COUNTS.values()) + 1
    said = capsys.readouterr().err
    expected = "files that are no pictures: (none) 1, .txt 1; folders without pictures: empty; pictures in no class folder: 1"
    assert f"left aside: {expected}\n" in said


def test_links_are_followed_and_loops_end(root: Path, tmp_path: Path) -> None:
    fill(root)
    fill(tmp_path / "elsewhere", {"dog": 6}, start=7000)
    (root / "dog").symlink_to(tmp_path / "elsewhere" / "dog")
    (root / "ant" / "loop").symlink_to(root / "ant")
    (root / "bee" / "up").symlink_to(root)
    os.symlink(root / "cow", root / "cow" / "self")
    splits = opened(root, cache_side=8)
    assert splits.facts.classes == ("ant", "bee", "cow", "dog")
    names = [name for split in (splits.train, splits.validation, splits.test) for name in split.names]
    assert len([name for name in names if name.startswith("ant/")]) == 12
    assert len([name for name in names if name.startswith("dog/")]) == 6


def test_names_in_any_alphabet_and_of_any_length(root: Path) -> None:
    fill(root, {"Übergrößen": 5, "猫": 5})
    save(root / "猫" / ("é" * 125 + ".jpg"), picture(9))  # 254 bytes
    save(root / "猫" / "a b\tc'\".png", picture(10))
    os.rename(root / "猫" / "000.png", os.fsencode(root / "猫") + b"/\xff\xfe.png")
    splits = opened(root, cache_side=8)
    assert splits.facts.classes == ("Übergrößen", "猫")
    names = [name for split in (splits.train, splits.validation, splits.test) for name in split.names]
    assert len(names) == 12 and all(name.encode() for name in names)


# --- the form ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "median,count,side",
    [
        *((1, 100, 1), (28, 70_000, 28), (40, 10, 40), (47, 10, 40), (63, 10, 56), (64, 10, 64), (95, 10, 64), (400, 1513, 96)),
        *((400, 5_000, 128), (400, 50_000, 160), (400, 200_000, 224), (150, 300_000, 128), (5000, 10**7, 224)),
    ],
)
def test_the_side_that_is_chosen(median: int, count: int, side: int) -> None:
    assert chosen_side(median, count) == side


def test_what_was_chosen_is_said_and_written_in(root: Path) -> None:
    fill(root, {"a": 8}, height=70, width=200)
    fill(root, {"b": 9}, height=300, width=66, start=100)
    part = ImageFolder(path=str(root))
    splits = part.open()
    assert splits.facts.inputs == ImageShape(3, 64, 64)
    assert "cropped to 64x64 color (chosen: the median shorter side is 66, of 17 pictures" in splits.facts.split_rule
    resolved = part.resolve(splits.facts)
    assert (resolved.cache_side, resolved.channels) == (64, "color")
    again = resolved.open()
    assert again.facts.fingerprint == splits.facts.fingerprint and "chosen" not in again.facts.split_rule


def test_gray_folders_are_gray_and_one_color_picture_makes_color(root: Path) -> None:
    fill(root, channels=1)
    facts = opened(root).facts
    assert facts.inputs == ImageShape(1, 12, 12) and len(facts.mean) == 1
    save(root / "cow" / "red.png", picture(5))
    assert opened(root).facts.inputs == ImageShape(3, 12, 12)
    assert opened(root, channels="gray").facts.inputs == ImageShape(1, 12, 12)


def test_turned_pictures_of_all_kinds_in_one_folder(root: Path) -> None:
    """What differs between files is gone after decoding: all are three channels of bytes of one size."""
    fill(root)
    Image.fromarray(picture(1)).convert("CMYK").save(root / "ant" / "cmyk.jpg")
    Image.fromarray(picture(2)).convert("P").save(root / "ant" / "palette.gif")
    Image.fromarray(picture(3, channels=4), "RGBA").save(root / "bee" / "alpha.webp")
    Image.fromarray(picture(4, channels=1).astype(np.uint16) * 257).save(root / "bee" / "deep.png")
    Image.fromarray(picture(5, channels=1) > 99).save(root / "cow" / "bits.tiff")
    Image.new("RGB", (1, 1), "red").save(root / "cow" / "one.bmp")
    Image.new("L", (65_535, 1), 9).save(root / "cow" / "long.png")
    splits = opened(root, cache_side=16)
    assert sum(size for _, size in splits.facts.sizes) == 28 + 7
    assert everything(splits.train)[0].shape[1:] == (3, 16, 16)


# --- what cannot be learned from ---------------------------------------------------------------------------------------


def test_no_folder_no_pictures_one_class(root: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data.path must be given"):
        ImageFolder().open()
    assert "No such file or directory" in refused(root)
    root.mkdir()
    assert "holds no pictures in class folders" in refused(root)
    (root / "all.zip").touch()
    assert "(but 1 archive: unpack it first)" in refused(root)
    assert "an archive: unpack it first" in refused(root / "all.zip")
    save(root / "a.png", picture(0))
    assert "(but 1 beside them)" in refused(root)
    fill(root, {"only": 5})
    assert "holds one class only (only)" in refused(root)


def test_layouts_without_one_meaning(root: Path) -> None:
    fill(root / "val")
    assert "holds val, but no train/<class>/<picture>" in refused(root)
    fill(root / "train")
    fill(root / "valid")
    assert "holds val and valid, which both mean validation" in refused(root)


def test_a_class_that_training_has_not(root: Path) -> None:
    fill(root / "train")
    fill(root / "val", {"ant": 2, "wasp": 3, "fly": 1}, start=5000)
    assert "val has classes that train has not: fly (1 picture), wasp (3 pictures); give train pictures of them" in refused(root)


def test_a_class_of_one_picture(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(root / "train", {"ant": 9, "bee": 1})
    assert "too few pictures to hold out test and validation of bee (1); each class needs 3" in refused(root)
    fill(root / "val", {"ant": 2}, start=5000)
    assert "too few pictures to hold out test of bee (1); each class needs 2" in refused(root)
    fill(root / "test", {"ant": 2}, start=6000)
    splits = opened(root, cache_side=8)
    assert splits.facts.class_counts == (9, 1)
    assert "one picture only to train on of bee" in capsys.readouterr().err


def test_the_same_picture_in_two_splits_is_warned_of_and_counted(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(root / "train")
    fill(root / "test", {"ant": 3}, start=5000)
    (root / "test" / "ant" / "copy.png").write_bytes((root / "train" / "ant" / "003.png").read_bytes())
    Image.open(root / "train" / "bee" / "002.png").save(root / "test" / "ant" / "other-format.bmp")  # the same pixels, other bytes
    fill(root / "val", {"ant": 1}, start=6000)
    facts = opened(root, cache_side=12).facts
    assert facts.notes == (("pictures in two splits", 2),)
    assert "2 pictures are in more than one split, such as train/ant/003.png and test/ant/copy.png" in capsys.readouterr().err


def test_bad_files_are_all_named_at_once(root: Path) -> None:
    fill(root)
    (root / "ant" / "000.png").write_bytes((root / "ant" / "000.png").read_bytes()[:200])
    (root / "bee" / "001.png").write_bytes(b"")
    (root / "cow" / "002.png").write_text("hello")
    (root / "cow" / "gone.png").symlink_to(root / "nowhere.png")
    os.mkfifo(root / "cow" / "pipe.png")
    for _ in range(2):  # the second time from the cache
        message = refused(root, cache_side=8)
        assert "5 of 30 files are no whole pictures: " in message
        for words in ("ant/000.png: not a whole picture", "bee/001.png: not a picture", "cow/002.png: not a picture"):
            assert words in message
        assert "cow/gone.png: no such file" in message and "cow/pipe.png: is no regular file" in message
    assert "cow/pipe.png" in refused(root, cache_side=8, cache=False)
    assert "That is more than 1 %" in refused(root, cache_side=8, on_bad="skip")
    for number in range(20):
        (root / "ant" / f"bad-{number:02}.png").touch()
    assert "25 of 50 files" in refused(root) and "; and 15 more" in refused(root)


def test_up_to_one_percent_is_skipped_and_counted(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(root, {"a": 110, "b": 90}, height=6, width=6)
    whole = opened(root, cache_side=6)
    for name in ("a/007.png", "b/003.png"):
        (root / name).write_text("hello")
    splits = opened(root, on_bad="skip", cache_side=6)
    assert splits.facts.notes == (("skipped pictures", 2),)
    assert sum(size for _, size in splits.facts.sizes) == 198
    assert not {"a/007.png", "b/003.png"} & {name for split in (splits.train, splits.validation, splits.test) for name in split.names}
    assert "2 of 200 files are no whole pictures: a/007.png" in capsys.readouterr().err
    for name, image in zip(splits.test.names, everything(splits.test)[0], strict=True):
        assert torch.equal(image, read_fitted(root / name, 3, 6, 6, "crop"))
    assert splits.facts.fingerprint != whole.facts.fingerprint
    assert opened(root, on_bad="skip", cache_side=6, cache=False).facts == splits.facts


@pytest.mark.parametrize("change", ["grown", "gone"])
@pytest.mark.parametrize("cache", [True, False])
def test_a_folder_that_changes_while_it_is_read(root: Path, change: str, cache: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(root)
    victim = root / "cow" / "003.png"

    def changing(path: Path, *rest):
        if path.name == "000.png" and victim.exists():
            victim.unlink() if change == "gone" else victim.write_bytes(victim.read_bytes() + b"more")
        return read_fitted(path, *rest)

    monkeypatch.setattr("torchstone.data.sources.image_folder.read_fitted", changing)
    message = refused(root, cache_side=8, cache=cache, on_bad="skip")
    assert str(victim) in message and ("is gone" if change == "gone" else "changed while the folder was read") in message


def test_a_picture_that_changes_after_opening_is_noticed_where_it_is_decoded_again(root: Path) -> None:
    splits = opened(fill(root), cache_side=8, cache=False)
    save(root / splits.test.names[1], picture(99, height=40))
    with pytest.raises(UserError, match="changed while the folder was read"):
        everything(splits.test)


def test_fields_are_checked_and_the_part_is_read_from_text() -> None:
    for fields, message in (
        ({"cache_side": 0}, r"ImageFolder.cache_side must be from 1 to 4096, or none, got 0"),
        ({"validation": 0.0}, r"ImageFolder.validation must be between 0 and 1, got 0.0"),
        ({"validation": 0.6, "test": 0.5}, "must leave something to train on"),
    ):
        with pytest.raises(ValueError, match=message):
            ImageFolder(**fields)
    assert tree.kind_of(ImageFolder) == "image_folder"


@pytest.mark.slow
def test_real_photographs(shared_data: Path, tmp_path: Path) -> None:
    import zipfile

    for name in ("clothing_train40", "clothing_validation"):
        with zipfile.ZipFile(shared_data / "clothing-small" / f"{name}.zip") as archive:
            for member in archive.namelist():
                archive.extract(member, tmp_path / "clothing")
    splits = opened(tmp_path / "clothing")
    assert splits.facts.inputs == ImageShape(3, 96, 96)
    assert splits.facts.sizes == (("train", 996), ("validation", 341), ("test", 176))
    assert splits.facts.classes == ("dress", "hat", "longsleeve", "outwear", "pants", "shirt", "shoes", "shorts", "skirt", "t-shirt")
    assert torch.bincount(everything(splits.validation)[1]).tolist() == [32, 14, 49, 24, 49, 29, 26, 25, 12, 81]
