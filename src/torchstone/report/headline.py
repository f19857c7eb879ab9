"""The first screen: what was trained, on what, the result in one sentence, and its numbers beside what they cost."""

from dataclasses import dataclass
from typing import Any

from torchstone.core.layout import TRAINING
from torchstone.report.classes import Confusion
from torchstone.report.numbers import NARROW, TIMES, count, duration, memory, number, percent, plural, scaled, wilson
from torchstone.report.reading import RunFiles, kind_of, real, rows, table, whole, words

SHARES = tuple(
    prefix + name
    for prefix in ("", TRAINING)
    for name in ("accuracy", "top_5_accuracy", "balanced_accuracy", "macro_f1", "calibration_error")
)
"""Metrics between 0 and 1 that are written in percent."""
TITLES = {
    "accuracy": ("accuracy", "predicted right"),
    "top_5_accuracy": ("top-5 accuracy", "right class among the first five"),
    "balanced_accuracy": ("balanced accuracy", "mean over classes of the share found"),
    "macro_f1": ("macro F1", "mean over classes of F1"),
    "calibration_error": ("calibration error", "how far confidence is from truth"),
    "bits_per_byte": ("bits per byte", "needed to write the text down"),
    "loss": ("loss", "what training made small"),
}
SMALLER_IS_BETTER = ("loss", "bits_per_byte", "calibration_error")
ENDINGS = {"done": "finished", "stopped": "stopped early", "diverged": "diverged", "interrupted": "interrupted"}
MOST_METRICS = 12


@dataclass(frozen=True, slots=True)
class Figure:
    """A number with its name and what it means."""

    name: str
    value: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Headline:
    title: str
    status: str
    trained: str
    """What was trained on what, as a sentence."""
    hero: Figure | None
    """The one number."""
    interval: tuple[str, str, float] | None
    """Its 95 % interval, and where between the ends (percent) the number stands."""
    result: tuple[str, ...]
    """Sentences on the result."""
    metrics: tuple[Figure, ...]
    costs: tuple[Figure, ...]


def headline(run: RunFiles, confusion: Confusion | None, predicted: tuple[int, int] | None) -> Headline:
    """`predicted`: (right, all) of the kept predictions, which count where there is no confusion matrix."""
    status = words(run.metrics.get("status"), 40)
    right = (confusion.right, confusion.total) if confusion else predicted
    hero, interval, result = outcome(run, status, right, confusion)
    result += beside_validation(run)
    return Headline(
        title=recipe(run),
        status=ENDINGS.get(status, status or "not finished yet"),
        trained=trained(run),
        hero=hero,
        interval=interval,
        result=tuple(result),
        metrics=tuple(metric_figures(run, hero)),
        costs=tuple(cost_figures(run)),
    )


def recipe(run: RunFiles) -> str:
    named = words(run.environment.get("recipe"), 60)
    if named:
        return named
    place = run.folder.absolute()
    return words(place.parent.name if place.parent.parent.name == "runs" else place.name, 60) or "run"


def trained(run: RunFiles) -> str:
    """ "A conv_net of 307,690 parameters learned 10 classes from 1,257 gray 8 × 8 images in 240 steps." """
    kind = kind_of(run.artifact.get("model")) or kind_of(run.experiment.get("model")) or "model"
    parameters = whole(table(run.metrics.get("cost")).get("parameters"))
    sizes = dict(split_sizes(run))
    what = f" of {plural(parameters, 'parameter')}" if parameters else ""
    classes = run.class_count
    learned = plural(classes, "class", "classes") if classes else ""
    source = samples(run, sizes["train"]) if "train" in sizes else ""
    verb = "learned" if run.metrics.get("status") in ("done", "stopped") else "was to learn"
    task = f" {verb} {learned or 'from'}" if learned or source else " was trained"
    origin = f" from {source}" if learned and source else f" {source}" if source else ""
    article = "An" if kind[:1] in "aeiou" else "A"
    return f"{article} {kind}{what}{task}{origin}{length(run)}."


def samples(run: RunFiles, n: int) -> str:
    """The training samples in words."""
    shape = table(run.facts.get("inputs"))
    match kind_of(shape):
        case "image_shape":
            color = {1: "gray ", 3: "color "}.get(whole(shape.get("channels")) or 0, "")
            side = f"{whole(shape.get('width')) or '?'}{NARROW}{TIMES}{NARROW}{whole(shape.get('height')) or '?'}"
            return f"{count(n)} {color}{side} {'image' if n == 1 else 'images'}"
        case "token_shape":
            return f"{plural(n, 'window')} of {plural(whole(shape.get('length')) or 0, 'token')}"
        case "vector_shape":
            return f"{plural(n, 'row')} of {plural(whole(shape.get('features')) or 0, 'number')}"
        case _:
            return plural(n, "sample")


def length(run: RunFiles) -> str:
    steps, seconds = whole(run.metrics.get("steps")), real(table(run.metrics.get("cost")).get("seconds"))
    text = f" in {plural(steps, 'step')}" if steps is not None else ""
    return f"{text} ({duration(seconds)})" if text and seconds else text


def split_sizes(run: RunFiles) -> list[tuple[str, int]]:
    """(name, samples) of each split."""
    pairs = [pair for pair in rows(run.facts.get("sizes"))[:8] if isinstance(pair, list) and len(pair) == 2]
    return [(words(name, 40), n) for name, size in pairs if (n := whole(size)) is not None and words(name)]


