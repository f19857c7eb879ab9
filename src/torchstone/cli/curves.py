"""What a part or a named function looks like, as figures: a schedule's factor, a loss against margin, error or overlap, an activation.

Everything is computed by the part itself, in float64; nothing here knows a formula.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from torchstone.core.parts import kind_of, needed
from torchstone.core.protocols import Evaluation, Facts, History, VectorShape
from torchstone.losses import CrossEntropy
from torchstone.losses.layouts import Gaussian, Pair
from torchstone.nn.activation import ACTIVATIONS, GATES, Gated
from torchstone.report.figure import Figure, Line

RUN = 1000
"""Updates of the run that a schedule is drawn over."""
EVALUATIONS = 50
TWO_CLASSES = Facts(inputs=VectorShape(2), classes=("a", "b"), class_counts=(100, 300), sizes=(("train", 400),))
"""What a loss that depends on the data is drawn for: the true class is the rare one."""


def figures(seat: str, cls: type) -> tuple[Figure, ...]:
    """The pictures of a part with its defaults, the one to look at first; none for what has no curve."""
    if needed(cls):
        return ()
    if seat == "schedules":
        return (schedule_figure(cls),)
    if seat == "loss":
        part = cls()
        part = part.resolve(TWO_CLASSES) if hasattr(part, "resolve") else part
        words = [word for word in part.takes if word in OF_LOSSES] if hasattr(part, "takes") else []
        return OF_LOSSES[words[0]](part) if words else ()
    return ()


# --- schedules ---------------------------------------------------------------------------------------------------------


def schedule_figure(cls: type) -> Figure:
    """The factor at every update of a run, with the default settings and, where that is another, with a warm-up of a tenth of the run."""
    part, modes = cls(), getattr(cls, "__dataclass_fields__", {}).get("mode")
    variants = {"": part}
    if modes is not None and part.mode == "triangular":
        variants = {mode: cls(mode=mode, gamma=0.997) for mode in ("triangular", "triangular2", "exp_range")}
        variants["exp_range, gamma 0.997"] = variants.pop("exp_range")
    elif part.warmup == 0:
        variants = {"defaults": part, "warmup=0.1": cls(warmup=0.1)}
    lines = [Line(name, range(RUN), [each(step, RUN, history(step)) for step in range(RUN)]) for name, each in variants.items()]
    title = f"{kind_of(cls)}: factor on {part.path}"
    if kind_of(cls) == "plateau":
        title = f"plateau: no progress after update 300, a look every {RUN // EVALUATIONS}"
    return Figure(title, "update", tuple(lines))


def history(step: int) -> History:
    """Evaluations of a run whose loss falls until update 300 and then stays: what `plateau` is drawn on."""
    every = RUN // EVALUATIONS
    return History([Evaluation(at, {"loss": 1.0 + max(0.0, (300 - at) / 300)}) for at in range(every, step + 1, every)])


# --- losses --------------------------------------------------------------------------------------------------------------


def grid(low: float, high: float, count: int = 201) -> Tensor:
    return torch.linspace(low, high, count, dtype=torch.float64)


def curve(name: str, x: Tensor, y: Tensor) -> Line:
    return Line(name, x.tolist(), y.detach().double().flatten().tolist())


def of_classes(part: Any) -> tuple[Figure, ...]:
    """Two classes, the first one true: against its probability, and against the difference of the logits."""
    kind, target = kind_of(part), torch.zeros(201, dtype=torch.int64)
    compared = {kind: part} | ({} if kind == "cross_entropy" else {"cross_entropy": CrossEntropy()})
    p, margin = grid(0.005, 0.995), grid(-5, 5)
    by_p = [curve(name, p, each(torch.stack((p.log(), (1 - p).log()), 1), target)) for name, each in compared.items()]
    by_margin = [curve(name, margin, each(torch.stack((margin / 2, -margin / 2), 1), target)) for name, each in compared.items()]
    return (
        Figure(f"{kind}, two classes", "probability of the true class", tuple(by_p), "loss"),
        Figure(f"{kind}, two classes", "logit of the true class less the other", tuple(by_margin), "loss"),
    )


def of_cosines(part: Any) -> tuple[Figure, ...]:
    kind, x = kind_of(part), grid(-1, 1)
    y = part(torch.stack((x, torch.zeros_like(x)), 1), torch.zeros(201, dtype=torch.int64))
    return (Figure(f"{kind}: one other class, at cosine 0", "cosine to the true class", (curve(kind, x, y),), "loss"),)


def of_log_probabilities(part: Any) -> tuple[Figure, ...]:
    p = grid(0.005, 0.995)
    y = part(torch.stack((p.log(), (1 - p).log()), 1), torch.zeros(201, dtype=torch.int64))
    return (Figure(kind_of(part), "probability of the true class", (curve("", p, y),), "loss"),)


def of_probabilities(part: Any) -> tuple[Figure, ...]:
    p = grid(0.005, 0.995)[:, None]
    lines = tuple(curve(f"target {t:g}", p[:, 0], part(p, torch.full_like(p, t))) for t in (1.0, 0.0))
    return (Figure(kind_of(part), "probability", lines, "loss"),)


def of_labels(part: Any) -> tuple[Figure, ...]:
    x = grid(-5, 5)[:, None]
    lines = tuple(curve(f"target {t:g}", x[:, 0], part(x, torch.full_like(x, t))) for t in (1.0, 0.0))
    return (Figure(kind_of(part), "logit", lines, "loss"),)


def of_values(part: Any) -> tuple[Figure, ...]:
    x = grid(-3, 3)[:, None]
    return (Figure(kind_of(part), "output less target", (curve("", x[:, 0], part(x, torch.zeros_like(x))),), "loss"),)


def of_gaussian(part: Any) -> tuple[Figure, ...]:
    x = grid(-3, 3)[:, None]
    lines = [curve(f"variance {v:g}", x[:, 0], part(Gaussian(x, torch.full_like(x, v)), torch.zeros_like(x))) for v in (1.0, 0.25, 4.0)]
    return (Figure(kind_of(part), "mean less target", tuple(lines), "loss", highest=6.0),)


def of_signs(part: Any) -> tuple[Figure, ...]:
    x = grid(-3, 3)
    lines = tuple(curve(f"target {t:g}", x, part(x, torch.full_like(x, t))) for t in (1.0, -1.0))
    return (Figure(kind_of(part), "output", lines, "loss"),)


def of_pairs(part: Any) -> tuple[Figure, ...]:
    """Of embeddings against their cosine, of scores against their difference."""
    kind = kind_of(part)
    if "cosine" in kind:
        x, name = grid(-1, 1), "cosine of the two"
        pair = Pair(torch.stack((x, (1 - x * x).clamp(min=0).sqrt()), 1), torch.tensor([[1.0, 0.0]], dtype=torch.float64).expand(201, 2))
    elif "contrastive" in kind:
        x, name = grid(0, 2), "distance of the two"
        pair = Pair(torch.stack((x, torch.zeros_like(x)), 1), torch.zeros(201, 2, dtype=torch.float64))
    else:
        x, name = grid(-3, 3), "first less second"
        pair = Pair(x, torch.zeros_like(x))
    lines = tuple(curve(f"target {t:g}", x, part(pair, torch.full((201,), t, dtype=torch.float64))) for t in (1.0, -1.0))
    return (Figure(kind, name, lines, "loss"),)


def of_boxes(part: Any) -> tuple[Figure, ...]:
    """A box of side 1 that has been moved aside, and one of the same center that is too large or too small."""
    kind, shift, side = kind_of(part), grid(-2, 2), grid(0.1, 3)
    true = torch.tensor([[0.0, 0.0, 1.0, 1.0]], dtype=torch.float64).expand(201, 4)
    zero, half = torch.zeros_like(shift), side / 2
    moved = part(true + torch.stack((shift, zero, shift, zero), 1), true)
    grown = part(torch.stack((0.5 - half, 0.5 - half, 0.5 + half, 0.5 + half), 1), true)
    return (
        Figure(f"{kind} of a unit box, moved", "by", (curve("", shift, moved),), "loss"),
        Figure(f"{kind} of a unit box, larger or smaller", "side", (curve("", side, grown),), "loss"),
    )


def of_quality(part: Any) -> tuple[Figure, ...]:
    x = grid(-5, 5)[:, None]
    lines = tuple(curve(f"overlap {q:g}", x[:, 0], part(x, torch.full_like(x, q))) for q in (1.0, 0.5, 0.0))
    return (Figure(kind_of(part), "logit", lines, "loss"),)


OF_LOSSES: Mapping[str, Callable[[Any], tuple[Figure, ...]]] = {
    "classes": of_classes,
    "cosines": of_cosines,
    "log_probabilities": of_log_probabilities,
    "probabilities": of_probabilities,
    "labels": of_labels,
    "values": of_values,
    "gaussian": of_gaussian,
    "signs": of_signs,
    "pairs": of_pairs,
    "boxes": of_boxes,
    "quality": of_quality,
}
"""What a loss takes (`losses.layouts`) -> its pictures. The others compare whole batches: no curve says what they do."""


# --- activations -------------------------------------------------------------------------------------------------------------


def activation_figure(name: str) -> Figure:
    """The function and its derivative; of softmax for (x, 0), of a gate for a value of 1."""
    x = grid(-4, 4, 401).requires_grad_()
    if name == "softmax":
        of_x, x_name = torch.stack((x, torch.zeros_like(x)), 1).softmax(1)[:, 0], "x, beside a logit of 0"
    elif name in GATES:
        of_x, x_name = Gated(name)(torch.stack((torch.ones_like(x), x), 1))[:, 0], "b, at a = 1"  # type: ignore[arg-type]
    else:
        of_x, x_name = ACTIVATIONS[name](x), "x"
    (slope,) = torch.autograd.grad(of_x.sum(), x)
    at = x.detach()
    return Figure(name, x_name, (curve(name, at, of_x), curve("derivative", at, slope)))
