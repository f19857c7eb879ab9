"""Checks of the inputs: their scale as the model reads them, what never varies, and whether train and test are of one kind.

Classifier two-sample test: Lopez-Paz and Oquab, "Revisiting Classifier Two-Sample Tests", 2017, https://arxiv.org/abs/1610.06545.
Shapes: N samples, F features, C channels.
"""

import numpy as np
from jaxtyping import Float
from torch import Tensor

from torchstone.core import tree
from torchstone.data.pixels import as_float
from torchstone.doctor.before.check import Seen, Skip, percent
from torchstone.doctor.before.leaving_out import HOW, without
from torchstone.doctor.before.patient import Patient
from torchstone.doctor.before.start import few
from torchstone.doctor.finding import Finding, table

RMS = (0.05, 8.0)
"""Between these the inputs' root mean square, as the model reads them, is fine."""
RMS_ERROR = 30.0
UNEVEN = 100.0
"""Largest over median deviation of the features of vectors."""
BLANK_WARNING, BLANK_ERROR = 0.02, 0.2
CONSTANT = 0.5
AUC_WARNING, AUC_ERROR = 0.65, 0.85
SURE = 1e-4
"""A p-value below this is no chance."""
COMPARED, TREES, FOLDS = 1000, 100, 4


def input_scale(patient: Patient) -> Seen:
    """The size of the numbers that the model reads."""
    if patient.is_text:
        raise Skip("the inputs are tokens")
    inputs = patient.as_read(*few(patient, 1000))
    if not isinstance(inputs, Tensor):
        raise Skip("the inputs are no single tensor")
    x = inputs.double()
    across = [d for d in range(x.ndim) if d != 1]
    means, stds = x.mean(dim=across), x.std(dim=across, unbiased=False)
    rms = float(x.square().mean().sqrt())
    lively = stds[stds > 0]
    uneven = float(lively.max() / lively.median()) if x.ndim == 2 and len(lively) > 1 else 1.0
    rows = [[number, mean, std] for number, (mean, std) in enumerate(zip(means.tolist(), stds.tolist(), strict=True))][:20]
    evidence = table(["channel" if x.ndim > 2 else "feature", "mean", "deviation"], rows)
    said = f"root mean square {rms:.3g}, mean {float(means.mean()):.3g}, deviation {float(stds.mean()):.3g}"
    if not RMS[0] <= rms <= RMS[1]:
        finding = Finding(
            check="input_scale",
            severity="error" if rms > RMS_ERROR or rms < RMS[0] / 50 else "warning",
            summary=f"the inputs have a root mean square of {rms:.3g} as the model reads them (mean {float(means.mean()):.3g}, "
            f"deviation {float(stds.mean()):.3g})",
            value=rms,
            threshold=RMS[1] if rms > 1 else RMS[0],
            because="first weights and rates are made for inputs of about mean 0 and deviation 1 (LeCun et al. 1998, section 4.3)",
            evidence=evidence,
            remedy=normalizing(patient),
            advice="normalize by the training split's mean and deviation",
            rank=5,
        )
        return Seen(value=rms, threshold=RMS[1], said=said, findings=(finding,))
    if uneven > UNEVEN:
        finding = Finding(
            check="input_scale",
            severity="warning",
            summary=f"the most widely spread feature deviates {uneven:.0f} times as much as the median one",
            value=uneven,
            threshold=UNEVEN,
            because="the steepness of the loss along a weight grows with the square of its input: one rate cannot fit "
            "features so far apart",
            evidence=evidence,
            remedy=normalizing(patient),
            advice="normalize each feature",
            rank=5,
        )
        return Seen(value=uneven, threshold=UNEVEN, said=said, findings=(finding,))
    return Seen(value=rms, threshold=RMS[1], said=said)


