"""Checks by small trainings: does it learn one batch by heart, does it beat the simplest answers, does it "learn" labels that say nothing?

Shapes: N samples, K classes.
"""

import math

import numpy as np
import torch
from scipy.stats import binomtest
from torch import Tensor

from torchstone.core import tree
from torchstone.core.errors import UserError
from torchstone.core.protocols import Batch
from torchstone.data.splits import TensorSplit
from torchstone.doctor.before.check import Seen, Skip, has_field, percent
from torchstone.doctor.before.patient import ENOUGH_STEPS, LATE, Patient, prior, shuffled
from torchstone.doctor.finding import Finding, curve, table
from torchstone.train.rate_finder import rate_path
from torchstone.train.state import TrainState

ONE_BATCH, ONE_BATCH_STEPS, ONE_BATCH_SECONDS = 32, 240, 6.0
BY_HEART = 0.95
OTHER_RATES, OTHER_STEPS, OTHER_SECONDS = (10.0, 0.1, 100.0, 0.01, 1e3, 1e-3, 1e4, 1e-4, 1e5), 120, 2.0
"""Factors on the rate that are tried where its own does not do, the steps and the seconds of each."""
LOOK_EVERY = 10
WHOLE = 0.75
"""Share of the small training that must fit into its budget before a linear model is held against the network."""
ZERO_SECONDS = 3.0
LINEAR_SAMPLES = 2000
AHEAD = 0.03
"""Accuracy by which a linear model must be ahead to be remarked on."""
SHUFFLED_STEPS, SHUFFLED_SECONDS = 150, 5.0
ABOVE_CHANCE = 0.05


def overfit_one_batch(patient: Patient) -> Seen:
    """A network that can learn learns one small batch by heart (Karpathy, "A Recipe for Training Neural Networks", 2019)."""
    split = one_batch(patient)
    values, practice = by_heart(patient, split, None, ONE_BATCH_STEPS, ONE_BATCH_SECONDS)
    if patient.is_text:
        return recites(patient, split, practice.losses)
    if practice.steps < ENOUGH_STEPS and values[-1] < BY_HEART and math.isfinite(practice.losses[-1]):
        raise Skip(f"only {practice.steps} steps fit into {ONE_BATCH_SECONDS:g} s")
    value = values[-1]
    said = f"{value:.0%} of {len(split)} samples right after {practice.steps} steps on them alone"
    if value >= BY_HEART:
        return Seen(value=value, threshold=BY_HEART, said=said)
    base = float(np.bincount(split.target.numpy()).max() / len(split))
    rate = working_rate(patient, split)
    now = getattr(patient.method.optimizer, "lr", None)
    words = f"; at a rate of {rate:.1e} in place of {now:.1e} it learns them" if rate is not None and now is not None else ""
    blown = "" if math.isfinite(practice.losses[-1]) else " (the loss is not finite)"
    finding = Finding(
        check="overfit_one_batch",
        severity="error" if value < (1 + base) / 2 or rate is not None else "warning",
        summary=f"{practice.steps} steps on the same {len(split)} samples get {value:.0%} of them right{blown}{words}",
        value=value,
        threshold=BY_HEART,
        because="so few samples any network that can learn knows by heart; what it cannot repeat it cannot learn",
        evidence=curve("step", "training loss", {"one batch": (list(range(1, practice.steps + 1)), list(practice.losses))}),
        remedy=at_better_rate(patient) or wider(patient),
        advice=""
        if rate is not None
        else "no rate from 1e-4 to 1e5 times its own helped: look at the model, its first weights and its inputs",
        rank=15 if rate is not None else 25,
    )
    return Seen(value=value, threshold=BY_HEART, said=said, findings=(finding,))


def one_batch(patient: Patient) -> TensorSplit:
    """A few samples that differ from each other, so that they can be learnt by heart."""
    some = patient.samples("train")
    if not isinstance(some.inputs, Tensor) or not (patient.is_text or patient.has_classes):
        raise Skip("for classes and text only")
    flat = some.inputs.flatten(1).numpy()[:1000]
    first = np.sort(np.unique(flat, axis=0, return_index=True)[1])
    if len(first) < 2:
        raise Skip("all samples are the same")
    rows = patient.generator("one batch").permutation(first)[: min(ONE_BATCH, patient.run.batch_size)]
    place = torch.from_numpy(np.sort(rows))
    return TensorSplit(some.inputs[place], some.target[place])


