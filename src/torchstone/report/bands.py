"""Curves over seeds: the mean of the runs that finished, and the band from the lowest to the highest of them."""

from collections.abc import Mapping, Sequence

from torchstone.report.charts import Chart, Series, line_chart
from torchstone.report.curves import Curve, Point, read_log
from torchstone.report.headline import SHARES, title_of
from torchstone.report.numbers import plural
from torchstone.report.study_reading import Study, Variant

MOST_LOGS = 400
MOST_CHARTS, MOST_WITH_LOSS = 24, 8
LOG = "log.jsonl"


def bands(study: Study) -> tuple[list[Chart], list[str]]:
    """(charts, problems): each variant against the baseline on a scale that all share."""
    if study.baseline is None or not study.baseline.finished:
        return [], []
    most = max(2, MOST_LOGS // len(study.all))
    problems: list[str] = []
    read = {each.name: joined(each, study.metric, most, problems) for each in study.all[: MOST_CHARTS + 1]}
    shown = [each for each in study.variants if each.name in read]
    base = read[study.baseline.name]
    if not shown:
        return drawn(study.baseline.name, base, None, study), problems
    charts = []
    for metric in (study.metric, "") if len(shown) <= MOST_WITH_LOSS else (study.metric,):
        everything = [point for curves in read.values() for point in curves[metric].points]
        for each in shown:
            made = chart(each.name, metric, read[each.name][metric], base[metric], everything, study)
            charts += [made] if made else []
    return charts, problems


def drawn(name: str, own: Mapping[str, Curve], base: Curve | None, study: Study) -> list[Chart]:
    """The baseline alone."""
    return [made for metric in (study.metric, "") if (made := chart(name, metric, own[metric], base or Curve(), (), study))]


def chart(name: str, metric: str, own: Curve, base: Curve, around: Sequence[Point], study: Study) -> Chart | None:
    """`metric` empty: the training loss."""
    lines = [Series(label, curve, style) for label, curve, style in (("variant", own, "main"), ("baseline", base, "dash")) if curve.points]
    # A variant whose curves cannot be read would be a chart of the baseline under another name.
    if not own.points or (own.each == 0 and base.each == 0):
        return None
    shares = metric in SHARES and all(0 <= point.low and point.high <= 1 for line in lines for point in line.curve.points)
    title = f"{name}: {title_of(metric) + ' on the ' + study.split + ' split' if metric else 'training loss'}"
    seeds = f"mean and range of {plural(own.each, 'seed')}" + (
        f", baseline of {base.each}" if base.points and base.each != own.each else ""
    )
    return line_chart(title, lines, as_percent=shares, around=around, also=seeds)


def joined(variant: Variant, metric: str, most: int, problems: list[str]) -> dict[str, Curve]:
    """The metric of the evaluations, and the training loss as "", each over the seeds."""
    evaluated, losses = [], []
    for run in [run for run in variant.finished if run.folder is not None][:most]:
        assert run.folder is not None
        log = read_log(run.folder / LOG)
        if log.problem:
            problems.append(f"{variant.name}, seed {run.seed}: {log.problem}")
        if metric in log.evaluations:
            evaluated.append(log.evaluations[metric])
        if log.updates["loss"].points:
            losses.append(log.updates["loss"])
    return {metric: over_seeds(evaluated), "": over_seeds(losses)}


def over_seeds(curves: Sequence[Curve]) -> Curve:
    """Mean, lowest and highest at the steps that all have; `each` is the number of seeds.

    Of runs of different length only what they share is drawn: a mean over fewer and fewer runs would bend where nothing happened.
    """
    if not curves:
        return Curve(each=0)
    found = [{point.step: point.mean for point in curve.points} for curve in curves]
    steps = sorted(set.intersection(*(set(each) for each in found)))
    points = []
    for step in steps:
        values = [each[step] for each in found]
        points.append(Point(step, sum(values) / len(values), min(values), max(values)))
    return Curve(points=points, last=points[-1].mean if points else None, each=len(curves))
