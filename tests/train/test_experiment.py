"""The experiment: what is filled in, what a resumed run may change, and the Python API around it."""

import json
import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import torchstone
from data.folder_of_pictures import fill
from laws.cases import TinyImages, write_idx
from torchstone.core import files, tree
from torchstone.core.errors import UserError, WorkError
from torchstone.core.json_text import to_json
from torchstone.core.protocols import ImageShape
from torchstone.experiment import Experiment, load_experiment, prepare, train_experiment
from torchstone.losses import CrossEntropy
from torchstone.models import MLPConfig
from torchstone.recipes import RECIPES
from torchstone.tasks import Classify
from torchstone.train.method import Method
from torchstone.train.settings import Run
from train.small import CONV, EVERY, MLP, STEPS, ending, flip, train


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run. Not to be changed."""
    return train(tmp_path_factory.mktemp("done") / "run", "run.keep=3", base=CONV).folder


@pytest.fixture
def copied(done: Path, tmp_path: Path) -> Path:
    return shutil.copytree(done, tmp_path / "run")


def back_to(run: Path, step: int) -> None:
    """The run as a kill after that checkpoint would have left it."""
    for later in range(step + EVERY, STEPS + 1, EVERY):
        shutil.rmtree(run / "checkpoints" / f"step-{later}")
    (run / "metrics.json").unlink(missing_ok=True)


# --- prepare -----------------------------------------------------------------------------------------------------------


def test_everything_that_depends_on_the_data_or_the_machine_is_written_in() -> None:
    prepared = prepare(torchstone.recipes.digits_mini(), "batch_transforms=[normalize,mixup]", "loss=none")
    tree_ = prepared.experiment
    assert isinstance(tree_.method.loss, CrossEntropy)
    normalize, mixup = tree_.method.batch_transforms
    assert normalize.mean == prepared.facts.mean and normalize.std == prepared.facts.std
    assert mixup.classes == 10
    assert tree_.run.device in ("cpu", "cuda:0") and tree_.run.threads >= 1
    assert prepared.macs == 64 * 64 + 64 * 10


def test_balanced_weights_are_concrete() -> None:
    loss = prepare(torchstone.recipes.digits_mini(), "loss.weighting=balanced").experiment.method.loss
    assert len(loss.class_weights) == 10


NEED_DATA = {"fashion", "image-folder", "finetune", "resnet-cifar"}


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_prepared_experiment_is_its_own_fixed_point_and_its_toml(recipe: str, tmp_path: Path) -> None:
    made = RECIPES[recipe]()
    if recipe in NEED_DATA:
        fill(tmp_path / "pictures")
        write_idx(tmp_path)
        edits = {"fashion": f"data.path={tmp_path}"}.get(recipe, f"data.path={tmp_path}/pictures")
        made = tree.edit(made, [edits, "run.batch_size=4", "run.speed=plain", *(["data.classes=[]"] if recipe == "fashion" else [])])
    if recipe == "finetune":
        made = tree.edit(made, [f"model.path={train(tmp_path / 'body', base=CONV).folder}"])
    if recipe == "gpt-bytes":
        made = tree.edit(made, ["data.max_bytes=20000", "model.dim=32", "run.batch_size=4"])
    prepared = prepare(made)
    again = tree.from_toml(Experiment, tree.to_toml(prepared.experiment), tmp_path / "x.toml")
    assert again == prepared.experiment
    second = prepare(again)
    assert second.experiment == prepared.experiment
    first_weights, weights = prepared.model.state_dict(), second.model.state_dict()
    assert all(torch.equal(first_weights[name], weights[name]) for name in first_weights)


def test_first_weights_depend_on_the_seed_alone() -> None:
    def weight(*edits: str) -> torch.Tensor:
        return prepare(torchstone.recipes.digits_mini(), *edits).model.head.weight

    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    first = weight()
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(2)
    assert torch.equal(first, weight("run.epochs=3", "optimizer=sgd"))
    assert not torch.equal(first, weight("run.seed=1"))


@pytest.mark.parametrize("model", ["model=conv_net", "model=mlp"])
def test_resize_reshapes_what_the_model_expects(model: str, tmp_path: Path) -> None:
    edits = (model, "sample_transforms=[{kind='resize', height=6, width=7}]")
    prepared = prepare(torchstone.recipes.digits_mini(), *edits)
    assert prepared.facts.inputs == ImageShape(1, 6, 7)
    assert prepared.macs is not None
    if model == "model=mlp":
        assert prepared.model.hidden[0].in_features == 42
        assert prepared.macs == 42 * 128 + 128 * 10
    else:
        assert prepared.macs < prepare(torchstone.recipes.digits_mini(), model).macs
    run = train(tmp_path / "run", *edits, "run.steps=2", "run.threads=1", "run.batch_size=256", "trackers=[]", base=())
    assert tree.get(load_experiment(run.folder / "experiment.toml"), "method.sample_transforms.0.width") == 7


@pytest.mark.parametrize(
    "edits, message",
    [
        (["run.batch_size=5000"], r"run\.batch_size is 5000, but the training split has 1257 samples"),
        (["batch_transforms=[mixup]", "run.microbatch_size=3"], r"run\.microbatch_size is 3.*groups of 2"),
        (["model=gpt"], r"model=?.?gpt"),
        (["task=language"], "language"),
        (["run.device=tpu"], r"run\.device=tpu"),
        (["run.device=cuda:99"], r"run\.device=cuda:99"),
        (["loss=fokal"], "focal"),
        (["method.schedules.0.path=optimizer.lrr"], r"optimizer\.lrr"),
        (["run.activation_checkpointing=true"], r"run\.activation_checkpointing"),
        (["model.hidden=[100000000000000]"], "memory"),
        (["run.name=" + "x" * 300], r"run\.name"),
    ],
    ids=lambda value: value[0][:40] if isinstance(value, list) else "",
)
def test_what_cannot_be_trained_is_refused_before_anything_is_written(edits: list[str], message: str, in_tmp: Path) -> None:
    with pytest.raises((UserError, WorkError), match=message) as refused:
        train(None, *edits, base=("run.threads=1", "trackers=[]"))
    assert list(in_tmp.iterdir()) == []
    assert "\n" not in str(refused.value)


# --- the Python API ----------------------------------------------------------------------------------------------------


def test_the_python_api(in_tmp: Path) -> None:
    run = torchstone.train(torchstone.recipes.digits_mini(), *MLP, "method.averaging=ema")
    assert run.folder == in_tmp / "runs" / "python" / "run" and run.status == "done"
    assert json.loads(to_json(run.metrics)) == json.loads((run.folder / "metrics.json").read_text())
    assert (run.folder / "report.html").is_file()
    assert load_experiment(run.folder / "experiment.toml").method.averaging is not None
    again = train_experiment(torchstone.recipes.digits_mini(), *MLP, recipe="digits-mini")
    assert again.folder == in_tmp / "runs" / "digits-mini" / "run"
    assert train(None, "run.name=other").folder.name == "other"
    with pytest.raises(UserError, match="exists already"):
        train(run.folder)


def test_metrics_say_what_the_design_says(done: Path) -> None:
    document = json.loads((done / "metrics.json").read_text())
    assert document["status"] == document["ending"] == "done" and document["steps"] == STEPS
    assert {"loss", "accuracy", "confusion"} <= document["final"].keys()
    assert document["best"]["step"] in (5, 10, 15) and document["best"]["selected_by"] == "accuracy"
    assert {"seconds", "samples_per_s", "peak_memory_mb", "parameters", "macs"} <= document["cost"].keys()
    environment = json.loads((done / "environment.json").read_text())
    assert environment["packages"]["torch"] == torch.__version__ and environment["data"]
    assert not (done / "checkpoints" / ".lock").exists() and (done / ".lock").read_text() == ""


def test_its_own_experiment_file_repeats_a_run_bit_for_bit(done: Path, tmp_path: Path) -> None:
    again = train_experiment(load_experiment(done / "experiment.toml"), out=tmp_path / "b")
    assert ending(done) == ending(again.folder)
    assert (done / "experiment.toml").read_bytes() == (again.folder / "experiment.toml").read_bytes()


def test_threads_and_noise_of_the_callers_program_are_left_alone(tmp_path: Path) -> None:
    torch.manual_seed(5)
    state, threads = torch.random.get_rng_state(), torch.get_num_threads()
    train(tmp_path / "run", "run.threads=2", "run.steps=1")
    assert torch.equal(torch.random.get_rng_state(), state) and torch.get_num_threads() == threads


def test_a_class_of_ones_own_trains_and_its_file_says_so(tmp_path: Path) -> None:
    experiment = Experiment(data=TinyImages(), task=Classify(), model=MLPConfig(hidden=(4,)), run=Run(steps=2, batch_size=4, trackers=()))
    run = torchstone.train(experiment, out=tmp_path / "run")
    assert 'kind = "custom"' in (run.folder / "experiment.toml").read_text()
    with pytest.raises(UserError, match="TinyImages"):
        load_experiment(run.folder / "experiment.toml")


@dataclass(frozen=True, kw_only=True, slots=True)
class Doubled:
    """Twice the cross-entropy: a loss of one's own."""

    couples: ClassVar[bool] = False
    factor: float = 2.0

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        return self.factor * F.cross_entropy(logits, target, reduction="none")

    def weight(self, target: Tensor) -> Tensor:
        return torch.ones(len(target))