def by_heart(patient: Patient, split: TensorSplit, rate: float | None, steps: int, seconds: float):
    """(share right at every look, the training) of steps on the same samples at a constant rate."""
    values = [0.0]

    def watch(state: TrainState, step: int) -> bool:
        if patient.is_text or step % LOOK_EVERY:
            return False
        answers = [patient.outputs(state.model, split.inputs, split.target, training=mode).argmax(-1) for mode in (True, False)]
        state.model.train()
        values.append(max(float((answer == split.target).double().mean()) for answer in answers))
        return values[-1] == 1.0

    return values, patient.practise(split, steps, rate=rate, constant=True, watch=watch, seconds=patient.patience * seconds)


def recites(patient: Patient, split: TensorSplit, losses: tuple[float, ...]) -> Seen:
    """Text: the loss on one batch must fall below the entropy of its bytes, which needs no context."""
    if len(losses) < ENOUGH_STEPS and math.isfinite(losses[-1]):
        raise Skip(f"only {len(losses)} steps fit into {ONE_BATCH_SECONDS:g} s")
    target = split.target.flatten()
    shares = torch.bincount(target[target >= 0]).double()
    shares = shares[shares > 0] / shares.sum()
    entropy = float(-(shares * shares.log()).sum())
    value = min(losses[-5:]) if math.isfinite(losses[-1]) else math.inf
    said = f"loss {value:.2f} after {len(losses)} steps on one batch; its bytes alone have {entropy:.2f}"
    if value < entropy:
        return Seen(value=value, threshold=entropy, said=said)
    rate = None
    for factor in OTHER_RATES:
        _, other = by_heart(patient, split, factor * now_rate(patient), OTHER_STEPS, OTHER_SECONDS)
        if math.isfinite(other.losses[-1]) and min(other.losses[-5:]) < entropy:
            rate = factor * now_rate(patient)
            break
    finding = Finding(
        check="overfit_one_batch",
        severity="error",
        summary=f"{len(losses)} steps on one batch leave the loss at {value:.3g}; the frequencies of its bytes alone have {entropy:.3g}"
        + (f"; at a rate of {rate:.1e} it falls below" if rate else ""),
        value=value if math.isfinite(value) else None,
        threshold=entropy,
        because="the entropy of the frequencies is what an answer without any context reaches",
        evidence=curve("step", "training loss", {"one batch": (list(range(1, len(losses) + 1)), list(losses))}),
        remedy=(f"method.{rate_path(patient.method)}={rate:.2g}",) if rate else (),
        advice="" if rate else "no other rate helped: look at the model and its first weights",
        rank=15,
    )
    return Seen(value=value, threshold=entropy, said=said, findings=(finding,))


def now_rate(patient: Patient) -> float:
    return float(tree.get(patient.method, rate_path(patient.method)))


def working_rate(patient: Patient, split: TensorSplit) -> float | None:
    """The rate nearest to the experiment's, in powers of ten, by which the batch is learnt; none where none does."""
    try:
        now = now_rate(patient)
    except UserError:
        return None
    for factor in OTHER_RATES:
        if by_heart(patient, split, factor * now, OTHER_STEPS, OTHER_SECONDS)[0][-1] >= BY_HEART:
            patient.better_rate = factor * now
            return patient.better_rate
    return None


def at_better_rate(patient: Patient) -> tuple[str, ...]:
    """The rate by which one batch was learnt, where the experiment's own did not do."""
    return () if patient.better_rate is None else (f"method.{rate_path(patient.method)}={patient.better_rate:.2g}",)


