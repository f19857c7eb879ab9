"""Studies of small trainings on the real digits: pairing, statistics, inert switches, divergence, stopping, going on."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from torchstone import recipes
from torchstone.core import random, tree
from torchstone.core.errors import UserError
from torchstone.data import Digits, Flip
from torchstone.experiment import prepare
from torchstone.losses import CrossEntropy
from torchstone.study import compare as studies
from torchstone.study.compare import Compared, compare
from torchstone.train.build import streams
from torchstone.train.loop import updates
from train.small import MLP

SMALL = (*MLP, "run.epochs=4")


def study(*edits: str, vary: Sequence[str], out: Path, base: tuple[str, ...] = SMALL, **words: Any) -> Compared:
    return compare(recipes.digits_mini(), *base, *edits, vary=vary, out=out, recipe="digits-mini", **words)


def variant(made: Compared, name: str) -> dict[str, Any]:
    return next(each for each in made.results["variants"] if each["name"] == name)


def values(made: Compared, name: str) -> list[float]:
    """As the runs' own metrics.json have them, not as results.json says."""
    found = [json.loads((made.folder / run["run"] / "metrics.json").read_text()) for run in variant(made, name)["runs"]]
    return [each["validation"][made.results["metric"]] for each in found]


def validation(run: Path) -> dict[str, Any]:
    return json.loads((run / "metrics.json").read_text())["validation"]


# --- pairing ---------------------------------------------------------------------------------------------------------------


def batches(*edits: str, seed: int = 3) -> list[Any]:
    prepared = prepare(recipes.digits_mini(), *MLP, f"run.seed={seed}", *edits)
    return [batch for _, microbatches in updates(prepared.job(Path(), {}), 0) for batch in microbatches]


@pytest.mark.parametrize(
    "edit", ["averaging=ema", "model.hidden=[8,8]", "optimizer=sgd", "batch_transforms=[flip,normalize]", "loss.smoothing=0.1"]
)
def test_the_same_seed_gives_every_variant_the_same_samples_in_the_same_order(edit):
    for one, other in zip(batches(), batches(edit), strict=True):
        assert torch.equal(one.index, other.index) and torch.equal(one.inputs, other.inputs)
    assert not torch.equal(batches()[0].index, batches(seed=4)[0].index)


def test_the_same_seed_gives_the_same_split():
    one, other = (
        prepare(recipes.digits_mini(), f"run.seed={seed}", edit).facts for seed, edit in ((0, "averaging=ema"), (9, "averaging=none"))
    )
    assert one.fingerprint == other.fingerprint  # no seed changes who validates


def test_another_transform_in_front_leaves_the_draws_of_those_behind():
    plain, more = (tree.edit(recipes.digits_mini(), [f"batch_transforms={text}"]).method for text in ("[flip]", "[mixup,flip]"))
    draws = []
    for method in (plain, more):
        batch = batches()[0]
        stream = dict(zip([tree.kind_of(each) for each in method.batch_transforms], streams(method), strict=True))["flip"]
        draws.append(Flip()(batch, random.sample_keys(random.key(3, stream, 0), batch.index)).inputs)
    assert torch.equal(*draws) and not torch.equal(draws[0], batches()[0].inputs)


def test_the_same_seed_gives_the_same_first_weights_wherever_shapes_agree():
    one, other = (dict(prepare(recipes.digits_mini(), f"model.hidden={text}").model.named_parameters()) for text in ("[64]", "[64,32]"))
    assert torch.equal(one["hidden.0.weight"], other["hidden.0.weight"])


# --- what comes out --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Compared:
    return study(vary=["averaging=none,ema", "run.note=a,b"], seeds=4, out=tmp_path_factory.mktemp("study") / "s")


def test_the_statistics_are_scipys_on_the_runs_own_numbers(made):
    base, ema = values(made, "baseline"), values(made, "averaging=ema")
    effect, n = variant(made, "averaging=ema")["effect"], 4
    reference = stats.ttest_rel(ema, base)
    assert effect["mean"] == pytest.approx(np.mean(np.subtract(ema, base)), abs=1e-12)
    assert effect["p"] == pytest.approx(reference.pvalue, rel=1e-9)
    interval = reference.confidence_interval(0.95)
    assert (effect["low"], effect["high"]) == pytest.approx((interval.low, interval.high), rel=1e-9)
    assert effect["n"] == n and effect["p_holm"] == effect["p"]  # the other variant is inert: nothing is tested there
    assert variant(made, "baseline")["mean"] == pytest.approx(np.mean(base)) and variant(made, "baseline")["std"] == pytest.approx(
        np.std(base, ddof=1)
    )
    assert variant(made, "baseline")["effect"] is None


