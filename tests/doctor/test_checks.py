"""Numbers of the checks before training, each against an independent reference, and what a check skips."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import entropy
from sklearn.datasets import load_digits
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from torch.nn import functional as F

from doctor.faults_before import another_camera, copies_in_the_test, rare_class, wrong_labels
from doctor.patients import digits_arrays, on_digits
from torchstone import recipes
from torchstone.core import tree
from torchstone.core.errors import UserError
from torchstone.doctor import examine
from torchstone.doctor.before.duplicates import difference_hash, exact_hash
from torchstone.doctor.before.inputs import described, scores_of
from torchstone.doctor.before.labels import calibrated, confident_joint
from torchstone.doctor.finding import Examination
from torchstone.experiment import prepare


def checked(examination: Examination, name: str):
    return next(check for check in examination.checks if check.check == name)


def test_loss_at_init_is_torchs_and_even_answers_cost_ln_k(tmp_path: Path) -> None:
    experiment = on_digits(tmp_path, "loss.smoothing=0.1")
    seen = checked(examine(experiment, only=["loss_at_init"]), "loss_at_init")
    prepared = prepare(experiment)
    # The first 256 training samples: fewer than 3,000 are all looked at, in their order.
    x, y = prepared.splits.train.fetch(np.arange(256))
    x = (x - prepared.facts.mean[0]) / prepared.facts.std[0]
    with torch.no_grad():
        expected = F.cross_entropy(prepared.model(x), y, label_smoothing=0.1)
    assert seen.value == pytest.approx(float(expected), rel=1e-5)
    assert seen.threshold == pytest.approx(math.log(10) + 1.5, rel=1e-6)
    shares = np.bincount(y.numpy(), minlength=10) / 256
    assert f"frequencies {entropy(shares):.3f}" in seen.why


def test_confident_joint_by_its_definition() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 300)
    true = np.where(rng.random(300) < 0.2, rng.integers(0, 4, 300), labels)
    p = rng.dirichlet(np.ones(4), 300) * 0.6 + 0.4 * np.eye(4)[true]
    joint, suspect = confident_joint(labels, p)
    thresholds = [np.mean([p[n, j] for n in range(300) if labels[n] == j]) for j in range(4)]
    expected, off = np.zeros((4, 4), dtype=int), np.zeros(300, dtype=bool)
    for n in range(300):
        able = [j for j in range(4) if p[n, j] >= thresholds[j]]
        if able:
            best = max(able, key=lambda j: p[n, j])
            expected[labels[n], best] += 1
            off[n] = best != labels[n]
    assert (joint == expected).all() and (suspect == off).all() and off.any()
    q = calibrated(joint, np.bincount(labels))
    assert q.sum() == pytest.approx(1) and q.sum(axis=1) == pytest.approx(np.bincount(labels) / 300)


def test_most_wrong_labels_are_among_the_suspects(tmp_path: Path) -> None:
    (finding,) = examine(on_digits(tmp_path, change=wrong_labels), only=["label_noise"]).findings
    clean, dirty = digits_arrays(), digits_arrays()
    wrong_labels(dirty)
    wrong = set(np.flatnonzero(clean["y_train"] != dirty["y_train"]).tolist())
    assert finding.evidence is not None
    rows = finding.evidence["rows"]
    named = [row for row in rows if row[0] in wrong]
    assert len(named) >= 0.9 * len(rows), "nearly all that is named is wrong"
    assert sum(row[2] == str(clean["y_train"][row[0]]) for row in named) >= 0.9 * len(named), "and the true class is said"
    share = len(wrong) / len(clean["y_train"])
    estimate = float(finding.summary.split("estimates ")[1].split("%")[0]) / 100
    assert estimate == pytest.approx(share, rel=0.35), "the confident joint's estimate of how many are wrong"
    assert finding.value is not None and 0.3 * share < finding.value <= share, "those that are sure are fewer"


def test_the_shift_is_scikit_learns_area(tmp_path: Path) -> None:
    experiment = on_digits(tmp_path, change=another_camera)
    (finding,) = examine(experiment, only=["shift"]).findings
    assert finding.value is not None and finding.value > 0.95 and finding.remedy == ("method.batch_transforms+=color_jitter",)
    arrays = digits_arrays()
    parts = [torch.from_numpy(arrays[name][:100, None]) for name in ("x_train", "x_test")]
    train, test = (described(part, part.flatten(1).double().numpy()) for part in parts)
    scores = scores_of(train, test)
    y = np.repeat([0, 1], 100)
    trees = ExtraTreesClassifier(100, min_samples_leaf=3, random_state=0)
    folds = StratifiedKFold(4, shuffle=True, random_state=0)
    reference = cross_val_predict(trees, np.concatenate([train, test]), y, cv=folds, method="predict_proba")[:, 1]
    assert roc_auc_score(y, scores) == pytest.approx(roc_auc_score(y, reference), abs=1e-12)
    assert 0.3 < roc_auc_score(y, scores) < 0.62, "two parts of the same data"


def test_auc_of_the_check_is_roc_auc_score(tmp_path: Path) -> None:
    experiment = on_digits(tmp_path)
    seen = checked(examine(experiment, only=["shift"]), "shift")
    prepared = prepare(experiment)
    parts = []
    from torchstone.doctor.before import Patient

    patient = Patient(prepared=prepared, asked=experiment)
    size = len(patient.samples("test"))
    for name in ("train", "test"):
        x = described(patient.samples(name).inputs, patient.flat(name))
        parts.append(x[np.sort(patient.generator("shift", name).permutation(len(x))[:size])])
    assert seen.value == pytest.approx(roc_auc_score(np.repeat([0, 1], size), scores_of(*parts)), abs=1e-9)


def test_difference_hash_is_pillows_gray_thumbnail() -> None:
    """A picture of 9 x 8 pixels needs no resizing: each bit is one comparison."""
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (5, 8, 9), dtype=np.uint8)
    expected = []
    for picture in pictures:
        pixels = np.asarray(Image.fromarray(picture).convert("L")).astype(int)
        expected.append(
            sum(1 << (row * 8 + column) for row in range(8) for column in range(8) if pixels[row, column + 1] > pixels[row, column])
        )
    assert difference_hash(torch.from_numpy(pictures[:, None])).tolist() == expected


def test_hashes_stay_through_a_new_size_and_tell_pictures_apart() -> None:
    x = torch.from_numpy(load_digits().images[:100]).float().div(16)[:, None]
    large = F.interpolate(x, size=(64, 64), mode="bilinear")
    smaller = F.interpolate(large, size=(40, 40), mode="bilinear", antialias=True)
    bits = np.bitwise_count(difference_hash(large)[:, None] ^ difference_hash(smaller)[None])
    assert np.median(np.diag(bits)) <= 3 < np.median(bits[~np.eye(100, dtype=bool)])
    assert len(set(exact_hash(x).tolist())) == len({row.tobytes() for row in x.numpy()})


def test_the_copies_are_named(tmp_path: Path) -> None:
    (finding,) = examine(on_digits(tmp_path, change=copies_in_the_test), only=["duplicates_across"]).findings
    assert finding.evidence is not None and finding.value == pytest.approx(40 / 270)
    assert finding.evidence["rows"][:3] == [["test", 0, 0], ["test", 1, 1], ["test", 2, 2]]


def test_real_digits_have_no_copies_across_splits() -> None:
    seen = checked(examine(recipes.digits_mini(), only=["duplicates_across"]), "duplicates_across")
    pixels = load_digits().data
    assert len(np.unique(pixels, axis=0)) == len(pixels), "the reference: no two rows of them are equal"
    assert seen.value == 0


def test_class_balance_counts(tmp_path: Path) -> None:
    (finding,) = examine(on_digits(tmp_path, change=rare_class), only=["class_balance"]).findings
    arrays = digits_arrays()
    rare_class(arrays)
    counts = np.bincount(arrays["y_train"])
    assert finding.value == pytest.approx(counts.max() / counts.min())
    assert finding.evidence is not None and finding.evidence["values"] == counts.tolist()
    edited = tree.edit(on_digits(tmp_path, change=rare_class), finding.remedy)
    assert not examine(edited, only=["class_balance"]).findings, "the remedy is one"


def test_majority_and_linear_baselines_are_scikit_learns(tmp_path: Path) -> None:
    experiment = on_digits(tmp_path, "run.batch_size=256")
    seen = checked(examine(experiment, only=["baselines"], budget=600), "baselines")
    arrays = digits_arrays()
    majority = np.bincount(arrays["y_train"]).argmax()
    assert f"most frequent {np.mean(arrays['y_validation'] == majority):.1%}" in seen.why
    from sklearn.linear_model import LogisticRegression

    flat = {name: arrays[f"x_{name}"].reshape(-1, 64) for name in ("train", "validation")}
    mean, std = flat["train"].mean(axis=0), flat["train"].std(axis=0)
    std[std == 0] = 1
    linear = LogisticRegression(C=0.1, max_iter=1000).fit((flat["train"] - mean) / std, arrays["y_train"])
    reference = linear.score((flat["validation"] - mean) / std, arrays["y_validation"])
    said = float(seen.why.split("linear ")[1].split("%")[0]) / 100
    assert said == pytest.approx(reference, abs=0.02)


def test_what_does_not_apply_says_why() -> None:
    text = tree.edit(recipes.gpt_bytes(), ["data.context=32", "data.max_bytes=20000", "depth=1", "dim=16", "num_heads=2", "run.threads=1"])
    found = examine(
        text, only=["class_balance", "input_scale", "label_noise", "shift", "label_shuffle", "augmentation", "duplicates_within"]
    )
    assert {check.outcome for check in found.checks} == {"skipped"}
    assert all(check.why and not check.why.startswith("could not") for check in found.checks)


def test_an_unknown_check_is_refused() -> None:
    with pytest.raises(UserError, match="there is no check 'balance'.*class_balance"):
        examine(recipes.digits_mini(), only=["balance"])


def test_no_time_left_is_said() -> None:
    found = examine(recipes.digits_mini(), budget=0.0)
    assert {check.outcome for check in found.checks} == {"skipped"}
    assert {check.why for check in found.checks} == {"the time of the examination is spent"}


def test_the_experiment_and_the_generator_stay_as_they_are() -> None:
    experiment = recipes.digits_mini()
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))
    before, state = tree.to_json(experiment), torch.random.get_rng_state()
    weights = [p.detach().clone() for p in model.parameters()]
    found = examine(experiment, only=["overfit_one_batch", "untrained_parameters"], model=model)
    assert {check.outcome for check in found.checks} == {"passed"}
    assert tree.to_json(experiment) == before and torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(weights, model.parameters(), strict=True)), "a copy was trained"


def test_findings_are_the_same_twice(tmp_path: Path) -> None:
    experiment = on_digits(tmp_path, change=wrong_labels)
    names = ["label_noise", "shift", "loss_at_init", "overfit_one_batch"]
    one, two = (examine(experiment, only=names, budget=600) for _ in range(2))
    assert one.findings == two.findings
    assert [replace(check, seconds=0) for check in one.checks] == [replace(check, seconds=0) for check in two.checks]