def wider(patient: Patient) -> tuple[str, ...]:
    """More room, for the models whose width is one setting."""
    model = patient.prepared.experiment.model
    if has_field(model, "hidden"):
        widths = getattr(model, "hidden", ()) or (32,)
        return (f"model.hidden=[{','.join(str(max(64, 4 * width)) for width in widths)}]",)
    if has_field(model, "widths"):
        return (f"model.widths=[{','.join(str(max(16, 4 * width)) for width in model.widths)}]",)  # type: ignore[union-attr]
    return ()


def baselines(patient: Patient) -> Seen:
    """The network after a short training against what needs no network: the most frequent class, inputs of zero, a linear model."""
    if not patient.has_classes:
        raise Skip("the data have no classes")
    validation = patient.samples("validation")
    truth = patient.labels("validation")
    if len(truth) < 20:
        raise Skip(f"too few validation samples ({len(truth)})")
    if not patient.can_practise:
        raise Skip(f"a step takes {patient.step_seconds:.2g} s: fewer than {ENOUGH_STEPS} training steps fit into the budget")
    practice = patient.practised
    if practice.steps < ENOUGH_STEPS and math.isfinite(practice.losses[-1]):
        raise Skip(f"only {practice.steps} training steps fit into the budget")
    answers = patient.outputs(practice.model, validation.inputs, validation.target).argmax(-1).numpy()
    network = float((answers == truth).mean())
    shares = prior(patient.labels("train"), len(patient.facts.classes))
    majority = float((truth == shares.argmax()).mean())
    nothing = zero_inputs(patient, practice.steps)
    linear_answers = linear(patient)
    linear_share = float((linear_answers == truth).mean())
    rows = [["network", network], ["linear", linear_share], ["inputs of zero", nothing], ["most frequent class", majority]]
    evidence = table(["after a short training", "validation accuracy"], rows)
    others = f"linear {linear_share:.1%}, zero inputs {nothing:.1%}, most frequent {majority:.1%}"
    said = f"network {network:.1%} after {practice.steps} steps; {others}"
    base = max(majority, nothing)
    p = float(binomtest(int((answers == truth).sum()), len(truth), min(base, 1 - 1e-9), alternative="greater").pvalue)
    if p > 0.01 and base < 0.99:
        both = linear_share <= base + 2 * math.sqrt(base * (1 - base) / len(truth))
        finding = Finding(
            check="baselines",
            severity="error",
            summary=f"after {practice.steps} steps the network is right in {network:.1%} of {len(truth)} validation samples; "
            f"knowing nothing of the "
            f"inputs gives {base:.1%}" + (" (a linear model does no better)" if both else f", a linear model {linear_share:.1%}"),
            value=network,
            threshold=base,
            because=f"a difference that chance makes with probability {p:.2g} is none; above 1 % nothing has been shown to be learnt",
            evidence=evidence,
            remedy=() if both else at_better_rate(patient) or wider(patient),
            advice="the inputs may say nothing about these labels: check that they belong together, row by row"
            if both
            else "the data can be learnt and this network does not: look at its findings above, its width and its rate",
            rank=16 if both else 30,
        )
        return Seen(value=network, threshold=base, said=said, findings=(finding,))
    ahead = int(((linear_answers == truth) & (answers != truth)).sum())
    behind = int(((linear_answers != truth) & (answers == truth)).sum())
    p = float(binomtest(ahead, ahead + behind, alternative="greater").pvalue) if ahead + behind else 1.0
    if practice.steps < WHOLE * patient.practice_steps and ahead > behind:
        said += f" (too few of {patient.practice_steps} steps fitted into the budget to hold that against it)"
        return Seen(value=network, threshold=base, said=said)
    if linear_share - network < AHEAD or p > 0.01:
        return Seen(value=network, threshold=max(base, linear_share - AHEAD), said=said)
    finding = Finding(
        check="baselines",
        severity="warning",
        summary=f"after {practice.steps} steps the network is right in {network:.1%} of the validation samples, a linear "
        f"model in {linear_share:.1%}",
        value=network,
        threshold=linear_share,
        because=f"what is more than a linear model should not be behind it; by chance it is so far behind with p = {p:.1g} (McNemar)",
        evidence=evidence,
        remedy=at_better_rate(patient) or wider(patient),
        advice="the training looked at is short; if a long one stays behind as well, the network is too narrow or its rate is wrong",
        rank=30,
    )
    return Seen(value=network, threshold=linear_share, said=said, findings=(finding,))


