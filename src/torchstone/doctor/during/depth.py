"""Checks of what the probes saw by depth: gradients, updates, activations, weights, loss scale, waiting, the origin of a non-finite
number."""

from statistics import median
from typing import Any

from torchstone.doctor.during.verdict import Verdict, activation, clipped, faster, found, install, normalized, passed, put, skipped, slower
from torchstone.doctor.during.watched import Watched
from torchstone.doctor.finding import bars, curve, table

NO_LOOKS = "the run has no probes.jsonl: train with run.trackers+=probes"
FEWEST_LAYERS = 4
"""Below it there is no depth to speak of."""

VANISHED, GONE = 1e-3, 1e-5
VANISHED_BECAUSE = (
    "a sigmoid passes at most a quarter of a gradient back, so five such layers take a factor of 1000; with weights that keep the variance "
    "the layers of a network lie within a factor of about 10 (Glorot and Bengio 2010, figure 7)"
)
EXPLODED = 1e3
EXPLODED_BECAUSE = (
    "weights that keep the variance keep this near 1 (He et al. 2015, section 2.2); at 1000 a step that suits one layer is a thousand "
    "times wrong for another"
)
LONG_GRADIENT = 10.0
LONG_BECAUSE = "a gradient ten times as long as all weights together points nowhere a step could go: healthy networks begin below 1"
LEAST_UPDATE, MOST_UPDATE = 1e-4, 0.1
UPDATE_BECAUSE = (
    "healthy updates change weights by about a thousandth a step; below 1e-4 it takes ten thousand steps to change a weight by its own "
    "size, above 0.1 ten steps forget what was learned (Karpathy, CS231n, neural networks part 3, 'Ratio of weights:updates')"
)
OFF, ALL_OFF = 0.5, 0.9
DEAD_BECAUSE = (
    "a unit that is zero for all samples gets no gradient and does not come back (Lu et al. 2019, 1903.06733); a few such units are "
    "common, half a layer is width paid for and not used"
)
SATURATED_BECAUSE = (
    "where a unit is saturated its slope is below a hundredth of the largest, so nothing is learned through it (Glorot and Bengio 2010)"
)
GROWN = 5.0
GROWN_BECAUSE = (
    "weights that train well stay within a small multiple of where they began; five times as long in all means 25 times the squared norm "
    "that a decay would hold down, and sharper, overconfident outputs"
)
SMALLEST_SCALE = 1.0
SCALE_BECAUSE = (
    "the scale begins at 65,536 to lift small gradients; at or below 1 it no longer lifts but shrinks: the gradients themselves leave fp16"
)
WAITED = 0.25
WAITED_BECAUSE = "a fourth of the time spent waiting for data is a third more speed to be had without touching the model"


def non_finite(run: Watched) -> Verdict:
    """Where the number came from that ended the run."""
    name = "non_finite"
    if run.status != "diverged":
        return passed(name, 0.0, 0.0, "no number that was not finite")
    where = run.origin
    if where is None:
        return found(
            name,
            severity="error",
            summary=f"the run diverged at step {run.metrics.get('steps', '?')}: a loss or gradient was not finite",
            because="no update is made from a number that is not finite",
            remedy=slower(run) + clipped(run),
            advice="Train with run.trackers+=probes to see which module it came from.",
            rank=0,
        )
    origin, step = where["origin"], where["step"]
    weight, inputs = origin.get("largest_weight"), origin.get("largest_input")
    large = [
        f"its largest {what} is {size:.2g}" for what, size in (("weight", weight), ("input", inputs)) if size is not None and size > 1e4
    ]
    rows = [(key, str(value)) for key, value in origin.items() if key != "sentence"]
    data = origin["kind"] == "input"
    return found(
        name,
        severity="error",
        summary=f"the run diverged at update {step}: {origin['sentence']}{' (' + ', '.join(large) + ')' if large else ''}",
        value=float(step),
        because="no update is made from a number that is not finite",
        evidence=table(("what", "seen"), rows),
        remedy=() if data else slower(run) + clipped(run),
        advice=(
            "Mend the data: a sample holds a number that is not finite."
            if data
            else "Where the weights are still small, the cause is an operation of that module (a log, a root or a division near 0)."
        ),
        rank=0,
    )


def vanishing_gradient(run: Watched) -> Verdict:
    """The largest gradient of the first third of the layers against the largest of the last third."""
    name = "vanishing_gradient"
    layers = run.by_layer("gradient")
    if len(layers) < FEWEST_LAYERS:
        return skipped(name, NO_LOOKS if not run.looks else f"{len(layers)} layers have no depth to speak of")
    first, last = ends(list(layers.values()))
    value = first / last if last else 1.0
    if value >= VANISHED:
        return passed(name, value, VANISHED)
    return found(
        name,
        severity="error" if value < GONE else "warning",
        summary=f"the first layers get {value:.1e} times the gradient of the last ones: it vanishes on the way through {len(layers)}",
        value=value,
        threshold=VANISHED,
        because=VANISHED_BECAUSE,
        evidence=bars(list(layers), list(layers.values())),
        remedy=activation(run, "relu") + normalized(run) or install(run, "model.init", "kaiming"),
        advice="An activation that does not flatten, a norm in every layer, or residual branches keep a gradient alive; fewer layers too.",
        rank=10,
    )


