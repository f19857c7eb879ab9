"""What the page says of a run, whole or with pieces missing."""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix, f1_score

from report.reading_page import seen
from report.sample_run import CLASSES, artifact, environment, log, metrics, sample_run, scores, write_json
from torchstone import report
from torchstone.core.errors import UserError
from torchstone.report.reading import read_run

ALL = [
    "curves",
    "confusion",
    "classes",
    "mistakes",
    "augmentation",
    "ranking",
    "calibration",
    "data",
    "experiment",
    "speed",
    "environment",
    "use",
]


def changed(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    document = json.loads(path.read_text())
    change(document)
    write_json(path, document)


def test_a_whole_run_has_every_section_in_order(made: Path) -> None:
    assert report.write(made) == made / "report.html"
    page = seen((made / "report.html").read_text(encoding="utf-8"))
    assert page.ids() == ALL
    assert [attributes["href"] for tag, attributes in page.tags if tag == "a"] == [f"#{name}" for name in ALL]
    assert "Not everything could be read" not in page.text


def test_the_numbers_of_the_training_split_stand_beside_those_of_the_validation_split(made: Path) -> None:
    assert "On the whole training split" not in seen(report.page(made)).text
    both = {"training": {"accuracy": 0.9991, "loss": 0.0123}, "validation": {"accuracy": 0.951, "loss": 0.25}}
    changed(made / "metrics.json", lambda document: document.update(both))
    said = "On the whole training split accuracy 99.9 %, on validation 95.1 %, loss 0.0123, on validation 0.25."
    assert said in seen(report.page(made)).text.replace("\xa0", " ")


def test_the_headline_says_what_was_trained_and_how_well(made: Path) -> None:
    page = seen(report.page(made))
    outputs, target = scores(2000, 10)
    right = int((outputs.argmax(axis=1) == target).sum())
    assert "A fast_conv_net of 1,972,792 parameters learned 10 classes from 49,000 gray 28 \u00d7 28 images in 1,536 steps" in page.text
    assert f"Right on {right:,} of 2,000 test samples" in page.text
    assert f"{right / 20:.1f} % accuracy" in page.text
    interval = binomtest(right, 2000).proportion_ci(method="wilson")
    assert f"95 % interval {100 * interval.low:.1f} % to {100 * interval.high:.1f} %" in page.text
    assert "5 min 3 s" in page.text and "1.8 GB" in page.text


def test_the_classes_are_scikit_learns_without_per_class_numbers(made: Path) -> None:
    """From the confusion matrix alone."""
    changed(made / "metrics.json", lambda document: document["final"].pop("per_class"))
    page = seen(report.page(made))
    outputs, target = scores(2000, 10)
    scored = sorted(f1_score(target, outputs.argmax(axis=1), average=None))
    section = page.text[page.text.index("class test precision recall F1") : page.text.index("The test pictures")]
    shares = [float(text) for text in re.findall(r"([0-9.]+) %", re.sub(r"taken for \S+( boot)? [0-9.]+ %", "", section))]
    assert shares[2::3] == [round(100 * score, 1) for score in scored]


def test_the_matrix_is_scikit_learns(made: Path) -> None:
    outputs, target = scores(2000, 10)
    expected = confusion_matrix(target, outputs.argmax(axis=1))
    page = seen(report.page(made))
    cells = [attributes["title"] for tag, attributes in page.tags if tag == "td" and ", called " in attributes.get("title", "")]
    assert len(cells) == np.count_nonzero(expected)
    for i, j in zip(*np.nonzero(expected), strict=True):
        assert any(cell.startswith(f"{CLASSES[i]}, called {CLASSES[j]}: {expected[i, j]} of {expected[i].sum()} (") for cell in cells)


def test_edits_are_marked_in_words_where_they_stand(made: Path) -> None:
    page = seen(report.page(made))
    for words in ("averaging ema edited: was none", "alpha 0.4 edited: was 0.2", "epochs 8 edited: was 12"):
        assert words in page.text
    assert page.text.count("edited:") == 3 and "3 edits" in page.text


@pytest.mark.parametrize("path", ["method.batch_transforms.1.alpha", "method.batch_transforms.mixup.alpha"])
def test_an_element_goes_by_index_or_kind(made: Path, path: str) -> None:
    changed(made / "environment.json", lambda d: d.update(edits=[{"path": path, "before": "0.2", "after": "0.4"}]))
    assert "alpha 0.4 edited: was 0.2" in seen(report.page(made)).text


def test_an_edited_list_and_a_place_that_is_gone(made: Path) -> None:
    edits = [{"path": "method.batch_transforms", "before": "[]", "after": "[flip, mixup]"}, {"path": "no.more", "before": "1", "after": ""}]
    changed(made / "environment.json", lambda d: d.update(edits=edits))
    page = seen(report.page(made))
    assert "batch_transforms edited: was []" in page.text and "no.more 1 nothing" in page.text


@pytest.mark.parametrize(
    ("gone", "sections"),
    [
        ("pictures", ["mistakes", "augmentation"]),
        ("predictions.safetensors", ["ranking", "calibration"]),
        ("log.jsonl", ["curves"]),
        ("experiment.toml", ["experiment"]),
        ("environment.json", ["speed", "environment"]),
        ("artifact.json", ["data"]),
        ("metrics.json", ["confusion", "classes"]),
    ],
)
def test_what_is_missing_is_left_out(made: Path, gone: str, sections: list[str]) -> None:
    path = made / gone
    if path.is_dir():
        for file in path.iterdir():
            file.unlink()
        path.rmdir()
    else:
        path.unlink()
    page = seen(report.page(made))
    assert page.ids() == [name for name in ALL if name not in sections]
    assert (f"{gone} is missing" in page.text) == (gone in ("experiment.toml", "environment.json", "artifact.json"))


def test_a_language_run(tmp_path: Path) -> None:
    run = sample_run(tmp_path / "run")
    for name in ("predictions.safetensors", "pictures/index.json"):
        (run / name).unlink()
    facts = {"inputs": {"kind": "token_shape", "vocabulary": 256, "length": 32}, "classes": [], "sizes": [["train", 1499], ["test", 188]]}
    write_json(run / "artifact.json", artifact([], 1) | {"task": {"kind": "language"}, "model": {"kind": "gpt"}, "facts": facts})
    final = {"loss": 3.0719, "bits_per_byte": 4.4318, "accuracy": 0.2867}
    write_json(
        run / "metrics.json", metrics(np.eye(2, dtype=np.int64), ["a", "b"]) | {"final": final, "best": {"selected_by": "bits_per_byte"}}
    )
    lines = [json.dumps({"step": 9, "eval": {"loss": 3.0, "bits_per_byte": 4.4}}), json.dumps({"step": 9, "loss": 3.1, "lr": 0.1})]
    (run / "log.jsonl").write_text("\n".join(lines) + "\n")
    page = seen(report.page(run))
    assert "4.432 bits per byte smaller is better" in page.text and "learned from 1,499 windows of 32 tokens" in page.text
    # Tokens of one text are not independent, and nobody says how many: no interval.
    assert "interval" not in page.text
    assert "torchstone predict" in page.text and "'Once upon a time'" in page.text
    assert page.ids() == ["curves", "data", "experiment", "speed", "environment", "use"]


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ("diverged", "The loss or its gradient stopped being finite at step 30; no update was made from it"),
        ("interrupted", "Interrupted at step 30: there is no test result yet"),
    ],
)
def test_a_run_without_a_result(made: Path, status: str, words: str) -> None:
    write_json(
        made / "metrics.json",
        {"final": {}, "best": {"step": 20, "selected_by": "accuracy", "accuracy": 0.5}, "status": status, "steps": 30},
    )
    (made / "predictions.safetensors").unlink()
    (made / "log.jsonl").write_text('{"step": 10, "loss": 2.0}\n{"step": 20, "loss": null}\n{"step": 20, "eval": {"accuracy": 0.5}}\n')
    page = seen(report.page(made))
    assert words in page.text and "Best on the validation split: accuracy 50.0 % at step 20." in page.text
    assert "The loss was not finite at step 20." in page.text
    assert "--resume" in page.text and "was to learn" in page.text


