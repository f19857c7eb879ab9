"""Whether augmentation makes one class into another: a mirrored 3, a 6 turned to a 9.

A copy that has learnt the samples as they are looks at augmented ones. One that is only harder to see scatters, or is unsure; one that now
shows another class is taken for that class *with confidence*: with a probability that samples of that class get themselves (the rule of
confident learning, Northcutt et al. 2021). Shapes: N samples, K classes.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torchstone.core import random, tree
from torchstone.core.protocols import Batch
from torchstone.doctor.before.check import Seen, Skip, percent
from torchstone.doctor.before.learning import ENOUGH_STEPS
from torchstone.doctor.before.patient import Patient
from torchstone.doctor.finding import Evidence, Finding, images, table

CHANGED = 0.08
"""Share of a class's augmented samples that are taken for one other class with confidence. Crops of two fifths of a digit reach 7 %."""
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
    model = patient.practised.model
    if patient.practised.steps < ENOUGH_STEPS:
        raise Skip("too few training steps fit into the budget")
    validation, truth = patient.samples("validation"), patient.labels("validation")
    inputs: Any = validation.inputs
    clean = patient.probabilities(model, inputs, validation.target)
    right = clean.argmax(axis=1) == truth
    if right.mean() < JUDGE:
        raise Skip(f"the copy is right in {right.mean():.0%} of the samples as they are: too weak a judge")
    thresholds = np.array([clean[truth == k, k].mean() if (truth == k).any() else 2.0 for k in range(clean.shape[1])])
    worst = 0.0
    for number, transform in wanted:
        found = changes(patient, transform, thresholds, right)
        if not found:
            continue
        worst = max(worst, found[0][2])
        if found[0][2] >= CHANGED:
            return Seen(value=worst, threshold=CHANGED, findings=(finding(patient, number, transform, found, thresholds, right),))
    said = f"at most {percent(worst)} of a class's augmented samples are confidently taken for one other class"
    return Seen(value=worst, threshold=CHANGED, said=said)


def changes(patient: Patient, transform: Any, thresholds: np.ndarray, right: np.ndarray) -> list[tuple[int, int, float, int]]:
    """(class, class it is taken for, share, samples) of samples known as they are, the largest share first; unchanged ones do not count."""
    some, truth = patient.samples("validation"), patient.labels("validation")
    count = len(thresholds)
    taken, seen = np.zeros((count, count)), np.zeros(count)
    for draw in range(DRAWS):
        keys = random.sample_keys(random.key(0, "doctor", "augmentation", draw), torch.from_numpy(some.rows))
        batch = transform(Batch(some.inputs, some.target, torch.from_numpy(some.rows), torch.ones(len(some))), keys)
        moved = (batch.inputs.double() != some.inputs.double()).flatten(1).any(dim=1).numpy()
        if not isinstance(batch.target, Tensor) or batch.target.is_floating_point():
            return []
        p = patient.probabilities(patient.practised.model, batch.inputs, some.target)
        for place in np.flatnonzero(moved & right):
            seen[truth[place]] += 1
            sure = np.where(p[place] >= thresholds, p[place], -1.0)
            other = int(sure.argmax())
            if sure[other] >= 0 and other != truth[place]:
                taken[truth[place], other] += 1
    rows = [
        (a, b, float(taken[a, b] / seen[a]), int(seen[a]))
        for a in range(count)
        for b in range(count)
        if seen[a] >= FEWEST and taken[a, b] >= FEWEST_TAKEN
    ]
    return sorted(rows, key=lambda row: -row[2])


def finding(
    patient: Patient,
    number: int,
    transform: Any,
    found: list[tuple[int, int, float, int]],
    thresholds: np.ndarray,
    right: np.ndarray,
) -> Finding:
    kind, classes = tree.kind_of(transform), patient.facts.classes
    a, b, share, _ = found[0]
    return Finding(
        check="augmentation",
        severity="warning",
        summary=f"{kind} makes {percent(share)} of the samples of {classes[a]} look like {classes[b]}: a copy that knew them "
        f"as they were takes "
        "them for that with confidence",
        value=share,
        threshold=CHANGED,
        because=f"what is only harder to see is doubted or scattered; fewer than {CHANGED:.0%} go to one other class as "
        f"surely as its own samples do",
        evidence=shown(patient, transform, found),
        remedy=(milder(patient, number, transform, thresholds, right) or f"method.batch_transforms-={kind}",),
        advice="look at the pictures (--out DIR): would you still give them their label?",
        rank=14,
    )


def milder(patient: Patient, number: int, transform: Any, thresholds: np.ndarray, right: np.ndarray) -> str | None:
    """The one setting without which the transform changes no class; none where there is no such setting."""
    for setting in QUIET.get(tree.kind_of(transform), ()):
        ((name, value),) = setting.items()
        if getattr(transform, name) == value:
            continue
        quiet = replace(transform, **setting)
        found = changes(patient, quiet, thresholds, right)
        if not found or found[0][2] < CHANGED:
            text = f"[{','.join(map(str, value))}]" if isinstance(value, tuple) else f"{value:g}"
            return f"method.batch_transforms.{number}.{name}={text}"
    return None


def shown(patient: Patient, transform: Any, found: list[tuple[int, int, float, int]]) -> Evidence:
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
    return table(["class", "taken for", "share", "samples"], [[classes[a], classes[b], round(share, 3), n] for a, b, share, n in found[:8]])