def test_a_loss_of_ones_own_is_resumed_and_evaluated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = tree.edit(torchstone.recipes.digits_mini(), MLP)
    base = replace(base, method=replace(base.method, loss=Doubled()))
    whole = train_experiment(base, out=tmp_path / "whole")
    train_experiment(base, "run.keep=3", out=tmp_path / "part")
    back_to(tmp_path / "part", 5)
    train_experiment(base, "run.keep=3", out=tmp_path / "part", resume=True)
    assert ending(tmp_path / "part") == ending(tmp_path / "whole")
    again = torchstone.evaluate(tmp_path / "whole")["final"]
    assert "its loss is a class of your own" in capsys.readouterr().err
    assert again["accuracy"] == whole.metrics["final"]["accuracy"]
    assert 2 * again["loss"] == pytest.approx(whole.metrics["final"]["loss"], rel=1e-6)
    with pytest.raises(UserError, match="method.loss is a class of your own, which no edit reaches into"):
        prepare(base, "loss.factor=3")


def test_colors_are_changed_before_they_are_normalized() -> None:
    made = tree.edit(torchstone.recipes.digits(), ["batch_transforms=[flip,normalize]", "batch_transforms+=color_jitter"])
    assert [tree.kind_of(part) for part in made.method.batch_transforms] == ["flip", "color_jitter", "normalize"]
    with pytest.raises(UserError, match="color_jitter comes after normalize.*put it before"):
        prepare(torchstone.recipes.digits(), "batch_transforms=[normalize,color_jitter]")