def normalizing(patient: Patient) -> tuple[str, ...]:
    """Normalization from the training split, in place of what is there."""
    if not patient.facts.mean:
        return ()
    kinds = [tree.kind_of(transform) for transform in patient.method.batch_transforms]
    return (
        (f"method.batch_transforms.{kinds.index('normalize')}=normalize",)
        if "normalize" in kinds
        else ("method.batch_transforms+=normalize",)
    )


def constant_inputs(patient: Patient) -> Seen:
    """Samples without anything in them, and features that never vary."""
    if patient.is_text:
        raise Skip("the inputs are tokens")
    some = patient.samples("train")
    if not isinstance(some.inputs, Tensor):
        raise Skip("the inputs are no single tensor")
    x = as_float(some.inputs).flatten(1)
    blank = np.flatnonzero((x.amax(dim=1) - x.amin(dim=1) == 0).numpy()) if x.shape[1] > 1 else np.zeros(0, dtype=np.int64)
    share = len(blank) / len(x)
    still = (x.amax(dim=0) - x.amin(dim=0) == 0).numpy()
    said = f"{len(blank)} of {len(x)} samples are blank, {int(still.sum())} of {x.shape[1]} numbers never vary"
    if share >= BLANK_WARNING:
        finding = Finding(
            check="constant_inputs",
            severity="error" if share >= BLANK_ERROR else "warning",
            summary=f"{len(blank)} of {len(x)} training samples ({percent(share)}) are blank: all their numbers are the same",
            value=share,
            threshold=BLANK_WARNING,
            because="nothing can be told from them but the frequencies of the classes",
            evidence=table(["training sample", "its number"], [[int(some.rows[i]), float(x[i, 0])] for i in blank[:20]]),
            remedy=without(patient, "train", {row: "constant_inputs: blank" for row in blanks(patient)}),
            advice="look for files that were not read, masks, or a transform that empties them; then train without them"
            + ("" if patient.out is not None else f" ({HOW})"),
            rank=6,
        )
        return Seen(value=share, threshold=BLANK_WARNING, said=said, findings=(finding,))
    if still.mean() > CONSTANT:
        finding = Finding(
            check="constant_inputs",
            severity="warning",
            summary=f"{int(still.sum())} of {len(still)} input numbers ({percent(float(still.mean()))}) never vary over "
            f"{len(x)} training samples",
            value=float(still.mean()),
            threshold=CONSTANT,
            because="they carry nothing; where most are still, columns were probably mixed up or not filled",
            evidence=table(["feature", "its number"], [[int(i), float(x[0, i])] for i in np.flatnonzero(still)[:20]]),
            advice="find out why they are empty, or write the data without these columns: no edit leaves out columns",
            rank=6,
        )
        return Seen(value=float(still.mean()), threshold=CONSTANT, said=said, findings=(finding,))
    return Seen(value=share, threshold=BLANK_WARNING, said=said)


