"""The loss of a linear model on a run's data, for the check of underfitting: computed when it is asked for, never during training.

Multinomial logistic regression (scikit-learn) on standardized pixels or features of at most 2,000 training samples, scored by the run's own
loss, so that smoothing and class weights count on both sides. Shapes: N samples, F features, C classes.
"""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from torchstone.core import layout

if TYPE_CHECKING:
    from torchstone.core.protocols import Split

SAMPLES = 2000


def linear_loss(run: Path) -> tuple[float, float] | None:
    """(training, validation) loss of the linear model; None where the run is no classifier of pictures or vectors."""
    import torch
    from sklearn.linear_model import LogisticRegression

    from torchstone.experiment.preparing import resolved
    from torchstone.experiment.tree import load_without_own_parts
    from torchstone.train.method import mixed_rows

    experiment, own = load_without_own_parts(run / layout.EXPERIMENT)
    if own or mixed_rows(experiment.method) > 1 or any(not t.train_only for t in experiment.method.sample_transforms):
        return None
    splits = experiment.data.open()
    if not splits.facts.classes:
        return None
    loss = resolved(replace(experiment, run=replace(experiment.run, device="cpu")), splits.facts).method.objective
    train, validation = (flat(split) for split in (splits.train, splits.validation))
    if train is None or validation is None or len(np.unique(train[1])) < 2 or hasattr(loss, "init"):
        return None
    center, spread = train[0].mean(axis=0), train[0].std(axis=0) + 1e-6
    model = LogisticRegression(C=1.0, max_iter=200).fit((train[0] - center) / spread, train[1])
    scored = []
    for inputs, target in (train, validation):
        # A class that training never shows has no output; so low a score that it is never the answer stands for it.
        scores = np.full((len(target), len(splits.facts.classes)), -30.0)
        found = model.decision_function((inputs - center) / spread)
        scores[:, model.classes_] = found if found.ndim == 2 else np.stack([-found / 2, found / 2], axis=1)
        logits, truth = torch.from_numpy(scores).float(), torch.from_numpy(target)
        weight = loss.weight(truth)
        scored.append(float((loss(logits, truth) * weight).sum() / weight.sum()))
    return scored[0], scored[1]


def flat(split: "Split") -> tuple[np.ndarray, np.ndarray] | None:
    """Evenly spaced samples as (inputs [N, F], target [N]); None where a sample is no picture or vector of one class."""
    from torch import Tensor

    from torchstone.data.pixels import as_float
    from torchstone.doctor.before.patient import MOST_FEATURES, flattened

    rows = np.linspace(0, len(split) - 1, min(len(split), SAMPLES)).astype(np.int64)
    inputs, target = split.fetch(rows)
    if not isinstance(inputs, Tensor) or not isinstance(target, Tensor) or target.ndim != 1 or target.is_floating_point():
        return None
    if inputs.ndim < 2 or not as_float(inputs).is_floating_point():
        return None
    found = flattened(inputs)
    return (found, target.numpy()) if found.shape[1] <= MOST_FEATURES else None
