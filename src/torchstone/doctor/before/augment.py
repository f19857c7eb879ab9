"""Whether augmentation makes one class into another: a mirrored 3, a 6 turned to a 9.

A copy that has learnt the samples as they are looks at augmented ones. One that is only harder to see scatters, or is unsure; one that now
shows another class is taken for that class *with confidence*: with a probability that samples of that class get themselves (the rule of
confident learning, Northcutt et al. 2021). A network can be as sure of what it has never seen, a boot that faces the other way; only what
also lies among the samples of that class, as near to one of them, pixel by pixel, as they lie to each other, is more than a note.
Shapes: N samples, K classes, F features.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from torchstone.core import random, tree
from torchstone.core.protocols import Batch
from torchstone.doctor.before.check import Seen, Skip, percent
from torchstone.doctor.before.patient import COARSE_FEATURES, ENOUGH_STEPS, Patient, flattened
from torchstone.doctor.finding import Evidence, Finding, images, table

Change = tuple[int, int, float, float, int]
"""Class, class it is taken for, share that is, share that also lies among the samples of that class, samples."""
CHANGED = 0.08
"""Share of a class's augmented samples that are taken for one other class with confidence. See benchmarks/doctor_augmentation.py."""
CROSSED = 0.25
"""Share that also lies among the samples of that class, from which it is more than a note. Mirrored clothing reaches 18 %, shoes that face
left and right, mirrored, 84 % (the same benchmark, on which this was chosen)."""
AMONG = 0.95
"""A sample lies among those of a class if it is as near to one of them as this share of its validation samples is."""
FEWEST = 8
"""Samples of a class below which nothing is said of it."""
JUDGE = 0.9
"""Share of the samples as they are that the copy must know to be asked about augmented ones."""
FEWEST_TAKEN = 5
DRAWS = 8
QUIET = {
    "flip": ({"p": 0.0},),
    "warp": ({"rotation": 0.0}, {"flip": 0.0}, {"crop_area": 1.0}, {"shear": 0.0}, {"translation": 0.0}, {"scale": (1.0, 1.0)}),
    "color_jitter": ({"hue": 0.0}, {"gray": 0.0}, {"brightness": 0.0}, {"contrast": 0.0}, {"saturation": 0.0}),
}
"""What can be turned off in a transform, by its kind."""


def augmentation(patient: Patient) -> Seen:
    """Confident changes of class by each augmentation."""
    wanted = [
        (number, transform)
        for number, transform in enumerate(patient.method.batch_transforms)
        if transform.train_only and getattr(transform, "group", 1) == 1
    ]
    if not patient.has_classes:
        raise Skip("the data have no classes")
    if not wanted:
        raise Skip("no transform changes the training samples one by one")
    if not patient.can_practise or patient.practised.steps < ENOUGH_STEPS:
        raise Skip("too few training steps fit into the budget")
    model = patient.practised.model
    validation, truth = patient.samples("validation"), patient.labels("validation")
    inputs: Any = validation.inputs
    clean = patient.probabilities(model, inputs, validation.target)
    right = clean.argmax(axis=1) == truth
    if right.mean() < JUDGE:
        raise Skip(f"the copy is right in {right.mean():.0%} of the samples as they are: too weak a judge")
    thresholds = np.array([clean[truth == k, k].mean() if (truth == k).any() else 2.0 for k in range(clean.shape[1])])
    among = Among(patient)
    worst = 0.0
    for number, transform in wanted:
        found = changes(patient, transform, thresholds, right, among)
        if not found:
            continue
        worst = max(worst, found[0][2])
        if found[0][2] >= CHANGED:
            return Seen(value=worst, threshold=CHANGED, findings=(finding(patient, number, transform, found, thresholds, right, among),))
    said = f"at most {percent(worst)} of a class's augmented samples are confidently taken for one other class"
    return Seen(value=worst, threshold=CHANGED, said=said)


class Among:
    """Whether samples lie where those of a class lie: by the distance to the nearest training sample of it."""

    def __init__(self, patient: Patient) -> None:
        train, labels = patient.coarse("train"), patient.labels("train")
        validation, truth = patient.coarse("validation"), patient.labels("validation")
        self.of = {k: train[labels == k] for k in np.unique(labels).tolist()}
        known = {k: validation[truth == k] for k in self.of if (truth == k).any()}
        self.limits = {k: float(np.quantile(nearest(rows, self.of[k]), AMONG)) for k, rows in known.items()}

    def __call__(self, features: Float[np.ndarray, "N F"], k: int) -> Bool[np.ndarray, " N"]:
        if k not in self.limits:
            return np.zeros(len(features), dtype=bool)
        return nearest(features, self.of[k]) <= self.limits[k]


def nearest(these: Float[np.ndarray, "N F"], those: Float[np.ndarray, "M F"]) -> Float[np.ndarray, " N"]:
    """Euclidean distance of each to the nearest of those."""
    from scipy.spatial.distance import cdist

    return cdist(these, those).min(axis=1)


