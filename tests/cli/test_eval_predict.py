"""`eval` and `predict` on real runs: the numbers of training, from the command line."""

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cli.small import TINY_GPT, only_json, refused, snapshot, train
from torchstone.cli import main
from torchstone.data import Digits

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two finished runs, digits and gpt."""
    folder = tmp_path_factory.mktemp("runs")
    train("run.evaluation_batch_size=100", out=folder / "digits")
    train(*TINY_GPT, out=folder / "gpt")
    return folder


@pytest.fixture
def digit_arrays() -> tuple[np.ndarray, np.ndarray]:
    x, y = Digits().open().test.fetch(np.arange(20))
    return x.numpy(), y.numpy()


def final(run: Path) -> dict[str, Any]:
    return json.loads((run / "metrics.json").read_text())["final"]


# --- eval ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["digits", "gpt"])
def test_eval_equals_the_metrics_of_the_run(name: str, runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = snapshot(runs / name)
    assert main(["eval", str(runs / name), "--json"]) == 0
    document = only_json(capsys)
    assert document["final"] == final(runs / name)
    assert document["status"] == "done" and document["cost"]["parameters"] > 0
    assert main(["eval", str(runs / name)]) == 0
    text = capsys.readouterr().out
    assert all(f"{value:.4f}" in text for value in final(runs / name).values() if isinstance(value, float))
    assert snapshot(runs / name) == before


@pytest.mark.slow
def test_eval_by_two_ranks_gives_the_same_counts(runs: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "torchstone"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "eval", str(runs / "digits"), "--json"], env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    found, expected = json.loads(done.stdout)["final"], final(runs / "digits")
    assert found["accuracy"] == expected["accuracy"] and found["confusion"] == expected["confusion"]
    assert found["loss"] == pytest.approx(expected["loss"], rel=1e-12)


def test_eval_on_other_arrays_takes_all_samples(runs: Path, tmp_path: Path, digit_arrays: Any, capsys: pytest.CaptureFixture[str]) -> None:
    x, y = digit_arrays
    np.savez(tmp_path / "plain.npz", x=x, y=y)
    np.savez(tmp_path / "cut.npz", x_train=x[:5, 0], y_train=y[:5], x_test=x[5:, 0], y_test=y[5:])
    documents = []
    for name in ("plain.npz", "cut.npz"):
        assert main(["eval", str(runs / "digits"), "--data", str(tmp_path / name), "--json"]) == 0
        documents.append(only_json(capsys)["final"])
    assert documents[0] == documents[1]
    assert sum(map(sum, documents[0]["confusion"])) == 20
    np.savez(tmp_path / "one.npz", x=x[:1], y=y[:1])
    assert main(["eval", str(runs / "digits"), "--data", str(tmp_path / "one.npz")]) == 0


def test_eval_on_other_text_takes_every_byte(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.txt").write_text("def main():\n    return 0\n" * 3)
    assert main(["eval", str(runs / "gpt"), "--data", str(tmp_path / "a.txt"), "--json"]) == 0
    assert 4 < only_json(capsys)["final"]["bits_per_byte"] < 12
    (tmp_path / "one.txt").write_text("a")
    refused(["eval", str(runs / "gpt"), "--data", str(tmp_path / "one.txt")], "holds 1 bytes", capsys=capsys)
    refused(["eval", str(runs / "gpt"), "--data", str(tmp_path / "no.txt")], "no.txt", "cannot be read", capsys=capsys)


def test_eval_refuses_data_that_do_not_fit(runs: Path, tmp_path: Path, digit_arrays: Any, capsys: pytest.CaptureFixture[str]) -> None:
    x, y = digit_arrays
    path = tmp_path / "a.npz"
    for arrays, words in [
        ({"x": x, "y": y + 1}, ("array y", "is label 10", "0 to 9")),
        ({"x": x, "y": y[:-1]}, ("labels are whole numbers [20]",)),
        ({"x": x, "y": y.astype(float)}, ("labels are whole numbers",)),
        ({"x": x[:, :, :7], "y": y}, ("array x", "[N, 1, 8, 8]")),
        ({"x": np.where(np.arange(20)[:, None, None, None] == 7, np.nan, x), "y": y}, ("array x, row 7", "NaN")),
        ({"z": x}, ("no arrays x and y; found z",)),
    ]:
        np.savez(path, **arrays)
        refused(["eval", str(runs / "digits"), "--data", str(path)], "a.npz", *words, capsys=capsys)
    refused(["eval", str(runs / "digits"), "--data", str(tmp_path / "a.csv")], ".npz file", capsys=capsys)


# --- predict ---------------------------------------------------------------------------------------------------------


def test_predict_pictures(runs: Path, tmp_path: Path, digit_arrays: Any, capsys: pytest.CaptureFixture[str]) -> None:
    x, _ = digit_arrays
    paths = []
    for row in range(3):
        paths.append(str(tmp_path / f"{row}.png"))
        Image.fromarray((x[row, 0] * 255).astype(np.uint8)).save(paths[-1])
    assert main(["predict", str(runs / "digits"), *paths, "--json"]) == 0
    answers = only_json(capsys)
    assert [answer["input"] for answer in answers] == paths
    assert all(answer["label"] == max(answer["probabilities"], key=answer["probabilities"].get) for answer in answers)
    assert main(["predict", str(runs / "digits"), *paths]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(line.startswith(f"{path}: {answer['label']}") for line, path, answer in zip(lines, paths, answers, strict=True))


def test_predict_arrays_beside_pictures(runs: Path, tmp_path: Path, digit_arrays: Any, capsys: pytest.CaptureFixture[str]) -> None:
    x, _ = digit_arrays
    np.savez(tmp_path / "a.npz", x=x)
    Image.fromarray((x[0, 0] * 255).astype(np.uint8)).save(tmp_path / "a.png")
    assert main(["predict", str(runs / "digits"), str(tmp_path / "a.npz"), str(tmp_path / "a.png"), "--json"]) == 0
    answers = only_json(capsys)
    assert len(answers) == 21 and answers[19]["input"].endswith("a.npz:19") and answers[20]["input"].endswith("a.png")


def test_a_run_that_resizes_takes_pictures_of_any_size(in_tmp: Path, digit_arrays: Any, capsys: pytest.CaptureFixture[str]) -> None:
    train("model=conv_net", "model.widths=[8]", "sample_transforms+={kind=resize,height=12,width=10}", "epochs=1", out=in_tmp / "a")
    capsys.readouterr()
    assert main(["eval", "a", "--json"]) == 0
    assert only_json(capsys)["final"] == final(in_tmp / "a")
    for row, side in enumerate((8, 12, 20)):
        Image.fromarray((digit_arrays[0][row, 0] * 255).astype(np.uint8)).resize((side, side)).save(f"{row}.png")
    np.savez("a.npz", x=digit_arrays[0])
    assert main(["predict", "a", "0.png", "1.png", "2.png", "a.npz", "--json"]) == 0
    shown = capsys.readouterr()
    assert shown.err == "" and len(json.loads(shown.out)) == 23
    assert main(["train", "a/experiment.toml", "--dry-run"]) == 0
    np.savez("labeled.npz", x=digit_arrays[0], y=digit_arrays[1])
    assert main(["eval", "a", "--data", "labeled.npz"]) == 0


def test_predict_refuses_what_it_cannot_read(runs: Path, tmp_path: Path, digit_arrays: Any, capsys: pytest.CaptureFixture[str]) -> None:
    run, good = str(runs / "digits"), str(tmp_path / "good.npz")
    np.savez(good, x=digit_arrays[0])
    (tmp_path / "a.png").write_text("text")
    refused(["predict", run, good, str(tmp_path / "none.png")], "none.png: no such file", capsys=capsys)
    refused(["predict", run, good, str(tmp_path / "a.png")], "a.png: not a picture", capsys=capsys)
    (tmp_path / "empty").mkdir()
    refused(["predict", run, str(tmp_path / "empty")], "empty: holds no pictures", capsys=capsys)
    refused(["predict", run, good, "--temperature", "1"], "--temperature is for language runs", capsys=capsys)
    refused(["predict", str(tmp_path), good], "not a run folder", capsys=capsys)


def test_predict_continues_a_prompt(runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["predict", str(runs / "gpt"), "--count", "8", "--seed", "1", "--json"]
    assert main([*command, "def "]) == 0
    (answer,) = only_json(capsys)
    assert answer["input"] == "def " and answer.keys() == {"input", "text"}
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"def ")))
    assert main([*command, "-"]) == 0
    assert only_json(capsys) == [answer]
    assert main([*command, "--", "--x"]) == 0
    assert only_json(capsys)[0]["input"] == "--x"
    assert main(["predict", str(runs / "gpt"), "--count", "4", "--temperature", "0", "--top-k", "3", "im"]) == 0
    assert capsys.readouterr().out.startswith("im")
    refused(["predict", str(runs / "gpt"), ""], "prompt is empty", capsys=capsys)
    refused(["predict", str(runs / "gpt"), "a", "--top-k", "-3"], "top_k must be >= 0", capsys=capsys)


# --- damaged runs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["eval", "predict"])
def test_a_flipped_bit_falls_back_and_says_so(
    verb: str, runs: Path, tmp_path: Path, digit_arrays: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree(runs / "digits", tmp_path / f"run-{verb}"))
    np.savez(tmp_path / "a.npz", x=digit_arrays[0])
    path = run / "checkpoints/step-40/model.safetensors"
    content = bytearray(path.read_bytes())
    content[-9] ^= 4
    path.write_bytes(content)
    assert main([verb, str(run), *([str(tmp_path / "a.npz")] if verb == "predict" else [])]) == 0
    shown = capsys.readouterr()
    assert shown.err.startswith("warning: ") and shown.err.count("\n") == 1
    assert "step-40/model.safetensors" in shown.err and "tensor" in shown.err and "step-20" in shown.err
    assert verb == "predict" or "step-20" in shown.out


@pytest.mark.parametrize("verb", ["eval", "predict"])
def test_what_is_no_run_is_refused(verb: str, runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rest = ["x.png"] if verb == "predict" else []
    refused([verb, str(tmp_path / "none"), *rest], "no such run folder", capsys=capsys)
    refused([verb, str(tmp_path), *rest], "not a run folder", capsys=capsys)
    run = Path(shutil.copytree(runs / "digits", tmp_path / "run"))
    document = json.loads((run / "artifact.json").read_text())
    (run / "artifact.json").write_text(json.dumps({**document, "version": 99}))
    refused([verb, str(run), *rest], "another version", "99", capsys=capsys)
    (run / "artifact.json").write_text(json.dumps(document)[:-20])
    refused([verb, str(run), *rest], "artifact.json", capsys=capsys)
    (run / "artifact.json").write_text(json.dumps(document))
    shutil.rmtree(run / "checkpoints")
    refused([verb, str(run), *rest], "no checkpoint yet", capsys=capsys)