def test_a_switch_that_changes_nothing_is_inert(made):
    effect = variant(made, "note=b")["effect"]
    assert effect["inert"] and effect["verdict"] == "inert" and effect["mean"] == 0 and "Bit for bit" in effect["sentence"]
    assert not variant(made, "averaging=ema")["effect"]["inert"]


def test_the_folder_has_what_it_should(made):
    found = json.loads((made.folder / "results.json").read_text())
    assert found == made.results and found["kind"] == "study" and found["split"] == "validation" and found["seeds"] == [0, 1, 2, 3]
    assert [each["name"] for each in found["variants"]] == ["baseline", "averaging=ema", "note=b"]
    assert found["classes"] == [str(digit) for digit in range(10)] and found["mode"] == "max" and found["metric"] == "accuracy"
    assert found["ended"] == "all runs are over"
    for each in found["variants"]:
        assert each["status"] == "done" and each["parameters"] == 64 * 8 + 8 + 8 * 10 + 10 and each["macs"] == 64 * 8 + 8 * 10
        for run in each["runs"]:
            assert (made.folder / run["run"] / "experiment.toml").is_file() and len(run["per_class"]["recall"]) == 10
    text = json.dumps(found)
    assert "seconds" not in text and "memory" not in text and str(made.folder.parent) not in text
    costs = json.loads((made.folder / "costs.json").read_text())
    assert set(costs["runs"]) == {run["run"] for each in found["variants"] for run in each["runs"]}
    took = [json.loads((made.folder / "baseline" / f"seed-{n}" / "metrics.json").read_text())["cost"]["seconds"] for n in range(4)]
    entry = costs["variants"]["baseline"]["seconds"]
    low, high = stats.t.interval(0.95, 3, np.mean(took), stats.sem(took))
    assert (entry["mean"], entry["low"], entry["high"], entry["n"]) == pytest.approx((np.mean(took), low, high, 4))
    assert costs["variants"]["averaging=ema"]["seconds"]["difference"]["n"] == 4


def test_a_run_of_a_study_is_the_run_of_train(made, tmp_path):
    from torchstone.experiment import train_experiment

    train_experiment(recipes.digits_mini(), *SMALL, "averaging=ema", "run.seed=2", out=tmp_path / "alone")
    assert validation(tmp_path / "alone") == validation(made.folder / "averaging=ema" / "seed-2")


def test_the_validation_metrics_are_the_last_evaluations(made):
    folder = made.folder / "baseline" / "seed-1"
    metrics = json.loads((folder / "metrics.json").read_text())
    last = [line for line in map(json.loads, (folder / "log.jsonl").read_text().splitlines()) if "eval" in line][-1]
    assert {name: metrics["validation"][name] for name in last["eval"]} == last["eval"]


def test_other_metrics_are_told_beside_and_may_be_added_later(tmp_path):
    words = {
        "vary": ["averaging=none,ema"],
        "seeds": 3,
        "out": tmp_path / "s",
        "base": (*MLP, "run.epochs=2", "run.evaluate_training=true"),
    }
    first = study(**words)
    assert "also" not in first.results
    more = study(also=["train_loss", "accuracy"], resume=True, **words)
    assert more.costs["study"]["runs"] == first.costs["study"]["runs"] and more.results["also"] == [
        "train_loss"
    ]  # the one that decides is told already
    base, ema = (
        [json.loads((more.folder / name / f"seed-{n}" / "metrics.json").read_text())["training"]["loss"] for n in range(3)]
        for name in ("baseline", "averaging=ema")
    )
    told, interval = variant(more, "averaging=ema")["also"]["train_loss"], stats.ttest_rel(ema, base).confidence_interval(0.95)
    low, high = stats.t.interval(0.95, 2, np.mean(ema), stats.sem(ema))
    assert (told["mean"], told["low"], told["high"], told["n"]) == pytest.approx((np.mean(ema), low, high, 3))
    assert told["difference"] == pytest.approx(np.mean(np.subtract(ema, base)))
    assert (told["difference_low"], told["difference_high"]) == pytest.approx((interval.low, interval.high))
    assert variant(more, "baseline")["also"]["train_loss"]["difference"] is None
    for key in ("effect", "mean", "runs"):
        assert variant(more, "averaging=ema")[key] == variant(first, "averaging=ema")[key]
    kept = study(also="loss", resume=True, **words)
    assert kept.results["also"] == ["train_loss", "loss"]
    with pytest.raises(UserError, match="--also ece: the task has no such metric.*calibration_error"):
        study(also="ece", resume=True, **words)


