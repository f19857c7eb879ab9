"""`doctor --rate` and `explain --picture`: what they print and write, and what they refuse."""

from pathlib import Path

import pytest
from PIL import Image

from cli.small import only_json, refused, snapshot, train
from torchstone.cli import main

SHORT = ["doctor", "digits-mini", "--rate", "--steps", "60", "--low", "1e-5", "run.threads=1"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_rate_prints_and_draws(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SHORT, "optimizer=sgd"]) == 0
    shown = capsys.readouterr().out
    for words in (
        "rate ",
        "smoothed",
        "steepest fall at",
        "minimum/10 is at",
        "try: torchstone train digits-mini",
        "optimizer=sgd optimizer.lr=",
    ):
        assert words in shown
    assert "picture: rate.png" in shown and "▲ steepest" in shown
    assert [path.name for path in here.iterdir()] == ["rate.png"]
    assert Image.open(here / "rate.png").format == "PNG"


def test_rate_as_json_never_overwrites(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "rate.png").write_bytes(b"mine")
    assert main([*SHORT, "--json"]) == 0
    found = only_json(capsys)
    assert (here / "rate.png").read_bytes() == b"mine" and found["picture"] == "rate-2.png" and (here / "rate-2.png").is_file()
    assert len(found["rates"]) == len(found["losses"]) == len(found["smoothed"]) == found["steps"]
    assert found["path"] == "method.optimizer.lr" and found["minimum_tenth"] == pytest.approx(found["minimum"] / 10)


def test_rate_of_a_run_folder_is_that_of_its_experiment(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train("optimizer=sgd", "optimizer.lr=0.05", "run.seed=3", out=here / "run")
    found = []
    for place in ("run", "run/experiment.toml"):
        capsys.readouterr()
        assert main(["doctor", place, *SHORT[2:], "--json"]) == 0
        found.append(only_json(capsys))
    assert found[0]["losses"] == found[1]["losses"] and found[0]["value"] == 0.05
    before = snapshot(here / "run")
    assert main(["doctor", "run", *SHORT[2:]]) == 0
    assert "try: torchstone train run/experiment.toml run.threads=1 optimizer.lr=" in capsys.readouterr().out
    assert snapshot(here / "run") == before


def test_what_the_doctor_refuses(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "there.png").write_bytes(b"mine")
    before = snapshot(here)
    refused(["doctor", "digits-mini", "--only", "loss_at_inti"], 'did you mean "loss_at_init"', capsys=capsys)
    refused(["doctor", "digits-mini", "--out", "there.png"], "it exists already; choose another folder", capsys=capsys)
    refused([*SHORT, "--out", "there.png"], "it exists already", capsys=capsys)
    refused([*SHORT, "--out", "x.jpg"], "a picture is a .png file", capsys=capsys)
    refused([*SHORT, "--out", "no/x.png"], "there is no folder no", capsys=capsys)
    refused([*SHORT, "--high", "1e-6"], "the range of rates must rise", capsys=capsys)
    refused([*SHORT[:2], "--rate", "--steps", "3"], "at least 10 steps", capsys=capsys)
    assert snapshot(here) == before


@pytest.mark.parametrize(
    "edits, words",
    [
        (["schedules=[{kind=cosine,warmup=5000}]"], "method.schedules.0 (cosine on optimizer.lr): warmup is 5000 updates, but the run has"),
        (["schedules=[{kind=multi_step,milestones=[9000]}]"], "the milestone 9000 is never met"),
        (["schedules=[{kind=cosine,path=optimizer}]"], "not a real number"),
        (["schedules=[{kind=cosine,path=optimizer.speed}]"], "the method has no optimizer.speed"),
        (["schedules=[{kind=cyclic,mode=square}]"], "triangular2"),
    ],
)
def test_wrong_schedules_are_one_line(edits: list[str], words: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused(["train", "digits-mini", *edits], words, capsys=capsys)
    assert not list(here.iterdir())


def test_any_schedule_from_an_edit(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edits = ['schedules=[{path="optimizer.lr",kind="cyclic",mode="triangular2",up=4},{kind=wsd,path=loss.smoothing}]', "loss.smoothing=0.1"]
    assert (
        main(
            ["train", "digits-mini", "loss=cross_entropy", *edits, "run.steps=20", "run.threads=1", "run.trackers=[jsonl]", "--out", "run"]
        )
        == 0
    )
    assert "triangular2" in (here / "run" / "experiment.toml").read_text()


def test_explain_draws(here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for name, words in (("gelu", "derivative"), ("cosine", "warmup=0.1"), ("focal", "probability of the true class")):
        assert main(["explain", name, "--picture", f"{name}.png"]) == 0
        shown = capsys.readouterr().out
        assert words in shown and any("\u2800" < sign <= "\u28ff" for sign in shown) and f"picture: {name}.png" in shown
        assert all(len(line) <= 140 for line in shown.splitlines()), name
        assert Image.open(here / f"{name}.png").size[0] > 600
    refused(["explain", "gelu", "--picture", "gelu.png"], "it exists already", capsys=capsys)
    refused(["explain", "sgd", "--picture", "sgd.png"], "sgd has no curve to draw", capsys=capsys)
    refused(["explain", "gelo"], "did you mean 'gelu'", capsys=capsys)


def test_explain_names_the_models_and_the_twin(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "gelu", "--json"]) == 0
    found = only_json(capsys)
    assert {"model": "gpt", "default": True} in found["models"] and found["formula"] and found["papers"]
    (figure,) = found["figures"]
    by_x = {round(x, 6): y for x, y in zip(figure["lines"][0]["x"], figure["lines"][0]["y"], strict=True)}
    assert by_x[0.0] == pytest.approx(0.0, abs=1e-12) and by_x[1.0] == pytest.approx(0.841345, abs=1e-5)
    assert main(["explain", "activation"]) == 0
    assert "squared_relu" in capsys.readouterr().out