def exploding_gradient(run: Watched) -> Verdict:
    """At the first update: the gradient or the activations grow by depth, or the gradient is longer than the weights."""
    name = "exploding_gradient"
    if not run.looks:
        return skipped(name, NO_LOOKS)
    look = run.looks[0]
    layers = run.by_layer("gradient", [look])
    first, last = ends(list(layers.values())) if len(layers) >= FEWEST_LAYERS else (1.0, 1.0)
    spreads = [std for std in look["outputs"]["std"] if std is not None]
    growth = max(spreads) / spreads[0] if len(spreads) >= FEWEST_LAYERS and spreads[0] else 1.0
    backward, norm = (first / last if last else 1.0), (look["norm"] or 0.0) / look["weight_norm"] if look["weight_norm"] else 0.0
    value = max(backward, growth)
    if value <= EXPLODED and norm <= LONG_GRADIENT:
        return passed(name, value, EXPLODED)
    if norm > LONG_GRADIENT:
        said, value, threshold, because = f"is {norm:.3g} times as long as all weights", norm, LONG_GRADIENT, LONG_BECAUSE
    elif backward >= growth:
        said, threshold, because = f"of the first layers is {value:.1e} times that of the last ones", EXPLODED, EXPLODED_BECAUSE
    else:
        said, threshold, because = f"goes through activations that grow by a factor of {value:.1e} with depth", EXPLODED, EXPLODED_BECAUSE
    outputs = dict(zip(look["outputs"]["name"], look["outputs"]["std"], strict=True))
    by_layer = growth > backward and outputs
    return found(
        name,
        severity="error" if norm > 10 * LONG_GRADIENT or value > 1e6 else "warning",
        summary=f"before the first update the gradient {said}: it explodes",
        value=value,
        threshold=threshold,
        because=because,
        evidence=bars(list(outputs), list(outputs.values())) if by_layer else bars(list(layers), list(layers.values())),
        remedy=clipped(run) + normalized(run) + (install(run, "model.init", "kaiming") if run.setting("model.init") != "none" else ()),
        advice="First weights that keep the variance (model.init), a norm in every layer, or clipping until that is mended.",
        rank=5,
    )


def update_ratio(run: Watched) -> Verdict:
    """|update| / |weights| of the middle layer: its peak over the run must not be too low, its median not too high."""
    name = "update_ratio"
    ratios = run.updates
    if len(ratios) < 2:
        return skipped(name, NO_LOOKS if not run.looks else "one look is too few")
    steps = [look["step"] for look in run.looks if any(r is not None for r in look["layers"]["update"])]
    peak, middle = max(ratios), median(ratios[1:])
    evidence = curve("step", "|update| / |weights|, median layer", {"update": (steps, ratios)})
    if middle > MOST_UPDATE:
        return found(
            name,
            severity="error" if middle > 10 * MOST_UPDATE else "warning",
            summary=f"every update changes the weights by {middle:.2g} of their size: the rate is too high",
            value=middle,
            threshold=MOST_UPDATE,
            because=UPDATE_BECAUSE,
            evidence=evidence,
            remedy=slower(run),
            advice="A rate at which the weights change by about a thousandth to a hundredth a step.",
            rank=17,
        )
    if peak < LEAST_UPDATE:
        return found(
            name,
            severity="warning",
            summary=f"no update changed the weights by more than {peak:.1e} of their size: the rate is too low",
            value=peak,
            threshold=LEAST_UPDATE,
            because=UPDATE_BECAUSE,
            evidence=evidence,
            remedy=faster(run),
            advice="A rate at which the weights change by about a thousandth a step; torchstone doctor RECIPE --rate finds one.",
            rank=20,
        )
    return passed(name, middle, MOST_UPDATE, f"peak {peak:.1e}, median {middle:.1e}")


def dead_units(run: Watched) -> Verdict:
    """The worst layer's share of rectified units that are zero for all samples looked at."""
    return off(
        run,
        "dead_units",
        run.off(lambda kind: kind.startswith(("relu", "threshold"))),
        none="no rectifier was seen",
        said="of the units of {} are dead: zero for every sample that was looked at",
        because=DEAD_BECAUSE,
        remedy=slower(run) + activation(run, "leaky_relu"),
        advice="A smaller rate keeps units from being thrown past the edge; an activation with a slope below 0 lets them come back.",
        rank=12,
    )


def saturated_units(run: Watched) -> Verdict:
    """The worst layer's share of outputs on the flat ends of a sigmoid, tanh or softmax."""
    return off(
        run,
        "saturated_units",
        run.off(lambda kind: kind in ("sigmoid", "tanh", "softmax", "hardtanh")),
        none="no activation with flat ends was seen",
        said="of the outputs of {} are saturated",
        because=SATURATED_BECAUSE,
        remedy=install(run, "model.init", "xavier") + normalized(run) or activation(run, "relu") or slower(run),
        advice="Smaller first weights (Glorot's for tanh), inputs of standard deviation 1, a norm before it, or a smaller rate.",
        rank=11,
    )