def blanks(patient: Patient) -> list[int]:
    """Rows of all blank training samples, not only of those looked at."""
    if patient.out is None:
        return []
    found: list[int] = []
    for rows in np.array_split(np.arange(len(patient.prepared.splits.train)), -(-len(patient.prepared.splits.train) // 1024)):
        x = as_float(patient.fetched("train", rows)[0]).flatten(1)
        found += rows[(x.amax(dim=1) == x.amin(dim=1)).numpy()].tolist()
    return found


def shift(patient: Patient) -> Seen:
    """Whether a classifier can tell training samples from test samples, which it should not."""
    if patient.is_text:
        raise Skip("a text is cut by position: what comes later differs")
    from scipy.stats import mannwhitneyu

    size = min(COMPARED, len(patient.samples("train")), len(patient.samples("test")))
    if size < 40:
        raise Skip(f"too few samples to compare ({size})")
    parts = {}
    for name in ("train", "test"):
        x = described(patient.samples(name).inputs, patient.coarse(name))
        parts[name] = x[np.sort(patient.generator("shift", name).permutation(len(x))[:size])]
    scores = scores_of(parts["train"], parts["test"])
    statistic, p = mannwhitneyu(scores[size:], scores[:size], alternative="greater")
    auc = float(statistic) / size**2
    said = f"area under the curve {auc:.3f} (p = {p:.2g}), train against test, {size} samples each"
    if auc < AUC_WARNING or p > SURE:
        return Seen(value=auc, threshold=AUC_WARNING, said=said)
    far = differences(parts["train"], parts["test"], patient.samples("train").inputs)
    finding = Finding(
        check="shift",
        severity="error" if auc >= AUC_ERROR else "warning",
        summary=f"training and test samples can be told apart: area under the curve {auc:.2f} (p = {p:.1g}), cross-validated",
        value=auc,
        threshold=AUC_WARNING,
        because=f"0.5 is none; above {AUC_WARNING:g} at p < {SURE:g} the test asks about other data than was trained on",
        evidence=table(["what", "train", "test", "difference in deviations"], far),
        remedy=milder(patient, far),
        advice="find out what differs (the table lists the most), then collect, split or augment accordingly",
        rank=11,
    )
    return Seen(value=auc, threshold=AUC_WARNING, said=said, findings=(finding,))


def described(inputs: Tensor, flat: Float[np.ndarray, "N F"]) -> Float[np.ndarray, "N G"]:
    """The flattened inputs, and for pictures mean, deviation and extremes of each channel before them."""
    x = as_float(inputs).double()
    if x.ndim != 4:
        return flat
    channels = x.flatten(2)
    moments = [channels.mean(dim=2), channels.std(dim=2, unbiased=False), channels.amin(dim=2), channels.amax(dim=2)]
    return np.concatenate([*(moment.numpy() for moment in moments), flat], axis=1)


def scores_of(train: Float[np.ndarray, "N G"], test: Float[np.ndarray, "N G"]) -> Float[np.ndarray, " M"]:
    """How much each sample looks like one of the test, by trees that have not seen it; the training samples first."""
    from sklearn.ensemble import ExtraTreesClassifier
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    x, y = np.concatenate([train, test]), np.repeat([0, 1], [len(train), len(test)])
    trees = ExtraTreesClassifier(TREES, min_samples_leaf=3, random_state=0, n_jobs=1)
    both = cross_val_predict(trees, x, y, cv=StratifiedKFold(FOLDS, shuffle=True, random_state=0), method="predict_proba")
    return np.asarray(both)[:, 1]


def differences(train: np.ndarray, test: np.ndarray, inputs: Tensor) -> list[list]:
    """The numbers that differ most: name, mean in train and test, difference over the training deviation."""
    channels = inputs.shape[1] if inputs.ndim == 4 else 0
    names = [f"{what} of channel {c}" for what in ("mean", "deviation", "least", "largest") for c in range(channels)]
    spread = np.maximum(train.std(axis=0), 1e-12)
    far = (test.mean(axis=0) - train.mean(axis=0)) / spread
    order = np.argsort(-np.abs(np.where(train.std(axis=0) > 0, far, 0)), kind="stable")[:8]
    named = [names[i] if i < len(names) else f"number {i - len(names)}" for i in order.tolist()]
    return [
        [name, float(train[:, i].mean()), float(test[:, i].mean()), float(far[i])] for name, i in zip(named, order.tolist(), strict=True)
    ]


def milder(patient: Patient, far: list[list]) -> tuple[str, ...]:
    """Color changes in training where the pictures differ in brightness; a random split in place of one by time."""
    if patient.prepared.splits.ordered and getattr(patient.prepared.experiment.data, "split", "") == "temporal":
        return ("data.split=auto",)
    kinds = [tree.kind_of(transform) for transform in patient.method.batch_transforms]
    if patient.is_pictures and "color_jitter" not in kinds and any("of channel" in row[0] and abs(row[3]) > 0.5 for row in far):
        return ("method.batch_transforms+=color_jitter",)
    return ()
