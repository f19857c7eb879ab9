"""Data from elsewhere: classes matched by name, every difference named, the same samples giving the same numbers in every form."""

import gzip
import struct
import unicodedata
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import torchstone
from torchstone.core import errors
from torchstone.core.errors import UserError
from torchstone.data import Digits
from torchstone.ship import Predictor, load
from torchstone.ship.labeled import open_labeled


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    out = tmp_path_factory.mktemp("mlp") / "run"
    torchstone.train(torchstone.recipes.digits_mini(), "run.epochs=1", "run.threads=1", "run.trackers=[]", out=out)
    return load(out)


@pytest.fixture(autouse=True)
def nothing_said_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errors, "_warned", set())


def digits(count: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """(uint8 [N, 8, 8], labels)."""
    x, y = Digits().open().test.fetch(np.arange(count))
    return (x.numpy()[:, 0] * 255).round().astype(np.uint8), y.numpy()


def folder_of(root: Path, x: np.ndarray, y: np.ndarray, names: dict[int, str] | None = None) -> Path:
    for row, (image, label) in enumerate(zip(x, y.tolist(), strict=True)):
        place = root / (names or {}).get(label, str(label))
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{row:03d}.png")
    return root


def idx_of(folder: Path, x: np.ndarray, y: np.ndarray, stem: str = "t10k") -> Path:
    folder.mkdir(exist_ok=True)
    images = struct.pack(">4i", 0x803, *x.shape) + x.tobytes()
    (folder / f"{stem}-images-idx3-ubyte.gz").write_bytes(gzip.compress(images))
    (folder / f"{stem}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 0x801, len(y)) + y.astype(np.uint8).tobytes())
    return folder


def samples_of(split: object) -> tuple[torch.Tensor, torch.Tensor]:
    return split.fetch(np.arange(len(split)))  # type: ignore[attr-defined,arg-type]


def test_every_form_holds_the_same_samples(predictor: Predictor, tmp_path: Path) -> None:
    x, y = digits()
    np.savez(tmp_path / "a.npz", x=x, y=y)
    forms = {
        "all samples": tmp_path / "a.npz",
        "t10k-images-idx3-ubyte.gz": idx_of(tmp_path / "idx", x, y),
        "all pictures": folder_of(tmp_path / "folder", x, y),
    }
    counts = {str(label): int((y == label).sum()) for label in range(10)}
    for part, path in forms.items():
        other = open_labeled(path, predictor)
        images, target = samples_of(other.split)
        assert other.part == part and other.left_out == {}
        assert dict(other.class_counts) == counts
        assert images.dtype == torch.uint8
        found = sorted((label, image.numpy().tobytes()) for image, label in zip(images, target.tolist(), strict=True))
        assert found == sorted((label, image.tobytes()) for image, label in zip(x, y.tolist(), strict=True)), part


def test_of_train_and_test_the_test_is_taken(predictor: Predictor, tmp_path: Path) -> None:
    x, y = digits()
    folder_of(tmp_path / "a" / "train", x, y)
    folder_of(tmp_path / "a" / "Testing", x[:30], y[:30])
    other = open_labeled(tmp_path / "a", predictor)
    assert (other.part, len(other.split)) == ("Testing", 30)
    folder_of(tmp_path / "b" / "test", x[:25], y[:25])
    other = open_labeled(tmp_path / "b", predictor)
    assert (other.part, len(other.split)) == ("test", 25)
    folder_of(tmp_path / "c" / "train", x, y)
    folder_of(tmp_path / "c" / "val", x[:20], y[:20])
    other = open_labeled(tmp_path / "c", predictor)
    assert (other.part, len(other.split)) == ("val", 20)
    idx_of(tmp_path / "d", x[:5], y[:5], "train")
    assert len(open_labeled(tmp_path / "d", predictor).split) == 5
    idx_of(tmp_path / "d", x[:7], y[:7])
    assert len(open_labeled(tmp_path / "d", predictor).split) == 7
    assert len(open_labeled(tmp_path / "d" / "train-images-idx3-ubyte.gz", predictor).split) == 5


def test_classes_match_by_name_not_by_order(predictor: Predictor, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    x, y = digits()
    few = (y == 3) | (y == 7)
    other = open_labeled(folder_of(tmp_path / "a", x[few], y[few]), predictor)
    assert set(samples_of(other.split)[1].tolist()) == {3, 7}
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "has no pictures of 0, 1, 2, 4, 5, 6, 8, 9" in said
    assert other.class_counts["0"] == 0


def test_unknown_classes_are_named_or_left_out(predictor: Predictor, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    x, y = digits()
    path = folder_of(tmp_path / "a", x, y, {3: "three", 4: "vier"})
    threes, fours = int((y == 3).sum()), int((y == 4).sum())
    with pytest.raises(
        UserError, match=rf"does not know three \({threes} pictures\), vier \({fours} pictures\); rename .* --on-unknown skip"
    ):
        open_labeled(path, predictor)
    other = open_labeled(path, predictor, on_unknown="skip")
    assert other.left_out == {"three": threes, "vier": fours}
    assert len(other.split) == len(y) - threes - fours
    assert f"three ({threes} pictures)" in capsys.readouterr().err
    strangers = folder_of(tmp_path / "b", x[y == 3], y[y == 3], {3: "three"})
    for choice in ("refuse", "skip"):
        with pytest.raises(UserError, match="and there are no others; the model's classes are 0, 1"):
            open_labeled(strangers, predictor, on_unknown=choice)  # type: ignore[arg-type]


def test_accents_compare_however_they_are_stored(predictor: Predictor, tmp_path: Path) -> None:
    names = ("blüte", *"123456789")
    facts = replace(predictor.artifact.facts, classes=names)
    german = replace(predictor, artifact=replace(predictor.artifact, facts=facts))
    x, y = digits()
    path = folder_of(tmp_path / "a", x, y, {0: unicodedata.normalize("NFD", "blüte")})
    assert open_labeled(path, german).class_counts["blüte"] == int((y == 0).sum()) > 0


def test_bad_pictures_are_named_or_skipped(predictor: Predictor, tmp_path: Path) -> None:
    x, y = digits(230)
    path = folder_of(tmp_path / "a", x, y)
    label = int(y[0])
    (path / str(label) / "000.png").write_text("text")
    with pytest.raises(UserError, match=r"000\.png: not a picture"):
        open_labeled(path, predictor)
    torn = path / str(int(y[1])) / "001.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)).save(torn)
    torn.write_bytes(torn.read_bytes()[:-900])
    skipped: list[str] = []
    other = open_labeled(path, predictor, skipped=skipped)
    assert len(other.split) == 228 and len(skipped) == 2
    samples_of(other.split)
    (path / str(int(y[2])) / "002.png").write_bytes(b"")
    with pytest.raises(UserError, match="3 of 230 pictures cannot be read, more than 1 %"):
        open_labeled(path, predictor, skipped=[])


def test_what_is_nothing_to_measure_on(predictor: Predictor, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    x, y = digits()
    with pytest.raises(UserError, match="no such file or folder; a folder of class folders"):
        open_labeled(tmp_path / "none", predictor)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no pictures in class folders"):
        open_labeled(tmp_path / "empty", predictor)
    (tmp_path / "a.zip").write_bytes(b"PK")
    with pytest.raises(UserError, match=r"a\.zip: a folder of class folders"):
        open_labeled(tmp_path / "a.zip", predictor)
    idx_of(tmp_path / "idx", x, y + 1)
    with pytest.raises(UserError, match=r"t10k-labels-idx1-ubyte, row .*: is label 10; the model's classes are 0 to 9"):
        open_labeled(tmp_path / "idx", predictor)
    (tmp_path / "idx" / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(UserError, match="its labels, t10k-labels-idx1-ubyte or .*gz, are not beside it"):
        open_labeled(tmp_path / "idx", predictor)
    path = folder_of(tmp_path / "b", x, y)
    (path / "notes.txt").write_text("x")
    Image.fromarray(x[0]).save(path / "lost.png")
    open_labeled(path, predictor)
    assert "pictures in no class folder: 1; files that are no pictures by their names: 1 (.txt)" in capsys.readouterr().err
