"""Checks of the curves: training loss and validation loss over the steps."""

import math
from collections.abc import Sequence
from itertools import pairwise
from statistics import mean, median, pvariance
from typing import Any

from torchstone.doctor.during.verdict import Verdict, clipped, faster, found, install, longer, passed, put, skipped, slower
from torchstone.doctor.during.watched import Watched, last_part
from torchstone.doctor.finding import curve

FEWEST = 6
"""Logged losses below which a curve has no shape."""
NO_CURVE = f"fewer than {FEWEST} training losses are in log.jsonl and probes.jsonl"

SPIKE = 0.25
SPIKE_SIGMAS = 6.0
SPIKE_BECAUSE = (
    "a jump of a quarter of the loss at the start, and of six times the usual scatter, undoes what a quarter of the learning brought; "
    "batches alone do not do that"
)
ROUGH = 0.25
ROUGH_BECAUSE = (
    "past the edge of stability (rate x curvature > 2) steps overshoot and the loss moves up as often as down; jumps between logged steps "
    "of a quarter of the loss that is left are the size of the loss, not of its batch noise"
)
RISEN = 1.5
RISEN_BECAUSE = (
    "a network that learns does not get worse than it was before the first update; half as much again is beyond the noise of a batch"
)
FLAT, HIGH = 0.02, 0.5
FLAT_BECAUSE = (
    "less than 2 % in half a run is standing still, and more than half of the loss at the start is left: that is no end of learning but "
    "the lack of it (or labels that cannot be learned)"
)
GAP = 0.1
GAP_BECAUSE = "a tenth of the lowest validation loss is beyond its wobble between evaluations; the training loss fell meanwhile"
BEYOND = 0.25
"""Of the loss of a constant answer: how much worse than a linear model is worse."""
FALLING = 0.1
FALLING_BECAUSE = "a tenth of the remaining loss won in the last fifth of the run says that more steps win more"


def oscillation(run: Watched) -> Verdict:
    """How far the training loss rose above its start, and how far it jumps from one logged step to the next in the middle of the run."""
    name = "oscillation"
    if len(run.losses) < FEWEST or not run.start or run.start <= 0:
        return skipped(name, NO_CURVE)
    losses = [loss for _, loss in run.losses[1:]]
    highest = max(map(min, losses, losses[1:])) / run.start  # two logged steps in a row: one alone is a spike
    jumps = roughness(run.losses)
    if highest <= RISEN and jumps <= ROUGH:
        return passed(name, jumps, ROUGH, f"the highest two losses in a row are {highest:.2g} times the first")
    risen = highest > RISEN
    said = (
        f"the training loss rose to {highest:.3g} times what it was before the first update"
        if risen
        else f"the training loss jumps by {jumps:.0%} of its size from one logged step to the next"
    )
    return found(
        name,
        severity="error" if risen and highest > 4 else "warning",
        summary=f"{said}: the rate is too high",
        value=highest if risen else jumps,
        threshold=RISEN if risen else ROUGH,
        because=RISEN_BECAUSE if risen else ROUGH_BECAUSE,
        evidence=training(run),
        remedy=slower(run),
        advice="A smaller rate (torchstone doctor RECIPE --rate finds one), a warm-up, or larger batches.",
        rank=9,
    )


def roughness(points: Sequence[tuple[int, float]]) -> float:
    """The middle jump between neighbors, in units of the loss there, over the second and third quarter; 0 where the loss is below a tenth
    of its start: what is left there is the noise of batches."""
    first, last = points[0][0], points[-1][0]
    middle = [loss for step, loss in points if first + 0.25 * (last - first) <= step <= first + 0.75 * (last - first)]
    if len(middle) < 4 or median(middle) < 0.1 * points[0][1]:
        return 0.0
    return median(abs(b - a) for a, b in pairwise(middle)) / median(middle)