def test_the_training_split_can_decide(tmp_path):
    made = study("run.evaluate_training=true", vary=["averaging=none,ema"], seeds=2, metric="train_loss", out=tmp_path / "s", base=MLP)
    run = json.loads((made.folder / "baseline" / "seed-1" / "metrics.json").read_text())
    assert variant(made, "baseline")["runs"][1]["value"] == run["training"]["loss"] != run["validation"]["loss"]
    assert made.results["mode"] == "min" and made.results["split"] == "training"


def test_going_on_trains_nothing_again_and_adds_seeds(made, tmp_path):
    copied = tmp_path / "s"
    shutil.copytree(made.folder, copied)
    before = {path: path.read_bytes() for path in copied.rglob("metrics.json")}
    words = {"vary": ["averaging=none,ema", "run.note=a,b"], "out": copied, "resume": True}
    same = study(seeds=4, **words)
    assert (copied / "results.json").read_bytes() == (made.folder / "results.json").read_bytes()
    runs = made.costs["study"]["runs"]
    assert same.costs["study"]["runs"] == runs == 12
    more = study(seeds=5, **words)
    assert more.costs["study"]["runs"] == runs + 3 and variant(more, "baseline")["n"] == 5
    assert {path: path.read_bytes() for path in before} == before
    assert values(more, "baseline")[:4] == values(made, "baseline")
    with pytest.raises(UserError, match="is another study.*it varies"):
        study(seeds=5, **(words | {"vary": ["averaging=none,ema"]}))
    with pytest.raises(UserError, match="it exists already"):
        study(seeds=5, **(words | {"resume": False}))
    with pytest.raises(UserError, match="study.toml is missing"):
        study(seeds=5, **(words | {"out": copied / "baseline"}))


@pytest.mark.slow
def test_two_workers_find_what_one_does(made, tmp_path):
    two = study(vary=["averaging=none,ema", "run.note=a,b"], seeds=4, out=tmp_path / "two", workers=2)
    assert (two.folder / "results.json").read_bytes() == (made.folder / "results.json").read_bytes()


@pytest.mark.slow
def test_a_finished_study_repeats_from_its_own_file(made, tmp_path):
    again = studies.perform(
        studies.repeat(studies.definition.read(made.folder / "study.toml"), out=tmp_path / "again", resume=False, workers=1),
        out=tmp_path / "again",
    )
    assert (again.folder / "results.json").read_bytes() == (made.folder / "results.json").read_bytes()


# --- designs and rules -----------------------------------------------------------------------------------------------------


def test_smaller_is_better_keeps_the_metrics_own_sign(tmp_path):
    made = study(vary=["run.epochs=2,4"], seeds=3, metric="loss", out=tmp_path / "s", base=MLP)
    effect = variant(made, "baseline")["effect"] or variant(made, "epochs=4")["effect"]
    difference = np.subtract(values(made, "epochs=4"), values(made, "baseline"))
    assert made.results["mode"] == "min" and (difference < 0).all()
    assert effect["mean"] == pytest.approx(difference.mean()) and effect["low"] < effect["mean"] < effect["high"]
    assert "Better by" in effect["sentence"]


@pytest.mark.slow
def test_a_grid_reports_the_difference_of_differences(tmp_path):
    made = study(vary=["averaging=none,ema", "loss.smoothing=0,0.1"], design="grid", seeds=3, out=tmp_path / "s")
    (found,) = made.results["interactions"]
    y = {name: np.array(values(made, name)) for name in ("baseline", "averaging=ema", "smoothing=0.1", "averaging=ema+smoothing=0.1")}
    both = y["averaging=ema+smoothing=0.1"] - y["averaging=ema"] - y["smoothing=0.1"] + y["baseline"]
    assert found["mean"] == pytest.approx(both.mean(), abs=1e-12) and found["levels"] == ["ema", "0.1"]
    assert found["p"] == pytest.approx(stats.ttest_1samp(both, 0).pvalue, rel=1e-6) or both.std() == 0


