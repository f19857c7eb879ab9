"""`torchstone doctor`: looks at an experiment before it is trained, or at a run. `--rate`: which learning rate; `--saddle`: what kind of
place the weights of a run have come to."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchstone.cli import output
from torchstone.cli.parsing import Parser, add_device, add_json
from torchstone.cli.pictures import check_new_picture, free_name, write_new_picture
from torchstone.core.errors import UserError

if TYPE_CHECKING:
    from torchstone.experiment import Experiment
    from torchstone.report.figure import Figure
    from torchstone.train.rate_finder import RateTest

HELP = "looks at an experiment before it is trained (--rate finds a learning rate) or at a run (--saddle)"
EXAMPLES = """  torchstone doctor digits --rate                          a table, the curve, a suggestion; rate.png
  torchstone doctor digits --rate optimizer=sgd
  torchstone doctor runs/digits/run/experiment.toml --rate --low 1e-5 --high 1 --out sgd.png
  torchstone doctor digits --rate --json
  torchstone doctor runs/digits/run --saddle               gradient, extreme curvatures: minimum, saddle, or not there yet"""
PICTURE = Path("rate.png")
ROWS = 16


def add(parser: Parser) -> None:
    parser.add_argument("recipe", metavar="RECIPE", help="a name from `torchstone list recipes` or a .toml file; for --saddle a run")
    parser.add_argument("edits", metavar="EDIT", nargs="*", default=[], help="path=value, as for train")
    parser.add_argument("--rate", action="store_true", help="learning-rate range test, on a copy: the rate rises until the loss explodes")
    parser.add_argument("--saddle", action="store_true", help="the training loss of a run: its gradient, its curvatures, and a verdict")
    parser.add_argument("--low", type=float, metavar="RATE", default=1e-7, help="the first rate (1e-7)")
    parser.add_argument("--high", type=float, metavar="RATE", default=10.0, help="the last rate (10)")
    parser.add_argument("--steps", type=int, metavar="N", default=200, help="updates from the one to the other (200)")
    parser.add_argument(
        "--out", type=Path, metavar="FILE.png", help="where the curve is drawn; else rate.png here, rate-2.png if that exists …"
    )
    parser.add_argument("--seed", metavar="N", help="the edit run.seed=N")
    add_device(parser)
    add_json(parser, "what was measured")


def run(arguments: argparse.Namespace) -> int:
    from torchstone.cli.explain import pictured
    from torchstone.cli.train import find_recipe

    if arguments.saddle:
        return told_saddle(arguments)
    if not arguments.rate:
        raise UserError("say what the doctor is to look at: --rate or --saddle; see torchstone doctor --help")
    if arguments.out is not None:
        check_new_picture(arguments.out, "--out")
    experiment, _ = find_recipe(arguments.recipe)
    seen = tested(experiment, arguments)
    picture: Path = arguments.out or free_name(PICTURE)
    write_new_picture(picture, [figure(seen)], "--out")
    if arguments.json:
        output.say_json(document(seen, picture))
        return output.DONE
    for line in [*told(seen, arguments.recipe, arguments.edits), "", *pictured([figure(seen)]), "", f"picture: {output.short(picture)}"]:
        output.say(line)
    return output.DONE


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
