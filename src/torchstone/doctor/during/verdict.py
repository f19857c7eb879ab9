"""What a check returns, and the edits it may propose: only such as the run's experiment takes."""

import json
import math
from statistics import median
from typing import Any

from torchstone.doctor.during.watched import Watched
from torchstone.doctor.finding import Checked, Finding

Verdict = tuple[Checked, Finding | None]


def skipped(check: str, why: str) -> Verdict:
    return Checked(check=check, outcome="skipped", why=why), None


def passed(check: str, value: float, threshold: float, why: str = "") -> Verdict:
    return Checked(check=check, outcome="passed", value=value, threshold=threshold, why=why), None


def found(check: str, **finding: Any) -> Verdict:
    """`finding`: the fields of a `Finding`."""
    made = Finding(check=check, **finding)
    return Checked(check=check, outcome="found", value=made.value, threshold=made.threshold), made


# --- edits -----------------------------------------------------------------------------------------------------------


def put(run: Watched, path: str, value: Any) -> tuple[str, ...]:
    """`path=value`, if the experiment has that path and another value there."""
    now = run.setting(path)
    return () if now is None or now == value else (f"{path}={text(value)}",)


def install(run: Watched, path: str, kind: str) -> tuple[str, ...]:
    """`path=kind`, if the experiment has that seat and another part, or none, in it."""
    now = run.setting(path)
    return () if now is None or (isinstance(now, dict) and now.get("kind") == kind) else (f"{path}={kind}",)


def scaled(run: Watched, path: str, factor: float) -> tuple[str, ...]:
    """A number of the experiment times `factor`."""
    now = run.setting(path)
    return put(run, path, float(f"{now * factor:.3g}")) if isinstance(now, int | float) and not isinstance(now, bool) and now else ()


def rate(run: Watched) -> str:
    """Where the learning rate stands: lookahead's is that of what it stands around."""
    path = "method.optimizer"
    while isinstance(run.setting(f"{path}.inner"), dict):
        path += ".inner"
    return f"{path}.lr"


def slower(run: Watched, factor: float = 10.0) -> tuple[str, ...]:
    """A rate smaller by `factor`, or by as much as brings updates above a tenth of the weights down to a hundredth of them."""
    middle = median(run.updates[1:] or [0.0])
    if middle > 0.1:
        factor = max(factor, 10.0 ** math.ceil(math.log10(middle / 1e-2)))
    return scaled(run, rate(run), 1 / factor)


def faster(run: Watched) -> tuple[str, ...]:
    """A rate ten times as high, or as much higher as brings the largest update to a thousandth of the weights."""
    peak = max(run.updates, default=0.0)
    return scaled(run, rate(run), 10.0 ** math.ceil(math.log10(1e-3 / peak)) if 0 < peak < 1e-4 else 10.0)


def clipped(run: Watched) -> tuple[str, ...]:
    """Clipping of the gradient's norm, unless there is any clipping."""
    there = any("clip" in kind for kind in run.kinds("method.gradient_transforms"))
    return () if there or run.setting("method.gradient_transforms") is None else ("method.gradient_transforms+=clip_by_norm",)


def longer(run: Watched, factor: float = 2) -> tuple[str, ...]:
    """More steps, or epochs where those count."""
    name = "run.steps" if isinstance(run.setting("run.steps"), int) else "run.epochs"
    now = run.setting(name)
    return put(run, name, round(now * factor)) if isinstance(now, int) else ()


def activation(run: Watched, name: str) -> tuple[str, ...]:
    return put(run, "model.activation", name)


def normalized(run: Watched) -> tuple[str, ...]:
    """A norm where the model can have one and has none."""
    return put(run, "model.norm", "batch") if run.setting("model.norm") == "none" else ()


def text(value: Any) -> str:
    """As an edit writes it.

    >>> text([8, 4]), text(0.1), text("relu"), text(True)
    ('[8, 4]', '0.1', 'relu', 'true')
    """
    return value if isinstance(value, str) else json.dumps(value)
