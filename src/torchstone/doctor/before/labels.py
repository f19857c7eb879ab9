"""Checks of the labels: how many of each class, and which are likely to be wrong.

Confident learning: Northcutt, Jiang and Chuang, "Confident Learning: Estimating Uncertainty in Dataset Labels", 2021,
https://arxiv.org/abs/1911.00068. Shapes: N samples, K classes.
"""

import numpy as np
from jaxtyping import Float, Int

from torchstone.core import tree
from torchstone.doctor.before.check import Seen, Skip, has_field, percent
from torchstone.doctor.before.leaving_out import HOW, without
from torchstone.doctor.before.patient import Patient
from torchstone.doctor.finding import Evidence, Finding, bars, images, table

IMBALANCE = 10.0
"""Training samples of the largest class over those of the smallest."""
NOISE_WARNING, NOISE_ERROR = 0.04, 0.25
"""Share of labels that are surely suspect."""
SURE = 0.5
"""How much more probable another class must be than the label."""
ALLOW = ("logit_adjustment", "ldam")
"""Losses made for classes of different size."""
WEAK = 0.55
"""Share of labels that a judge must get right to be one."""
TREES, FOLDS = 150, 4
SHOWN = 24


def class_balance(patient: Patient) -> Seen:
    """How often each class occurs in what is trained on."""
    counts = patient.facts.class_counts
    if not counts:
        raise Skip("the data have no classes")
    classes = patient.facts.classes
    empty = [name for name, count in zip(classes, counts, strict=True) if count == 0]
    ratio = max(counts) / max(1, min(counts))
    said = f"{max(counts)} samples of the largest class, {min(counts)} of the smallest"
    weighted = getattr(patient.method.objective, "class_weights", ()) or tree.kind_of(patient.method.objective) in ALLOW
    if empty:
        finding = Finding(
            check="class_balance",
            severity="error",
            summary=f"{len(empty)} of {len(classes)} classes have no training sample: {', '.join(empty[:6])}",
            value=0.0,
            threshold=1.0,
            because="what is never shown is never said",
            evidence=bars(classes, [float(count) for count in counts]),
            advice="add samples of them, or leave the classes out",
            rank=9,
        )
        return Seen(value=ratio, threshold=IMBALANCE, findings=(finding,))
    if ratio < IMBALANCE or weighted:
        return Seen(value=ratio, threshold=IMBALANCE, said=said + (", and the loss allows for it" if weighted else ""))
    rare, loss = classes[int(np.argmin(counts))], patient.method.loss
    finding = Finding(
        check="class_balance",
        severity="warning",
        summary=f"the largest class has {ratio:.0f} times the training samples of the smallest ({max(counts)} against "
        f"{min(counts)} of {rare})",
        value=ratio,
        threshold=IMBALANCE,
        because=f"whoever always says the largest class is right in {percent(max(counts) / sum(counts))}; from about 10 : 1 "
        f"on the rare classes "
        "hardly move the mean loss",
        evidence=bars(classes, [float(count) for count in counts]),
        remedy=("method.loss.weighting=balanced",) if has_field(loss, "weighting") else ("method.loss=logit_adjustment",),
        advice="weigh the rare classes up, and look at balanced accuracy rather than at accuracy",
        rank=13,
    )
    return Seen(value=ratio, threshold=IMBALANCE, findings=(finding,))