def test_a_run_that_goes_on(made: Path) -> None:
    (made / "metrics.json").unlink()
    (made / "predictions.safetensors").unlink()
    page = seen(report.page(made))
    assert "not finished yet" in page.text and "the run has not come to its end" in page.text


def test_no_run_at_all(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(UserError, match="run folder") as error:
            report.page(folder)
        assert "\n" not in str(error.value)


def test_accuracy_of_the_kept_predictions_where_there_is_no_matrix(made: Path) -> None:
    changed(made / "metrics.json", lambda d: d.update(final={"accuracy": 0.9235, "loss": 0.2}))
    page = seen(report.page(made))
    assert "Right on 1,835 of 2,000" in page.text and "confusion" not in page.ids()


def test_undefined_numbers_are_dashes(made: Path) -> None:
    def undefine(document: dict[str, Any]) -> None:
        document["final"]["per_class"][3] |= {"precision": None, "f1": None}
        document["final"]["macro_f1"] = None

    changed(made / "metrics.json", undefine)
    page = seen(report.page(made))
    assert "dress" in page.text and "\u2013" in page.text and "macro F1 mean" not in page.text


def test_the_commands_survive_a_shell(tmp_path: Path) -> None:
    run = sample_run(tmp_path / "my 'own' runs; rm -rf $HOME")
    page = seen(report.page(run))
    code = [page.words[i] for i in range(len(page.words)) if page.words[i].startswith("torchstone predict ")]
    assert shlex.split(code[0]) == ["torchstone", "predict", str(run), "picture.jpg"]


def test_the_same_run_gives_the_same_page(made: Path) -> None:
    assert report.page(made) == report.page(made)


def test_many_classes_have_pairs_instead_of_a_matrix(tmp_path: Path) -> None:
    names = [f"class {i}" for i in range(200)]
    run = sample_run(tmp_path / "run", n=4000, classes=names)
    html = report.page(run)
    page = seen(html)
    assert "matrix" not in [attributes.get("class") for _, attributes in page.tags] and "the largest errors of 200 classes" in page.text
    assert "80 classes between" in page.text and "140 classes more" in page.text
    assert len(html) < 400_000


def test_the_report_needs_no_torch_and_no_matplotlib(made: Path) -> None:
    code = f"""
import sys
from pathlib import Path
from torchstone import report
report.page(Path({str(made)!r}))
assert not {{"torch", "matplotlib"}} & sys.modules.keys()
"""
    source = Path(__file__).resolve().parents[2] / "src"
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(source)}, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_sample_is_what_a_run_writes(made: Path) -> None:
    """The fixture against the keys the report reads."""
    files = read_run(made)
    assert files.task == "classify" and files.classes(99) == CLASSES and not files.problems
    assert environment()["edits"] and log()[0]["step"] == 1