def zero_inputs(patient: Patient, steps: int) -> float:
    """Validation accuracy of the network when it is trained and asked with inputs of zero."""
    some, other = patient.samples("train"), patient.samples("validation")
    split = TensorSplit(torch.zeros_like(some.inputs), some.target)
    practice = patient.practise(split, min(steps, patient.steps_in(ZERO_SECONDS, 60)))
    outputs = patient.outputs(practice.model, torch.zeros_like(other.inputs), other.target)
    return float((outputs.argmax(-1) == other.target).double().mean())


def linear(patient: Patient) -> np.ndarray:
    """Answers on the validation samples of logistic regression over standardized flattened inputs."""
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x, y = patient.flat("train")[:LINEAR_SAMPLES], patient.labels("train")[:LINEAR_SAMPLES]
    if len(np.unique(y)) < 2:
        return np.full(len(patient.labels("validation")), y[0])
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=100, tol=1e-3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # near enough for a yardstick
        return model.fit(x, y).predict(patient.flat("validation"))


def label_shuffle(patient: Patient) -> Seen:
    """Trained on labels dealt out at random, and asked for such labels, the network must do no better than chance: else they leak."""
    if not patient.has_classes:
        raise Skip("the data have no classes")
    some, other = patient.samples("train"), patient.samples("validation")
    if len(other) < 20:
        raise Skip(f"too few validation samples ({len(other)})")
    steps = patient.steps_in(SHUFFLED_SECONDS, SHUFFLED_STEPS)
    if steps < ENOUGH_STEPS:
        raise Skip(f"only {steps} training steps fit into {SHUFFLED_SECONDS:g} s")
    dealt = {name: shuffled(part.target, patient.generator("shuffled", name)) for name, part in (("train", some), ("validation", other))}
    practice = patient.practise(TensorSplit(some.inputs, dealt["train"]), steps, seconds=patient.patience * SHUFFLED_SECONDS * LATE)
    answers = patient.outputs(practice.model, other.inputs, dealt["validation"]).argmax(-1)
    right = int((answers == dealt["validation"]).sum())
    value = right / len(other)
    chance = float(prior(dealt["validation"].numpy(), len(patient.facts.classes)).max())
    p = float(binomtest(right, len(other), min(chance, 1 - 1e-9), alternative="greater").pvalue)
    threshold = chance + ABOVE_CHANCE
    said = f"{value:.1%} of shuffled validation labels are guessed; the most frequent class gives {chance:.1%}"
    if value < threshold or p > 1e-4:
        return Seen(value=value, threshold=threshold, said=said)
    finding = Finding(
        check="label_shuffle",
        severity="error",
        summary=f"{percent(value)} of validation labels that were dealt out at random are guessed, where {percent(chance)} is chance: "
        "the model is told the labels",
        value=value,
        threshold=threshold,
        because=f"random labels have nothing to do with the inputs; chance alone gives this with p = {p:.1g}",
        evidence=table(["", "share"], [["guessed", value], ["most frequent class", chance]]),
        remedy=telling(patient),
        advice="look for a transform or a layer that reads the target: it is there in training and in evaluation, and not in use",
        rank=4,
    )
    return Seen(value=value, threshold=threshold, said=said, findings=(finding,))


def telling(patient: Patient) -> tuple[str, ...]:
    """Taking out the transform whose inputs change with the target: prediction applies it too, and has no target."""
    some, other = patient.samples("train"), patient.generator("telling")
    for number, transform in enumerate(patient.method.batch_transforms):
        if transform.train_only:
            continue
        place = torch.arange(min(64, len(some)))
        made = [
            transform(Batch(some.inputs[place], target, place, torch.ones(len(place))), torch.zeros_like(place)).inputs
            for target in (some.target[place], shuffled(some.target[place], other))
        ]
        if not torch.equal(*made):
            return (f"method.batch_transforms-={number}",)
    return ()