def label_noise(patient: Patient) -> Seen:
    """Training samples whose label a cross-validated judge surely doubts."""
    if not patient.has_classes:
        raise Skip("the data have no classes")
    some, classes, labels = patient.samples("train"), patient.facts.classes, patient.labels("train")
    present, dense = np.unique(labels, return_inverse=True)
    counts = np.bincount(dense)
    if len(present) < 2 or counts.min() < FOLDS:
        raise Skip(f"a class has fewer than {FOLDS} of the samples looked at")
    probabilities = out_of_fold(patient.coarse("train"), dense)
    right = float((probabilities.argmax(axis=1) == dense).mean())
    # With noise a perfect judge agrees with as many labels as are right; below that nobody can tell noise from difficulty.
    if right < max(WEAK, 1.5 * counts.max() / len(dense) if counts.max() < 0.5 * len(dense) else 0.0):
        raise Skip(f"extra trees on flattened inputs agree with {right:.0%} of the labels only: too weak a judge")
    joint, suspect = confident_joint(dense, probabilities)
    margin = probabilities.max(axis=1) - probabilities[np.arange(len(dense)), dense]
    sure = suspect & (margin >= SURE)
    share = float(sure.mean())
    estimate = float(1 - np.trace(calibrated(joint, counts)))
    said = f"{percent(share)} of the labels are surely suspect; confident learning estimates {percent(estimate)}"
    if share < NOISE_WARNING:
        return Seen(value=share, threshold=NOISE_WARNING, said=said)
    order = np.argsort(-np.where(sure, margin, -1.0), kind="stable")[: int(sure.sum())]
    said_of = {
        int(some.rows[i]): f"label_noise: called {classes[present[dense[i]]]}, rather {classes[present[probabilities[i].argmax()]]}"
        for i in order
    }
    count = len(patient.prepared.splits.train)
    more = f" (of {len(dense):,} of {count:,}: look again afterwards)" if len(dense) < count else ""
    finding = Finding(
        check="label_noise",
        severity="error" if share >= NOISE_ERROR else "warning",
        summary=f"{int(sure.sum())} of {len(dense)} training labels looked at ({percent(share)}) are surely suspect: another "
        f"class is at least "
        f"{SURE:g} more probable (confident learning estimates {percent(estimate)} wrong)",
        value=share,
        threshold=NOISE_WARNING,
        because=f"the judge agrees with {right:.0%} of the labels; on clean data of that difficulty fewer than "
        f"{NOISE_WARNING:.0%} are doubted so surely",
        evidence=suspects(patient, order[:SHOWN], present, dense, probabilities, margin),
        remedy=without(patient, "train", said_of) or robust(patient),
        advice=f"look at the samples and mend their labels, or train without them{more if patient.out is not None else f' ({HOW})'}; "
        "smoothing makes the wrong ones do less harm",
        rank=12,
    )
    return Seen(value=share, threshold=NOISE_WARNING, said=said, findings=(finding,))


def out_of_fold(features: Float[np.ndarray, "N F"], labels: Int[np.ndarray, " N"]) -> Float[np.ndarray, "N K"]:
    """Probabilities of each class by extremely randomized trees that have not seen the sample (stratified folds)."""
    from sklearn.ensemble import ExtraTreesClassifier
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    trees = ExtraTreesClassifier(TREES, min_samples_leaf=2, random_state=0, n_jobs=1)
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    return np.asarray(cross_val_predict(trees, features, labels, cv=folds, method="predict_proba"))


def confident_joint(labels: Int[np.ndarray, " N"], probabilities: Float[np.ndarray, "N K"]) -> tuple[Int[np.ndarray, "K K"], np.ndarray]:
    """(counts of label i whose confident class is j, which samples lie off the diagonal): Northcutt et al., eq. 1.

    A sample's confident class is the most probable of those whose probability reaches the mean that samples of this label get.
    """
    count = probabilities.shape[1]
    thresholds = np.array([probabilities[labels == k, k].mean() if (labels == k).any() else np.inf for k in range(count)])
    above = probabilities >= thresholds
    confident = np.where(above, probabilities, -1.0).argmax(axis=1)
    counted = above.any(axis=1)
    joint = np.zeros((count, count), dtype=np.int64)
    np.add.at(joint, (labels[counted], confident[counted]), 1)
    return joint, counted & (confident != labels)


def calibrated(joint: Int[np.ndarray, "K K"], counts: Int[np.ndarray, " K"]) -> Float[np.ndarray, "K K"]:
    """The joint distribution of labels and true classes: each row scaled to its label's count, all of it to 1 (their eq. 3)."""
    sums = joint.sum(axis=1, keepdims=True)
    rows = np.where(sums > 0, joint / np.maximum(sums, 1), np.eye(len(joint))) * counts[:, None]
    return rows / rows.sum()


def suspects(
    patient: Patient, order: np.ndarray, present: np.ndarray, dense: np.ndarray, probabilities: np.ndarray, margin: np.ndarray
) -> Evidence:
    """The samples to look at: as pictures where they are wanted, else as a table."""
    classes, some = patient.facts.classes, patient.samples("train")
    rows, files, captions = [], [], []
    for number, place in enumerate(order.tolist()):
        said, given = classes[present[probabilities[place].argmax()]], classes[present[dense[place]]]
        rows.append([int(some.rows[place]), given, said, round(float(margin[place]), 3)])
        file = patient.picture(f"suspect-{number:02d}.png", "train", int(some.rows[place]))
        if file is not None:
            files.append(file)
            captions.append(f"{rows[-1][0]}: {given}, or {said}?")
    if files:
        return images(files, captions)
    return table(["training sample", "label", "more probable", "by"], rows)


def robust(patient: Patient) -> tuple[str, ...]:
    """A loss that wrong labels harm less."""
    loss = patient.method.loss
    if not has_field(loss, "smoothing"):
        return ("method.loss=cross_entropy", "method.loss.smoothing=0.1")
    now = getattr(loss, "smoothing", 0.0)
    return ("method.loss.smoothing=0.1",) if now < 0.1 else ("method.loss.smoothing=0.2",) if now < 0.2 else ("run.select=best",)