@pytest.mark.slow
def test_unpaired_variants_have_seeds_of_their_own(tmp_path):
    made = study(vary=["averaging=none,ema"], seeds=3, unpaired=True, out=tmp_path / "s")
    seeds = [[run["seed"] for run in each["runs"]] for each in made.results["variants"]]
    assert seeds == [[0, 1, 2], [3, 4, 5]] and made.results["paired"] is False
    effect = variant(made, "averaging=ema")["effect"]
    welch = stats.ttest_ind(values(made, "averaging=ema"), values(made, "baseline"), equal_var=False)
    assert effect["p"] == pytest.approx(welch.pvalue, rel=1e-9)


@pytest.mark.slow
def test_a_variant_that_diverges_counts_with_its_seeds(tmp_path):
    made = study("optimizer=sgd", vary=["optimizer.lr=0.01,1e30"], seeds=5, out=tmp_path / "s")
    lost = variant(made, "lr=1e30")
    assert lost["status"] == "diverged" and [run["status"] for run in lost["runs"]] == ["diverged"] * 5 and lost["n"] == 0
    assert lost["effect"]["diverged"] == 5 and lost["effect"]["verdict"] == "hurts" and "5 of 5 seeds" in lost["effect"]["sentence"]
    assert "lr=1e30 diverged at seeds 0-4" in made.results["warnings"]
    assert variant(made, "baseline")["n"] == 5
    going_on = study("optimizer=sgd", vary=["optimizer.lr=0.01,1e30"], seeds=5, out=tmp_path / "s", resume=True)
    before, after = made.costs["study"], going_on.costs["study"]
    assert after["runs"] == before["runs"] == 10 and going_on.results == made.results  # over is over
    assert after["seconds"] > before["seconds"] and after["training_seconds"] == before["training_seconds"]


def test_one_seed_is_allowed_and_its_verdict_withheld(tmp_path):
    made = study(vary=["averaging=none,ema"], seeds=1, out=tmp_path / "s")
    effect = variant(made, "averaging=ema")["effect"]
    assert effect["verdict"] == "withheld" and effect["p"] is None and "one seed" in made.results["warnings"][0]


@pytest.mark.slow
def test_until_decided_stops_what_is_decided_and_is_the_same_after_an_interruption(tmp_path):
    words = {"vary": ["run.epochs=12,1", "run.note=a,b"], "seeds": 12, "until": "decided", "base": MLP}
    made = study(out=tmp_path / "s", **words)
    after = made.results["sequential"]["decided_after"]
    assert set(after) == {"epochs=1", "note=b"} and all(3 <= n < 12 for n in after.values())
    assert variant(made, "epochs=1")["effect"]["verdict"] == "hurts" and variant(made, "epochs=1")["status"] == "decided"
    assert variant(made, "note=b")["n"] == 3  # inert is seen at the first look
    shutil.rmtree(made.folder / "epochs=1" / f"seed-{after['epochs=1'] - 1}")
    (made.folder / "results.json").unlink()
    again = study(out=tmp_path / "s", resume=True, **words)
    assert again.results == made.results and again.costs["study"]["runs"] == made.costs["study"]["runs"] + 1


def test_a_budget_begins_no_further_run_and_leaves_whole_pairs(tmp_path):
    made = study(vary=["averaging=none,ema"], seeds=500, budget="3s", out=tmp_path / "s")
    counts = [each["n"] for each in made.results["variants"]]
    assert 1 <= counts[0] < 500 and abs(counts[0] - counts[1]) <= 1
    assert made.results["ended"] == "the budget of 3.0 s is spent" and {each["status"] for each in made.results["variants"]} == {"partial"}


@pytest.mark.slow
def test_a_planted_effect_is_found(tmp_path):
    """Labels of half of the training set shuffled, in short trainings; the published study takes 10 % and 20 epochs."""
    made = study("data=label_noise", vary=["data.share=0,0.5"], seeds=5, out=tmp_path / "s", base=(*MLP, "run.epochs=8"))
    effect = variant(made, "share=0.5")["effect"]
    assert effect["verdict"] == "hurts" and effect["high"] < 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Doubled:
    """Twice the cross-entropy: a loss of one's own."""

    couples: ClassVar[bool] = False
    factor: float = 2.0

    def __call__(self, outputs: Tensor, target: Tensor) -> Tensor:
        return self.factor * CrossEntropy()(outputs, target)

    def weight(self, target: Tensor) -> Tensor:
        return CrossEntropy().weight(target)