def changes(patient: Patient, transform: Any, thresholds: np.ndarray, right: np.ndarray, among: Among) -> list[Change]:
    """Of samples known as they are, the largest share first; unchanged ones do not count."""
    some, truth = patient.samples("validation"), patient.labels("validation")
    count = len(thresholds)
    taken, near, seen = np.zeros((count, count)), np.zeros((count, count)), np.zeros(count)
    for draw in range(DRAWS):
        keys = random.sample_keys(random.key(0, "doctor", "augmentation", draw), torch.from_numpy(some.rows))
        batch = transform(Batch(some.inputs, some.target, torch.from_numpy(some.rows), torch.ones(len(some))), keys)
        moved = (batch.inputs.double() != some.inputs.double()).flatten(1).any(dim=1).numpy()
        if not isinstance(batch.target, Tensor) or batch.target.is_floating_point():
            return []
        p = patient.probabilities(patient.practised.model, batch.inputs, some.target)
        np.add.at(seen, truth[moved & right], 1)
        sure = np.where(p >= thresholds, p, -1.0)
        other = sure.argmax(axis=1)
        places = np.flatnonzero(moved & right & (sure.max(axis=1) >= 0) & (other != truth))
        np.add.at(taken, (truth[places], other[places]), 1)
        for k in np.unique(other[places]).tolist():
            those = places[other[places] == k]
            there = among(flattened(batch.inputs[torch.from_numpy(those)], COARSE_FEATURES), k)
            np.add.at(near, (truth[those[there]], k), 1)
    rows = [
        (a, b, float(taken[a, b] / seen[a]), float(near[a, b] / seen[a]), int(seen[a]))
        for a in range(count)
        for b in range(count)
        if seen[a] >= FEWEST and taken[a, b] >= FEWEST_TAKEN
    ]
    return sorted(rows, key=lambda row: (row[3] < CROSSED, -row[2]))


def finding(
    patient: Patient,
    number: int,
    transform: Any,
    found: list[Change],
    thresholds: np.ndarray,
    right: np.ndarray,
    among: Among,
) -> Finding:
    kind, classes = tree.kind_of(transform), patient.facts.classes
    a, b, share, near, _ = found[0]
    apart = near < CROSSED
    return Finding(
        check="augmentation",
        severity="note" if apart else "warning",
        summary=f"{kind} makes {percent(share)} of the samples of {classes[a]} look like {classes[b]}: a copy that knew them "
        "as they were takes them for that with confidence"
        + (f", though {percent(near) if near else 'none'} lie among its samples" if apart else ""),
        value=share,
        threshold=CHANGED,
        because=f"what is only harder to see is doubted or scattered; fewer than {CHANGED:.0%} go to one other class as "
        f"surely as its own samples do",
        evidence=shown(patient, transform, found),
        remedy=(milder(patient, number, transform, thresholds, right, among) or f"method.batch_transforms-={kind}",),
        advice="look at the pictures (--out DIR): would you still give them their label?"
        + (" If so, it is only a view that training has not shown yet, and the augmentation may do good." if apart else ""),
        rank=14,
    )


def milder(patient: Patient, number: int, transform: Any, thresholds: np.ndarray, right: np.ndarray, among: Among) -> str | None:
    """The one setting without which the transform changes no class; none where there is no such setting."""
    for setting in QUIET.get(tree.kind_of(transform), ()):
        ((name, value),) = setting.items()
        if getattr(transform, name) == value:
            continue
        quiet = replace(transform, **setting)
        found = changes(patient, quiet, thresholds, right, among)
        if not found or found[0][2] < CHANGED:
            text = f"[{','.join(map(str, value))}]" if isinstance(value, tuple) else f"{value:g}"
            return f"method.batch_transforms.{number}.{name}={text}"
    return None


def shown(patient: Patient, transform: Any, found: list[Change]) -> Evidence:
    """Samples of the classes that change, before and after, as pictures where they are wanted; else the classes."""
    classes = patient.facts.classes
    if patient.album is not None and patient.is_pictures:
        some, truth = patient.samples("validation"), patient.labels("validation")
        keys = random.sample_keys(random.key(0, "doctor", "augmentation", 0), torch.from_numpy(some.rows))
        after = transform(Batch(some.inputs, some.target, torch.from_numpy(some.rows), torch.ones(len(some))), keys).inputs
        files, captions = [], []
        for a in list(dict.fromkeys(row[0] for row in found))[:4]:
            for number, place in enumerate(np.flatnonzero(truth == a)[:3].tolist()):
                for what, x in (("before", some.inputs), ("after", after)):
                    file = patient.album.add(f"augmented-{a}-{number}-{what}.png", (x[place], some.target[place]))
                    if file is not None:
                        files.append(f"pictures/{file}")
                        captions.append(f"{classes[a]}, {what}")
        if files:
            return images(files, captions)
    rows = [[classes[a], classes[b], round(share, 3), round(near, 3), n] for a, b, share, near, n in found[:8]]
    return table(["class", "taken for", "share", "and among its samples", "samples"], rows)
