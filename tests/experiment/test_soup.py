"""Soups: the mean of stored weights, who is let in, and a run folder that eval and predict accept."""

import json
from pathlib import Path

import numpy as np
import pytest

import torchstone
from cli.small import only_json, refused
from torchstone.cli import main
from torchstone.cli.eval_ import evaluated
from torchstone.core.errors import UserError
from torchstone.experiment.soup import soup
from torchstone.ship.artifact import read_artifact, read_weights

SETTINGS = ["run.epochs=2", "run.threads=1", "run.trackers=[]"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three runs along one path: the same first weights, another order of samples is not needed to differ in their rates."""
    folder = tmp_path_factory.mktemp("soup")
    made = []
    for name, edits in {"a": ["optimizer.lr=0.002"], "b": ["optimizer.lr=0.004"], "c": ["optimizer.lr=1e-6"]}.items():
        torchstone.train_experiment(torchstone.recipes.RECIPES["digits-mini"](), *SETTINGS, *edits, out=folder / name)
        made.append(folder / name)
    return made


def weights(run: Path) -> dict[str, np.ndarray]:
    return {name: tensor.double().numpy() for name, tensor in read_weights(run, read_artifact(run).weights)[0].items()}


def test_uniform_is_the_mean_of_the_shipped_weights(runs: list[Path], tmp_path: Path) -> None:
    made = soup(runs[:2], tmp_path / "s", by="uniform")
    a, b, s = weights(runs[0]), weights(runs[1]), weights(tmp_path / "s")
    assert s.keys() == a.keys() and made.used == tuple(map(str, runs[:2]))
    for name, tensor in s.items():
        if "running_" not in name and "num_batches" not in name:
            np.testing.assert_allclose(tensor, (a[name] + b[name]) / 2, rtol=1e-6, atol=1e-8, err_msg=name)


def test_greedy_takes_the_best_and_leaves_what_harms(runs: list[Path], tmp_path: Path) -> None:
    made = soup([runs[2], runs[0], runs[1]], tmp_path / "s")
    best = max(made.scores.values())
    assert list(made.scores.values()) == sorted(made.scores.values(), reverse=True)
    assert made.value >= best and str(runs[2]) not in made.used, "one that never learned harms"
    for run, score in made.scores.items():
        found = json.loads((Path(run) / "metrics.json").read_text())["best"]
        assert found[made.metric] >= score - 1e-9 or score == pytest.approx(found[made.metric], abs=0.02)


def test_the_run_is_one_for_every_verb(runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = tmp_path / "s"
    assert main(["soup", str(runs[0]), str(runs[1]), "--out", str(where), "--by", "uniform", "--json"]) == 0
    document = only_json(capsys)
    stored = json.loads((where / "metrics.json").read_text())
    assert document["final"] == stored["final"] and document["by"] == "uniform" and all(row["used"] for row in document["runs"])
    again = evaluated(where)
    assert again["final"]["accuracy"] == stored["final"]["accuracy"] > 0.5
    images = np.zeros((2, 1, 8, 8), dtype=np.float32)
    assert len(torchstone.load(where, device="cpu").predict(images)) == 2
    assert json.loads((where / "environment.json").read_text())["soup"]["used"] == [str(run) for run in runs[:2]]
    assert main(["runs", str(tmp_path)]) == 0 and (where / "report.html").is_file()


def test_what_cannot_be_averaged(runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="two different runs"):
        soup([runs[0]])
    with pytest.raises(UserError, match="two different runs"):
        soup([runs[0], runs[0]])
    other = tmp_path / "other"
    torchstone.train_experiment(torchstone.recipes.RECIPES["digits-mini"](), "run.epochs=1", "run.trackers=[]", "model=mlp", out=other)
    refused(["soup", str(runs[0]), str(other)], "its model is not that of", capsys=capsys)
    refused(["soup", str(runs[0]), str(tmp_path / "none")], "no such run folder", capsys=capsys)
    with pytest.raises(UserError, match="it exists already"):
        soup(runs[:2], runs[2])


def test_batch_norm_statistics_are_those_of_the_mean(runs: list[Path], tmp_path: Path) -> None:
    """Twice the same weights under two names: the mean is them, and only the statistics are new."""
    import shutil

    shutil.copytree(runs[0], tmp_path / "copy")
    soup([runs[0], tmp_path / "copy"], tmp_path / "s", by="uniform")
    one, mean = weights(runs[0]), weights(tmp_path / "s")
    for name, tensor in mean.items():
        if "running_" in name:
            assert not np.array_equal(tensor, one[name])
        else:
            np.testing.assert_array_equal(tensor, one[name])
