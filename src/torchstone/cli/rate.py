"""`torchstone doctor --rate` and `--saddle`: which learning rate, and what kind of place the weights of a run have come to."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchstone.cli import output
from torchstone.cli.pictures import check_new_picture, free_name, write_new_picture
from torchstone.core.errors import UserError
from torchstone.core.layout import EXPERIMENT

if TYPE_CHECKING:
    from torchstone.experiment import Experiment
    from torchstone.report.figure import Figure
    from torchstone.train.rate_finder import RateTest

PICTURE = Path("rate.png")
ROWS = 16


def told_rate(arguments: argparse.Namespace) -> int:
    from torchstone.cli.explain import pictured
    from torchstone.cli.train import find_recipe

    if arguments.out is not None:
        check_new_picture(arguments.out, "--out")
    recipe = toml_of_run(arguments.recipe)
    experiment, _ = find_recipe(recipe)
    seen = tested(experiment, arguments)
    picture: Path = arguments.out or free_name(PICTURE)
    write_new_picture(picture, [figure(seen)], "--out")
    if arguments.json:
        output.say_json(document(seen, picture))
        return output.DONE
    for line in [*told(seen, recipe, arguments.edits), "", *pictured([figure(seen)]), "", f"picture: {output.short(picture)}"]:
        output.say(line)
    return output.DONE


def toml_of_run(name: str) -> str:
    """The experiment of a run folder, which is tested anew from its first weights; anything else as it is."""
    toml = Path(name) / EXPERIMENT
    return str(toml) if toml.is_file() else name


def told_saddle(arguments: argparse.Namespace) -> int:
    from dataclasses import asdict

    from torchstone.experiment import saddle_of_run

    if arguments.rate or arguments.edits:
        raise UserError("--saddle looks at a run as it is: leave out --rate and the edits")
    found = saddle_of_run(Path(arguments.recipe))
    if arguments.json:
        output.say_json(asdict(found))
        return output.DONE
    for line in found.lines():
        output.say(line)
    return output.DONE


def tested(experiment: "Experiment", arguments: argparse.Namespace) -> "RateTest":
    """The range test of the experiment with its edits. Nothing is written."""
    import torch

    from torchstone.core import ranks, tree
    from torchstone.experiment import choose_device, prepare, threads_restored
    from torchstone.train.rate_finder import rate_test

    edits = [*arguments.edits, *([] if arguments.seed is None else [f"run.seed={arguments.seed}"])]
    edits += [] if arguments.device == "auto" else [f"run.device={arguments.device}"]
    experiment = tree.edit(experiment, edits)
    with ranks.joined(torch.device(choose_device(experiment.run.device))), threads_restored():
        prepared = prepare(experiment)
        torch.set_num_threads(prepared.experiment.run.threads or 1)
        job = prepared.job(Path(), {})
        return rate_test(job, prepared.model, low=arguments.low, high=arguments.high, steps=arguments.steps)


def figure(seen: "RateTest") -> "Figure":
    from torchstone.report.figure import Figure, Line, Mark

    lines = (Line("smoothed", seen.rates, seen.smoothed), Line("each step", seen.rates, seen.losses))
    marks = [Mark(f"{name} {value:.1e}", value) for name, value in (("steepest", seen.steepest), ("minimum/10", seen.tenth)) if value]
    top = 2 * max(seen.smoothed[:3])
    return Figure("training loss as the rate rises", seen.path, lines, "loss", log_x=True, marks=tuple(marks), highest=top)


def document(seen: "RateTest", picture: Path) -> dict[str, Any]:
    return {
        "path": f"method.{seen.path}",
        "value": seen.before,
        "steepest": seen.steepest,
        "minimum": seen.minimum,
        "minimum_tenth": seen.tenth,
        "stopped": seen.stopped,
        "steps": len(seen.rates),
        "rates": list(seen.rates),
        "losses": list(seen.losses),
        "smoothed": list(seen.smoothed),
        "picture": str(picture),
    }


def told(seen: "RateTest", recipe: str, edits: list[str]) -> list[str]:
    every = max(1, len(seen.rates) // ROWS)
    rows = [
        (f"{seen.rates[i]:.2e}", output.number(seen.losses[i]), output.number(seen.smoothed[i])) for i in range(0, len(seen.rates), every)
    ]
    lines = [*output.table([("rate", "loss", "smoothed"), *rows]), "", f"stopped after {len(seen.rates)} steps: {seen.stopped}"]
    if seen.steepest is None or seen.tenth is None or seen.minimum is None:
        return [*lines, "no suggestion: the loss never fell; more --steps, or another range, may show more"]
    return [
        *lines,
        f"steepest fall at   {seen.steepest:.1e}",
        f"minimum/10 is at   {seen.tenth:.1e}   (minimum at {seen.minimum:.1e})",
        f"now                {seen.before:.1e}   (method.{seen.path})",
        f"try: torchstone train {' '.join([recipe, *edits, f'{seen.path}={seen.steepest:.1e}'])}",
    ]