# --- the result ------------------------------------------------------------------------------------------------------


def outcome(
    run: RunFiles, status: str, right: tuple[int, int] | None, confusion: Confusion | None
) -> tuple[Figure | None, tuple[str, str, float] | None, list[str]]:
    """The number, its interval and the sentences around it."""
    if not run.final:
        return None, None, no_result(run, status)
    accuracy = real(run.final.get("accuracy"))
    if run.task != "language" and accuracy is not None and right is None:
        tested = dict(split_sizes(run)).get("test")
        right = (round(accuracy * tested), tested) if tested and 0 <= accuracy <= 1 else None
    if run.task != "language" and right is not None and right[1] > 0:
        return counted(*right, confusion)
    name = main_metric(run)
    value = real(run.final.get(name)) if name else None
    if value is None:
        return None, None, ["The run has a result, but no number in it that could stand here."]
    sense = "smaller is better" if name in SMALLER_IS_BETTER else "on the test split"
    tested = dict(split_sizes(run)).get("test")
    shown = Figure(title_of(name), written(name, value), sense)
    return shown, None, [f"Measured once, on the {samples(run, tested)} of the test split." if tested else "Measured on the test split."]


def counted(right: int, total: int, confusion: Confusion | None) -> tuple[Figure, tuple[str, str, float], list[str]]:
    share, (low, high) = right / total, wilson(right, total)
    decimals = 1 if total < 20_000 else 2
    at = 100 * (share - low) / (high - low) if high > low else 50.0
    said = [f"Right on {count(right)} of {plural(total, 'test sample')} that it had never seen."]
    if confusion and confusion.most_frequent:
        said.append(f"Always naming the most frequent class would be right on {percent(confusion.most_frequent)}.")
    return Figure("accuracy", percent(share, decimals), "on the test split"), (percent(low, decimals), percent(high, decimals), at), said


def no_result(run: RunFiles, status: str) -> list[str]:
    at = whole(run.metrics.get("steps"))
    where = f" at step {count(at)}" if at is not None else ""
    best = table(run.metrics.get("best"))
    said = {
        "diverged": f"The loss or its gradient stopped being finite{where}; no update was made from it, and there is no test result.",
        "interrupted": f"Interrupted{where}: there is no test result yet. The command to go on is below.",
    }.get(status, "There is no test result: the run has not come to its end.")
    name = words(best.get("selected_by"), 60)
    value = real(best.get(name)) if name else None
    if value is None:
        return [said]
    step = whole(best.get("step"))
    return [said, f"Best on the validation split: {title_of(name)} {written(name, value)}" + (f" at step {count(step)}." if step else ".")]


def beside_validation(run: RunFiles) -> list[str]:
    """The numbers of the training split beside those of the validation split, where `run.evaluate_training` asked for them."""
    training, validation = table(run.metrics.get("training")), table(run.metrics.get("validation"))
    names = [name for name in dict.fromkeys((main_metric(run), "loss")) if real(training.get(name)) is not None]
    said = ", ".join(
        f"{title_of(name)} {written(name, real(training.get(name)))}, on validation {written(name, real(validation.get(name)))}"
        for name in names
    )
    return [f"On the whole training split {said}."] if said else []


def main_metric(run: RunFiles) -> str:
    """What the run was selected by, else its first number that is not the loss, else the loss."""
    numbers = [name for name in run.final if real(run.final[name]) is not None]
    chosen = table(run.metrics.get("best")).get("selected_by")
    return chosen if chosen in numbers else next((name for name in numbers if name != "loss"), next(iter(numbers), ""))


def metric_figures(run: RunFiles, hero: Figure | None) -> list[Figure]:
    """Every final metric that is one number, the known ones first and explained; not again the one above."""
    order = {name: place for place, name in enumerate(TITLES)}
    told = "" if hero is None else hero.name
    names = [name for name, value in run.final.items() if real(value) is not None and title_of(name) != told]
    names.sort(key=lambda name: order.get(name, 99))
    return [Figure(title_of(name), written(name, real(run.final[name])), TITLES.get(name, ("", ""))[1]) for name in names[:MOST_METRICS]]


def cost_figures(run: RunFiles) -> list[Figure]:
    cost: dict[str, Any] = table(run.metrics.get("cost"))
    seconds, speed, peak = (real(cost.get(name)) for name in ("seconds", "samples_per_s", "peak_memory_mb"))
    parameters, macs, skipped = whole(cost.get("parameters")), whole(cost.get("macs")), whole(run.metrics.get("skipped"))
    figures = [
        Figure("training time", duration(seconds), "evaluations included") if seconds is not None else None,
        Figure("speed", f"{count(round(speed))}/s", "training samples") if speed is not None else None,
        Figure("peak memory", memory(peak), "of the whole process") if peak is not None else None,
        Figure("parameters", scaled(parameters), "numbers learned") if parameters is not None else None,
        Figure("MACs", scaled(macs), "multiply-adds a sample") if macs is not None else None,
        Figure("skipped steps", count(skipped), "loss or gradient not finite") if skipped else None,
    ]
    return [figure for figure in figures if figure is not None]


def title_of(metric: str) -> str:
    if metric.startswith(TRAINING):
        return f"training {title_of(metric.removeprefix(TRAINING))}"
    return TITLES.get(metric, (words(metric, 40).replace("_", " "),))[0]


def written(metric: str, value: float | None) -> str:
    return percent(value) if metric in SHARES and value is not None and 0 <= value <= 1 else number(value)
