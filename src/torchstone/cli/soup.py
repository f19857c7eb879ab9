"""`torchstone soup`: the weights of several runs averaged into one run."""

import argparse
from pathlib import Path

from torchstone.cli import output
from torchstone.cli.parsing import Parser, add_device, add_json

HELP = "averages the weights of several runs of one network into a run of its own"
EXAMPLES = """  torchstone soup runs/photos/run runs/photos/run-2 runs/photos/run-3     those that help on validation
  torchstone soup runs/photos/run runs/photos/run-2 --by uniform         all of them
  torchstone predict runs/soup/run picture.png"""


def add(parser: Parser) -> None:
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="run folders of one network, trained on the same data")
    parser.add_argument(
        "--by",
        choices=("greedy", "uniform"),
        default="greedy",
        help="greedy (from the best on, who does not harm on validation) or uniform (all)",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="the new run folder; else a new one under runs/soup/")
    add_device(parser)
    add_json(parser, "the scores on validation and metrics.json's document")


def run(arguments: argparse.Namespace) -> int:
    from torchstone.cli.eval_ import scalars
    from torchstone.cli.train import draw
    from torchstone.experiment.soup import soup

    made = soup(arguments.runs, arguments.out, by=arguments.by, device=arguments.device)
    draw(made.run.folder)
    if arguments.json:
        scores = [{"run": run, made.metric: score, "used": run in made.used} for run, score in made.scores.items()]
        output.say_json({"by": made.by, "runs": scores, made.metric: made.value, "run": str(made.run.folder), **made.run.metrics})
        return output.DONE
    output.say(f"{made.metric} on validation")
    rows = [(output.short(Path(run)), f"{output.number(score)}{'  in' if run in made.used else ''}") for run, score in made.scores.items()]
    for line in output.table([*rows, (f"soup of {len(made.used)}", output.number(made.value))], indent="  "):
        output.say(line)
    where = output.short(made.run.folder)
    final = "  ".join(f"{name} {output.number(value)}" for name, value in scalars(made.run.metrics["final"]).items())
    for line in output.table([("test", final), ("run", where), ("next", f"torchstone predict {where} INPUT")]):
        output.say(line)
    return output.DONE
