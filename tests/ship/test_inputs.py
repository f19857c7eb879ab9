"""What predict is given: all bad files named at once, folders walked in order, pictures fitted as those of the training were."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from torchstone.core import errors
from torchstone.core.errors import UserError
from torchstone.core.protocols import ImageShape, VectorShape
from torchstone.data.decode import SUFFIXES, fitted, read_picture
from torchstone.ship.inputs import Opener, PictureFiles, below, refusal, unreadable

GRAY = ImageShape(1, 8, 8)


@pytest.fixture(autouse=True)
def nothing_said_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errors, "_warned", set())


def draw(path: Path, height: int = 8, width: int = 8, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)).save(path)
    return path


def everything(split: PictureFiles) -> torch.Tensor:
    return split.fetch(np.arange(len(split)))[0]


def test_pictures_come_as_their_bytes(tmp_path: Path) -> None:
    paths = [draw(tmp_path / f"{seed}.png", seed=seed) for seed in range(5)]
    ((names, split),) = Opener(GRAY, "stretch", False).open(paths)
    images, target = split.fetch(np.array([3, 0]))
    assert names == [str(path) for path in paths]
    assert images.dtype == torch.uint8 and target.tolist() == [0, 0]
    np.testing.assert_array_equal(images[0, 0], np.asarray(Image.open(paths[3])))
    assert split.fetch(np.zeros(0, dtype=np.int64))[0].shape == (0, 1, 8, 8)


@pytest.mark.parametrize("fit, how", [("crop", "the middle cut out"), ("stretch", "resized to that"), ("pad", "with borders")])
def test_other_sizes_are_fitted_as_the_run_says_and_told_once(
    fit: str, how: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [draw(tmp_path / "a.png", 7, 20), draw(tmp_path / "b.png"), draw(tmp_path / "c.png", 9, 7), draw(tmp_path / "d.png", 9, 9)]
    ((_, split),) = Opener(GRAY, fit, False).open(paths)  # type: ignore[arg-type]
    assert torch.equal(everything(split)[0], fitted(read_picture(paths[0], 1), 8, 8, fit))  # type: ignore[arg-type]
    said = capsys.readouterr().err
    more = 2 if fit == "stretch" else 1  # a larger picture that is cut or bordered is what the training met too
    assert said.count("\n") == 1 and f"pictures of 8x8: a.png is 20x7 and {more} more" in said and how in said


def test_pictures_keep_their_size_where_a_transform_resizes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ((_, split),) = Opener(GRAY, "stretch", True).open([draw(tmp_path / "a.png", 12, 20)])
    assert everything(split).shape == (1, 1, 12, 20)
    assert capsys.readouterr().err == ""


def test_folders_are_walked_in_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("b/2.png", "a.png", "b/1.JPG", "b/c/ü.png", "z.webp", ".hidden/x.png", ".x.png"):
        draw(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no picture")
    os.symlink(tmp_path, tmp_path / "b" / "loop")
    found = [str(path.relative_to(tmp_path)) for path in below(tmp_path, SUFFIXES)]
    assert found == ["a.png", "b/1.JPG", "b/2.png", "b/c/ü.png", "z.webp"]
    said = capsys.readouterr().err
    assert "1 file that is no pictures left out" in said and "notes.txt" in said


def test_sources_keep_the_order_given(tmp_path: Path) -> None:
    a, b = draw(tmp_path / "a.png"), draw(tmp_path / "b.png")
    np.save(tmp_path / "m.npy", np.zeros((2, 8, 8)))
    names = [name for each, _ in Opener(GRAY, "stretch", False).open([a, tmp_path / "m.npy", b, a]) for name in each]
    assert names == [str(a), f"{tmp_path / 'm.npy'}:0", f"{tmp_path / 'm.npy'}:1", str(b), str(a)]


def damaged(folder: Path) -> tuple[list[Path], list[Path]]:
    """(good, bad by their headers)."""
    good = [draw(folder / f"good{i}.png", seed=i) for i in range(3)]
    (folder / "text.png").write_text("text")
    (folder / "empty.png").write_bytes(b"")
    return good, [folder / "text.png", folder / "empty.png", folder / "gone.png"]


def test_all_bad_files_are_named_at_once(tmp_path: Path) -> None:
    good, bad = damaged(tmp_path)
    with pytest.raises(UserError, match="3 files of 6 cannot be read") as caught:
        Opener(GRAY, "stretch", False).open([*good, *bad])
    assert all(path.name in str(caught.value) for path in bad) and "\n" not in str(caught.value)
    assert "--on-bad skip" in str(caught.value)


def test_bad_files_can_be_skipped(tmp_path: Path) -> None:
    good, bad = damaged(tmp_path)
    skipped: list[str] = []
    ((names, split),) = Opener(GRAY, "stretch", False, skipped).open([good[0], *bad, *good[1:]])
    assert names == [str(path) for path in good] and len(split) == 3
    assert [any(path.name in line for line in skipped) for path in bad] == [True] * 3


def test_what_only_decoding_tells_is_found_row_by_row(tmp_path: Path) -> None:
    paths = [draw(tmp_path / f"{i}.png", 64, 64, i) for i in range(4)]
    for i in (1, 3):
        paths[i].write_bytes(paths[i].read_bytes()[:-600])
    ((_, split),) = Opener(GRAY, "stretch", False).open(paths)
    assert list(unreadable(split, range(4))) == [1, 3]


def test_long_lists_are_cut() -> None:
    message = refusal([f"{i}.png: bad" for i in range(25)], 30)
    assert message.startswith("25 files of 30") and message.endswith("9.png: bad; and 15 more")
    assert refusal(["a.png: bad"], 1) == "a.png: bad"


def test_what_the_model_has_no_use_for(tmp_path: Path) -> None:
    picture = draw(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"this model reads vectors; hand them over as \.npy"):
        Opener(VectorShape(4), "stretch", False).open([picture])
    with pytest.raises(UserError, match="reads 2 channels, a picture has 1, 3 or 4"):
        Opener(ImageShape(2, 8, 8), "stretch", False).open([picture])
    with pytest.raises(UserError, match="no regular file|not a plain file"):
        Opener(GRAY, "stretch", False).open([Path("/dev/null")])
    with pytest.raises(UserError, match=r"holds no \.npy or \.npz files"):
        Opener(VectorShape(4), "stretch", False).open([tmp_path])