def loss_spikes(run: Watched) -> Verdict:
    """The highest jump of the training loss above the median of the five points before it."""
    name = "loss_spikes"
    points = run.losses
    if len(points) < FEWEST + 4 or not run.start or run.start <= 0:
        return skipped(name, NO_CURVE)
    excess = [(step, loss - median(l for _, l in points[i - 5 : i])) for i, (step, loss) in enumerate(points) if i >= 5]
    scatter = 1.4826 * median(abs(e) for _, e in excess) or 1e-12
    step, worst = max(excess, key=lambda pair: pair[1])
    spikes = [s for s, e in excess if e > SPIKE * run.start and e > SPIKE_SIGMAS * scatter]
    if not spikes:
        return passed(name, worst / run.start, SPIKE)
    return found(
        name,
        severity="warning",
        summary=f"the training loss jumped at {len(spikes)} of {len(points)} points, at {step} by {worst / run.start:.0%} of its start",
        value=worst / run.start,
        threshold=SPIKE,
        because=SPIKE_BECAUSE,
        evidence=training(run),
        remedy=clipped(run) or slower(run, 3),
        advice="Clipping cuts what a single batch can do; a smaller rate or a look at the batches of those steps.",
        rank=25,
    )


def plateau(run: Watched) -> Verdict:
    """The share of the training loss that the second half of the run took off, where much of the first loss is left."""
    name = "plateau"
    if len(run.losses) < FEWEST or not run.start or run.start <= 0 or run.end is None:
        return skipped(name, NO_CURVE)
    first, last = run.losses[0][0], run.losses[-1][0]
    around = [loss for step, loss in run.losses if abs(step - (first + last) / 2) <= 0.1 * (last - first)]
    if not around:
        return skipped(name, "no loss was logged in the middle of the run")
    fall, left = 1 - run.end / median(around), run.end / run.start
    if fall >= FLAT or left <= HIGH:
        return passed(name, fall, FLAT, f"{left:.0%} of the first loss is left")
    return found(
        name,
        severity="warning",
        summary=f"the second half of the run took {max(0.0, fall):.1%} off the training loss; {left:.0%} of the first loss is left",
        value=fall,
        threshold=FLAT,
        because=FLAT_BECAUSE,
        evidence=training(run),
        remedy=faster(run) if slow(run) else slower(run, 3),
        advice="Another rate first; then a larger model; then the labels: torchstone doctor RECIPE looks at them.",
        rank=30,
    )


def underfit(run: Watched, linear: tuple[float, float] | None = None) -> Verdict:
    """The training loss at the end against the best that needs no network: a constant answer, and a linear model where `linear` says its
    (training, validation) loss."""
    name = "underfit"
    floor = constant_loss(run)
    if run.status == "diverged" or run.end is None or (floor is None and linear is None):
        return skipped(
            name,
            "the run diverged"
            if run.status == "diverged"
            else "no training loss was logged"
            if run.end is None
            else "the best constant answer is known for cross_entropy over classes or tokens only",
        )
    threshold, what = 0.98 * (floor or math.inf), "a constant answer (the class frequencies) has"
    validated = min((loss for _, loss in run.validation), default=math.inf)
    if linear is not None and run.end <= threshold and run.end > linear[0] + BEYOND * (floor or linear[0]) and validated > linear[1]:
        threshold, what = linear[0], "a linear model has"
    elif run.end <= threshold:
        return passed(name, run.end, threshold, "" if linear is None else f"a linear model has {linear[0]:.3g}")
    return found(
        name,
        severity="error" if floor is not None and run.end > 0.98 * floor else "warning",
        summary=f"the training loss ends at {run.end:.3g}; {what} {threshold:.3g}: the network has learned less than that",
        value=run.end,
        threshold=threshold,
        because="a network that does not beat what needs no network has not learned from its inputs",
        evidence=training(run),
        remedy=faster(run) if slow(run) else longer(run, 4),
        advice="A higher rate or more steps; then a larger model, less regularization; then the inputs and labels themselves.",
        rank=21,
    )


