"""What the data decide of the model, and is said; and what an interruption says that comes before the first step."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from torchstone.cli import main
from torchstone.core import tree
from torchstone.core.protocols import ImageShape
from torchstone.experiment import load_experiment, prepare
from torchstone.experiment.running import chosen_lines
from torchstone.models import ResnetConfig
from torchstone.recipes import RECIPES

QUICK = ("run.epochs=1", "run.speed=plain", "run.threads=1", "run.trackers=[]", "run.batch_size=16")


def pictures(folder: Path, side: int) -> Path:
    draw = np.random.default_rng(0)
    for k in range(2):
        place = folder / f"c{k}"
        place.mkdir(parents=True)
        for i in range(12):
            Image.fromarray((draw.integers(0, 120, (side, side, 3)) + 90 * k).astype(np.uint8)).save(place / f"{i}.png")
    return folder


@pytest.mark.parametrize(("side", "width"), [(16, 16), (24, 16), (28, 32), (40, 32), (64, 64)])
def test_small_pictures_get_a_narrow_network(side: int, width: int, tmp_path: Path) -> None:
    experiment = RECIPES["image-folder"]()
    prepared = prepare(experiment, f"data.path={pictures(tmp_path / 'p', side)}", f"data.cache_side={side}", *QUICK)
    assert isinstance(prepared.experiment.model, ResnetConfig) and prepared.experiment.model.width == width
    assert prepared.model.stem.weight.shape[0] == width  # type: ignore[union-attr]
    assert chosen_lines(prepared) == [
        f"model: model.stem=small model.width={width} chosen for pictures of {side} x {side}; an edit sets another"
    ]
    asked = prepare(experiment, f"data.path={tmp_path / 'p'}", f"data.cache_side={side}", "model.width=8", "model.stem=imagenet", *QUICK)
    assert asked.experiment.model == ResnetConfig(width=8, stem="imagenet") and not chosen_lines(asked)


def test_a_width_that_is_open_builds_what_it_is_fixed_to() -> None:
    inputs = ImageShape(3, 32, 30)
    names = [(name, tuple(p.shape)) for name, p in ResnetConfig(width=None).build(inputs, 5).named_parameters()]
    assert names == [(name, tuple(p.shape)) for name, p in ResnetConfig(width=32).build(inputs, 5).named_parameters()]
    with pytest.raises(ValueError, match="width must be >= 1"):
        ResnetConfig(width=0)


def test_the_run_says_it_and_its_file_keeps_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = pictures(tmp_path / "p", 20)
    assert main(["train", "image-folder", f"data.path={data}", *QUICK, "--out", str(tmp_path / "run")]) == 0
    said = capsys.readouterr().err.splitlines()
    assert "model: model.stem=small model.width=16 chosen for pictures of 20 x 20; an edit sets another" in said
    assert "data: train 16, validation 4, test 4" in said
    assert "data: test is 4 of 24, held out stratified by class, the same for every seed" in said
    stored = load_experiment(tmp_path / "run" / "experiment.toml")
    assert not chosen_lines(prepare(stored)) and tree.diff(stored.model, ResnetConfig(width=16, stem="small")) == []


# --- interruptions ---------------------------------------------------------------------------------------------------


def test_an_interruption_while_getting_ready_says_what_it_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    data = pictures(tmp_path / "p", 20)
    assert main(["train", "image-folder", f"data.path={data}", *QUICK, "--out", "run"]) == 0
    before = sorted(tmp_path.rglob("*"))

    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("torchstone.experiment.running.prepare", stopped)
    capsys.readouterr()
    assert main(["train", "image-folder", f"data.path={data}", *QUICK]) == 130
    assert "error: interrupted while getting ready: no run folder was made yet" in capsys.readouterr().err
    assert main(["train", "image-folder", f"data.path={data}", *QUICK, "--out", "run", "--resume"]) == 130
    assert "error: interrupted while getting ready: run is as it was" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


def test_an_unreadable_folder_is_told_to_be_taken_for_a_class(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import os

    data, scan = pictures(tmp_path / "p", 20), os.scandir

    def guarded(path: object) -> object:
        if Path(str(path)).name == "c1":
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "scandir", guarded)
    assert main(["train", "image-folder", f"data.path={data}", "--dry-run"]) == 2
    error = capsys.readouterr().err
    assert f"{data}/c1 cannot be read (Permission denied), and every folder in {data} is taken for a class with its pictures" in error
    assert "the layout is <class>/<picture>" in error


def test_one_picture_is_a_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "p"
    for k in range(2):
        (data / f"c{k}").mkdir(parents=True)
        for i in range(60):
            Image.fromarray(np.full((8, 8, 3), 100 * k + i, np.uint8)).save(data / f"c{k}" / f"{i}.png")
    (data / "c0" / "bad.png").write_bytes(b"")
    assert main(["train", "image-folder", f"data.path={data}", "data.on_bad=skip", *QUICK, "--out", str(tmp_path / "run")]) == 0
    assert "data: 1 skipped picture\n" in capsys.readouterr().err
