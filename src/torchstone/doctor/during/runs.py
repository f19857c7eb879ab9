"""What only two runs can show: the degradation of depth.

He et al., "Deep Residual Learning", 2015, https://arxiv.org/abs/1512.03385, figure 1: a deeper plain network has a higher *training* loss
than a shallower one, so it is not overfitting. One run alone cannot say it: nobody knows what the shallower network would have reached.
"""

import math
from statistics import mean, stdev

from torchstone.doctor.during.verdict import Verdict, found, passed, skipped, text
from torchstone.doctor.during.watched import Watched, last_part
from torchstone.doctor.finding import curve

ERRORS = 3.0
"""Standard errors of the difference between the ends of the two runs."""
WORSE = 0.05
BECAUSE = (
    "the deeper network contains the shallower one (further layers could pass on what they get), so a training loss a twentieth higher, "
    "and beyond three standard errors of the two ends, is the fault of how it is trained and not of its size"
)


def degradation(run: Watched, other: Watched) -> Verdict:
    """The training loss at the end of the deeper of two runs against that of the shallower; both on the same data."""
    name = "degradation"
    depths = [depth(each) for each in (run, other)]
    ends = [last_part(each.losses) for each in (run, other)]
    if 0 in depths or depths[0] == depths[1]:
        return skipped(name, f"{other.folder}: both runs need probes.jsonl, and other depths (layers: {depths[0]}, {depths[1]})")
    if run.fingerprint != other.fingerprint or run.setting("method.loss") != other.setting("method.loss"):
        return skipped(name, f"{other.folder}: other data or another loss")
    if min(map(len, ends)) < 3:
        return skipped(name, "fewer than three losses at the end of a run")
    order = (0, 1) if depths[0] > depths[1] else (1, 0)
    (deep, shallow), (long, short) = [(run, other)[i] for i in order], [[loss for _, loss in ends[i]] for i in order]
    difference = mean(long) - mean(short)
    error = math.sqrt(sum(stdev(end) ** 2 / len(end) for end in (long, short)))
    value, threshold = difference / mean(short) if mean(short) else 0.0, max(WORSE, ERRORS * error / mean(short) if mean(short) else 0.0)
    if value <= threshold:
        return passed(name, value, threshold)
    lines = {f"{depth(each)} layers": ([float(s) for s, _ in each.losses], [l for _, l in each.losses]) for each in (deep, shallow)}
    return found(
        name,
        severity="warning",
        summary=f"{depth(deep)} layers end at a training loss of {mean(long):.3g}, {depth(shallow)} layers at {mean(short):.3g}",
        value=value,
        threshold=threshold,
        because=BECAUSE,
        evidence=curve("step", "training loss", lines),
        remedy=towards(deep, shallow),
        advice="Residual branches around the added layers, a norm in every layer, or the shallower network.",
        rank=13,
    )


def depth(run: Watched) -> int:
    """Layers with weights, as the probes saw them."""
    return len(run.looks[0]["layers"]["name"]) if run.looks else 0


def towards(deep: Watched, shallow: Watched) -> tuple[str, ...]:
    """The edits of the deep run's model that make it the shallow one's; none where the models are of two kinds."""
    there, here = deep.setting("model") or {}, shallow.setting("model") or {}
    if there.get("kind") != here.get("kind"):
        return ()
    return tuple(
        f"model.{key}={text(here[key])}" for key in there if key in here and there[key] != here[key] and not isinstance(here[key], dict)
    )