class Even:
    """Digits by another name: data of one's own."""

    def open(self) -> Any:
        return Digits().open()


def test_a_study_of_ones_own_classes_goes_on_from_python(tmp_path, capsys):
    mini = tree.edit(recipes.digits_mini(), SMALL)
    own = replace(mini, data=Even(), method=replace(mini.method, loss=Doubled()))
    words: dict[str, Any] = {"vary": ["averaging=none,ema"], "out": tmp_path / "s"}
    compare(own, seeds=1, **words)
    (tmp_path / "s" / "averaging=ema" / "seed-0" / "metrics.json").unlink()
    made = compare(own, seeds=2, resume=True, **words)
    assert made.costs["study"]["runs"] == 2 + 3 and [each["n"] for each in made.results["variants"]] == [2, 2]
    assert not [run for each in made.results["variants"] for run in each["runs"] if run["status"] != "done"]
    other = replace(own, method=replace(own.method, loss=Doubled(factor=3.0)))
    with pytest.raises(UserError, match=r"is another study \(method.loss: .*factor=2.0.* there, .*factor=3.0.* here"):
        compare(other, seeds=2, resume=True, **words)
    with pytest.raises(UserError, match=r"data and method.loss: a class of your own.*go on from your script by torchstone.compare"):
        studies.definition.read(tmp_path / "s" / "study.toml")


# --- refused before anything is trained --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words, match",
    [
        ({"metric": "mAP"}, "--metric mAP: the task has no such metric.*accuracy"),
        ({"metric": "train_loss"}, "--metric train_loss: nothing is measured on the training split; the edit run.evaluate_training=true"),
        ({"also": "ece"}, "--also ece: the task has no such metric.*calibration_error"),
        ({"also": ["a b"]}, "--also a b: names of metrics"),
        ({"vary": ["loss.smoothing=0,2"]}, "smoothing"),
        ({"vary": ["model.norm=none,batch"], "seeds": 2, "base": (*MLP, "run.batch_size=1")}, "the variant norm=batch: batch norm"),
        ({"until": "later"}, "decided is the only rule"),
        ({"until": "decided", "unpaired": True}, "--unpaired has none"),
        ({"resume": True, "out": None}, "--out DIR names the study"),
        ({"workers": 0}, "--workers must be"),
        ({"confidence": 2.0}, "confidence must be"),
        ({"matters": -1.0}, "--matters must be > 0"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_trained(tmp_path, monkeypatch, words, match):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=match):
        study(**({"vary": ["averaging=none,ema"], "out": tmp_path / "s"} | words))
    assert list(tmp_path.iterdir()) == []


def test_the_plan_says_runs_time_and_the_smallest_effect(tmp_path):
    planned = studies.prepare(recipes.digits_mini(), *SMALL, vary=["averaging=none,ema,swa"], seeds=5)
    plan = planned.plan
    assert plan.runs == 15 and plan.finished == 0 and 0 < plan.seconds < 600
    # The noncentral t: a shift of delta standard errors rejects four times in five.
    critical = stats.t.ppf(0.975, 4)
    power = stats.nct.sf(critical, 4, plan.deviations * np.sqrt(5)) + stats.nct.cdf(-critical, 4, plan.deviations * np.sqrt(5))
    assert power == pytest.approx(0.8, abs=1e-6)
    assert plan.corrected > plan.deviations
    assert planned.study.baseline.run.threads == 1 and planned.study.baseline.run.device == "cpu"
    assert "5 seeds show a difference of" in "\n".join(studies.estimate.lines(planned.study, plan))


def test_the_cores_are_shared_out_to_the_workers(monkeypatch):
    found = prepare(recipes.digits_mini(), *SMALL)
    heavy = replace(found, experiment=tree.put(found.experiment, "run.threads", 8))
    monkeypatch.setattr(studies.estimate.os, "cpu_count", lambda: 8)
    free = replace(studies.prepare(recipes.digits_mini(), *SMALL, vary=["averaging=none,ema"], seeds=2).study)
    free = replace(free, baseline=tree.put(free.baseline, "run.threads", None))
    tried = studies.estimate.Tried(heavy, 1.0, ("accuracy",))
    assert [studies.estimate.with_machine(free, tried, workers).run.threads for workers in (1, 2, 3, 8, 100)] == [8, 4, 2, 1, 1]
    assert isinstance(found.experiment.data, Digits)