def off(run: Watched, name: str, shares: dict[str, float], *, none: str, said: str, **words: Any) -> Verdict:
    """What dead and saturated units are alike in: half of a layer passes no gradient on."""
    if not shares:
        return skipped(name, none if run.looks else NO_LOOKS)
    where, value = max(shares.items(), key=lambda item: item[1])
    if value < OFF:
        return passed(name, value, OFF)
    return found(
        name,
        severity="error" if value >= ALL_OFF else "warning",
        summary=f"{value:.0%} {said.format(where)}",
        value=value,
        threshold=OFF,
        evidence=bars(list(shares), list(shares.values())),
        **words,
    )


def weight_growth(run: Watched) -> Verdict:
    """The norm of all weights at the last look against the first."""
    name = "weight_growth"
    norms = [(look["step"], look["weight_norm"]) for look in run.looks if look["weight_norm"]]
    if len(norms) < 2:
        return skipped(name, NO_LOOKS if not run.looks else "one look is too few")
    value = norms[-1][1] / norms[0][1]
    if value <= GROWN:
        return passed(name, value, GROWN)
    decay = run.setting("method.optimizer.weight_decay")
    return found(
        name,
        severity="warning",
        summary=f"the weights are {value:.3g} times as long as they were at the first update",
        value=value,
        threshold=GROWN,
        because=GROWN_BECAUSE,
        evidence=curve("step", "norm of all weights", {"weights": ([s for s, _ in norms], [n for _, n in norms])}),
        remedy=put(run, "method.optimizer.weight_decay", 0.05) if decay == 0 and not fast(run) else slower(run),
        advice="Weight decay, or a smaller rate.",
        rank=35,
    )


def amp_scale(run: Watched) -> Verdict:
    """The smallest loss scale of an fp16 run."""
    name = "amp_scale"
    scales = [(look["step"], look["scale"]) for look in run.looks if look.get("scale") is not None]
    if not scales:
        return skipped(name, "no loss scale: the run is not fp16" if run.looks else NO_LOOKS)
    value = min(scale for _, scale in scales)
    if value > SMALLEST_SCALE:
        return passed(name, value, SMALLEST_SCALE)
    return found(
        name,
        severity="error",
        summary=f"the loss scale fell to {value:.3g}, and {run.metrics.get('skipped', 'some')} updates were skipped: gradients leave fp16",
        value=value,
        threshold=SMALLEST_SCALE,
        because=SCALE_BECAUSE,
        evidence=curve("step", "loss scale", {"scale": ([s for s, _ in scales], [v for _, v in scales])}),
        remedy=put(run, "run.precision", "bf16"),
        advice="bf16 has the range of fp32 and needs no scale; fp32 where the machine has no bf16.",
        rank=3,
    )


def data_bound(run: Watched) -> Verdict:
    """The share of time that the step waits for its batch, or the accelerator for anything; after the first looks, where caches fill."""
    name = "data_bound"
    looks = run.looks[2:]
    if not looks:
        return skipped(name, "fewer than three looks" if run.looks else NO_LOOKS)
    seconds = [look["seconds"] for look in looks]
    value = median(s["wait"] / max(s["wait"] + s["step"], 1e-12) for s in seconds)
    idle = [s["idle"] / max(s["wait"] + s["step"], 1e-12) for s in seconds if s.get("idle") is not None]
    waiting = "the step waits for its batch"
    if idle:  # the host runs ahead of an accelerator: what counts is whether that had work
        value, waiting = min(1.0, median(idle)), "the accelerator waits for work"
    if value <= WAITED:
        return passed(name, value, WAITED)
    workers = run.setting("run.workers")
    waits, steps = [s["wait"] * 1e3 for s in seconds], [s["step"] * 1e3 for s in seconds]
    at = [look["step"] for look in looks]
    return found(
        name,
        severity="warning",
        summary=f"{value:.0%} of the time {waiting}",
        value=value,
        threshold=WAITED,
        because=WAITED_BECAUSE,
        evidence=curve("step", "milliseconds", {"waiting": (at, waits), "step": (at, steps)}),
        remedy=put(run, "data.cache", True) or put(run, "run.workers", max(2, 2 * workers) if isinstance(workers, int) else 2),
        advice="Decode once into the cache (data.cache), fetch in worker processes (run.workers), or augment whole batches.",
        rank=8,
    )


def fast(run: Watched) -> bool:
    """Whether the updates are large beside the weights."""
    return median(run.updates[1:] or [0.0]) > MOST_UPDATE


def ends(values: list[float]) -> tuple[float, float]:
    """The largest of the first third and of the last: where any early layer has a gradient, it has not vanished."""
    third = max(1, len(values) // 3)
    return max(values[:third]), max(values[-third:])


CHECKS = (
    non_finite,
    vanishing_gradient,
    exploding_gradient,
    update_ratio,
    dead_units,
    saturated_units,
    weight_growth,
    amp_scale,
    data_bound,
)