# --- resume ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [5, 10])
def test_resumed_ends_as_uninterrupted(step: int, done: Path, copied: Path) -> None:
    back_to(copied, step)
    assert [path.name for path in copied.glob("checkpoints/step-*")].count(f"step-{STEPS}") == 0
    train(copied, base=CONV, resume=True)
    assert ending(copied) == ending(done)


def test_resume_of_nothing_starts_at_0(done: Path, tmp_path: Path) -> None:
    assert ending(train(tmp_path / "run", base=CONV, resume=True).folder) == ending(done)


def test_a_finished_run_says_so(done: Path, copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in copied.rglob("*") if path.name != ".lock"}
    again = train(copied, base=CONV, resume=True)
    assert "the run is finished already" in capsys.readouterr().err
    assert (again.folder, again.status, again.metrics) == (copied, "done", json.loads((done / "metrics.json").read_text()))
    assert {path: path.stat().st_mtime_ns for path in copied.rglob("*") if path.name != ".lock" and path != copied} == {
        path: time for path, time in before.items() if path != copied
    }


@pytest.mark.parametrize(
    "edit, path",
    [
        ("optimizer.lr=0.01", "method.optimizer.lr: 0.003 there, 0.01 here"),
        ("model.widths=[4,9]", "model.widths"),
        ("run.seed=1", "run.seed: 0 there, 1 here"),
        ("run.batch_size=128", "run.batch_size: 256 there, 128 here"),
        ("averaging=none", "method.averaging"),
        ("run.evaluate_every=4", "run.evaluate_every"),
        ("run.precision=bf16", "run.precision"),
    ],
)
def test_a_changed_tree_is_refused_naming_the_path(edit: str, path: str, copied: Path) -> None:
    with pytest.raises(UserError, match=re.escape(path)) as refused:
        train(copied, edit, base=CONV, resume=True)
    assert "--resume with a changed experiment" in str(refused.value)