def constant_loss(run: Watched) -> float | None:
    """The loss of the best constant answer in nats: H(q) of the class frequencies, smoothed as the loss smooths; log V over V tokens."""
    if run.setting("method.loss.kind") != "cross_entropy" or run.setting("method.loss.class_weights"):
        return None
    counts = run.facts.get("class_counts") or []
    if not counts:
        vocabulary = (run.facts.get("inputs") or {}).get("vocabulary")
        return math.log(vocabulary) if vocabulary else None
    smoothing, total = run.setting("method.loss.smoothing") or 0.0, sum(counts)
    shares = [(1 - smoothing) * count / total + smoothing / len(counts) for count in counts]
    return -sum(share * math.log(share) for share in shares if share > 0)


def overfit(run: Watched) -> Verdict:
    """How far the validation loss has risen from its lowest, while the training loss fell."""
    name = "overfit"
    points = run.validation
    if len(points) < 4 or not run.losses:
        return skipped(name, "fewer than four evaluations have a loss")
    since, lowest = min(points, key=lambda point: point[1])
    end = min(loss for _, loss in points[-2:])  # both of the last two are higher, or it was a wobble
    if lowest <= 0:
        return skipped(name, "the validation loss is not positive")
    value = end / lowest - 1
    near = [loss for step, loss in run.losses if step <= since][-5:] or [run.losses[0][1]]
    fell = run.end is not None and run.end < median(near)
    if value <= GAP or not fell:
        return passed(name, value, GAP)
    return found(
        name,
        severity="warning",
        summary=f"the validation loss has risen by {value:.0%} since step {since}, while the training loss fell to {run.end:.3g}",
        value=value,
        threshold=GAP,
        because=GAP_BECAUSE,
        evidence=curve("step", "loss", {"training": line(run.losses), "validation": line(points)}),
        remedy=put(run, "run.select", "best") + install(run, "method.stop", "patience"),
        advice="Stop or select by validation; more data or augmentation, weight decay, dropout, a smaller model.",
        rank=22,
    )


def not_converged(run: Watched) -> Verdict:
    """The share of the validation loss (or the training loss) that the last fifth of the run took off."""
    name = "not_converged"
    if run.status == "diverged":
        return skipped(name, "the run diverged")
    points, what = (run.validation, "validation") if len(run.validation) >= FEWEST else (run.losses, "training")
    if len(points) < FEWEST:
        return skipped(name, NO_CURVE)
    last = last_part(points)
    before = points[len(points) - len(last) - 1][1] if len(last) < len(points) else last[0][1]
    noise = 0.0
    if what == "training":  # noisy: the ends are means, and differ by more than batches do
        half = max(1, len(last) // 2)
        ends = [loss for _, loss in last[:half]], [loss for _, loss in last[-half:]]
        before, after = map(mean, ends)
        noise = 2 * math.sqrt(sum(pvariance(end) / len(end) for end in ends))
    else:
        after = last[-1][1]
    value = 1 - after / before if before > 0 else 0.0
    if value <= FALLING or before - after <= noise:
        return passed(name, value, FALLING)
    return found(
        name,
        severity="note",
        summary=f"the {what} loss was still falling at the end: by {value:.0%} in the last fifth of the run",
        value=value,
        threshold=FALLING,
        because=FALLING_BECAUSE,
        evidence=curve("step", "loss", {what: line(points)}),
        remedy=longer(run),
        advice="More epochs.",
        rank=60,
    )


def slow(run: Watched) -> bool:
    """Whether the updates are small beside the weights."""
    return bool(run.updates) and max(run.updates) < 1e-3


def training(run: Watched) -> dict[str, Any]:
    return curve("step", "training loss", {"training": line(run.losses)})


def line(points: Sequence[tuple[int, float]]) -> tuple[list[float], list[float]]:
    return [float(step) for step, _ in points], [value for _, value in points]


CHECKS = (oscillation, loss_spikes, plateau, overfit, not_converged)