def test_what_may_change_may(done: Path, copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    back_to(copied, 10)
    train(copied, "run.keep=1", "trackers=[csv]", "run.max_seconds=1000", base=CONV, resume=True)
    assert ending(copied) == ending(done)
    kept = {path.name for path in (copied / "checkpoints").glob("step-*")}
    assert kept == {"step-15", (copied / "checkpoints" / "best").read_text().strip()}
    assert "warning" not in capsys.readouterr().err
    assert all(path in {f"run.{name}" for name in Run.__dataclass_fields__} for path in Run.resumable)


def test_other_threads_are_another_exactness_key_and_said_aloud(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    back_to(copied, 10)
    train(copied, "run.threads=2", base=CONV, resume=True)
    assert "resumed, but not bit-exactly: threads 1 -> 2" in capsys.readouterr().err


def test_more_epochs_go_on_with_a_warning(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    again = train(copied, "run.epochs=4", base=CONV, resume=True)
    assert "resumed with 20 steps where 15 were planned; the schedules now end at step 20" in capsys.readouterr().err
    assert (again.status, again.metrics["steps"]) == ("done", 20)
    train(copied, "run.epochs=4", base=CONV, resume=True)
    assert "the run is finished already" in capsys.readouterr().err


def test_fewer_epochs_than_are_done_already_end_at_once(copied: Path) -> None:
    back_to(copied, 10)
    again = train(copied, "run.epochs=1", base=CONV, resume=True)
    assert (again.status, again.metrics["steps"]) == ("done", 10)


def test_what_is_no_run_is_not_resumed(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    with pytest.raises(UserError, match=r"not a run folder, experiment\.toml is missing"):
        train(tmp_path / "mine", resume=True)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Pictures(TinyImages):
    """Data whose content changes under the same tree, as a file on disk may."""

    def open(self):
        return replace(self, shift=SHIFT).inner()

    def inner(self):
        splits = TinyImages(shift=self.shift).open()
        return replace(splits, facts=replace(splits.facts, fingerprint=f"{'ab' if self.shift else 'cd'}" * 32))


SHIFT = 0.0


def test_other_data_under_the_same_tree_are_refused_naming_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = Experiment(
        data=Pictures(),
        task=Classify(),
        model=MLPConfig(hidden=(4,)),
        method=Method(loss=CrossEntropy()),
        run=Run(steps=4, batch_size=8, threads=1, device="cpu", trackers=()),
    )
    torchstone.train(experiment, out=tmp_path / "run")
    (tmp_path / "run" / "metrics.json").unlink()
    monkeypatch.setitem(globals(), "SHIFT", 1.0)
    with pytest.raises(UserError, match="data have changed since this checkpoint .fingerprint cdcdcdcdcdcd, now abababababab"):
        torchstone.train(experiment, out=tmp_path / "run", resume=True)


def test_a_damaged_checkpoint_falls_back_and_the_end_is_the_same(done: Path, copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (copied / "metrics.json").unlink()
    path = copied / "checkpoints" / "step-15" / "model.safetensors"
    flip(path, 8 * path.stat().st_size - 3)
    train(copied, base=CONV, resume=True)
    assert re.search(r"warning: .*step-15/model\.safetensors: tensor '.*falling back", capsys.readouterr().err)
    assert ending(copied) == ending(done)


# --- the end -----------------------------------------------------------------------------------------------------------


def test_the_best_weights_are_the_result_where_asked_for(tmp_path: Path) -> None:
    run = train(tmp_path / "run", "run.select=best", "optimizer=sgd", "optimizer.lr=0.5", "run.keep=1")
    best = (run.folder / "checkpoints" / "best").read_text().strip()
    assert run.metrics["best"]["step"] == int(best.removeprefix("step-"))
    predictor = torchstone.load(run.folder)
    assert predictor.checkpoint.name == best


def test_a_budget_of_time_ends_a_run_and_is_not_finished_business(tmp_path: Path) -> None:
    run = train(tmp_path / "run", "run.max_seconds=0.000001")
    assert (run.status, run.metrics["steps"]) == ("stopped", 1)
    assert "budget" in run.metrics["ending"]


def test_a_full_disk_is_seen_before_the_first_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "free_bytes", lambda path: 1000)
    with pytest.raises(WorkError, match=r"a checkpoint takes .* MB and two must fit, but the disk has 0 MB free"):
        train(tmp_path / "run")
    monkeypatch.undo()
    assert not list((tmp_path / "run" / "checkpoints").iterdir())
    train(tmp_path / "run", resume=True)
