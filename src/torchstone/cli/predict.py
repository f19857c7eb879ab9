"""`torchstone predict`: the answer of a run's model for each input."""

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchstone.cli import output
from torchstone.cli.parsing import Parser, add_device, add_json
from torchstone.core import files
from torchstone.core.errors import UserError, clean, plural, warn

if TYPE_CHECKING:
    from torchstone.ship import Predictor

HELP = "the answer of a run's model for each input: a label, or the continuation of a text"
EXAMPLES = """  torchstone predict runs/digits/run picture.png another.jpg
  torchstone predict runs/photos/run holiday/ --out answers.csv   every picture below a folder
  find . -name '*.jpg' | torchstone predict runs/photos/run - --out answers.jsonl --on-bad skip
  torchstone predict runs/photos/run holiday/ --pictures looked-at   each picture with its label below
  torchstone predict runs/digits/run more.npz --json              every sample of array x (or x_test)
  torchstone predict runs/gpt-bytes/run "def main(" --count 300
  head -c 500 script.py | torchstone predict runs/gpt-bytes/run - --temperature 0"""

MOST_PROMPT_BYTES = 1 << 20
MOST_PATH_BYTES = 1 << 28
"""Of the paths on standard input."""
LANGUAGE_OPTIONS = ("count", "temperature", "top_k", "seed")
"""How a text is continued; each None unless it is given."""
LABEL_OPTIONS = ("top", "pictures", "on_bad")
"""What only an answer with a label has."""


def add(parser: Parser) -> None:
    parser.add_argument("run", type=Path, metavar="RUN", help="a run folder, or one of train --folds: the mean of their probabilities")
    parser.add_argument("--snapshots", action="store_true", help="the mean of the probabilities of the checkpoints that run.snapshots kept")
    parser.add_argument(
        "inputs",
        metavar="INPUT",
        nargs="+",
        help="pictures, folders of pictures, .npy or .npz files, or - for such paths on stdin, one a line; "
        "for a language run a text, or - for the text on stdin",
    )
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="write the answers to a .jsonl, .json or .csv file, whole or not at all, in bounded memory"
    )
    parser.add_argument("--top", type=int, metavar="K", help="show the K likeliest classes only")
    parser.add_argument("--pictures", type=Path, metavar="DIR", help="make this folder: each picture as the model gets it, its label below")
    parser.add_argument(
        "--on-bad",
        choices=("refuse", "skip"),
        metavar="WHAT",
        help="of files that cannot be read: refuse (name them and end) or skip (count them and go on); refuse",
    )
    parser.add_argument("--count", type=int, metavar="N", help="bytes to write (language; 200)")
    parser.add_argument("--temperature", type=float, metavar="T", help="0 takes the likeliest byte each time (language; 0.8)")
    parser.add_argument("--top-k", type=int, metavar="K", help="draw among the K likeliest bytes, 0: among all (language; 0)")
    parser.add_argument("--seed", type=int, metavar="N", help="what the draws are made from (language; 0)")
    add_device(parser)
    add_json(parser, "a list with one object an input")


def run(arguments: argparse.Namespace) -> int:
    import torch

    from torchstone import ship
    from torchstone.experiment import threads_restored

    check(arguments)
    predictor = ship.load(arguments.run, device=arguments.device, snapshots=arguments.snapshots)
    if predictor.members and output.prints():
        print(f"an ensemble of {len(predictor.members)}: the mean of their probabilities", file=sys.stderr)
    foreign = LABEL_OPTIONS if predictor.is_language else LANGUAGE_OPTIONS
    for name in foreign:
        if getattr(arguments, name) is not None:
            other = "is not for language runs" if predictor.is_language else f"is for language runs; {arguments.run} is none"
            raise UserError(f"--{name.replace('_', '-')} {other}")
    with threads_restored():
        if predictor.artifact.threads is not None:
            torch.set_num_threads(predictor.artifact.threads)
        if arguments.pictures is None:
            answer(arguments, predictor, None)
        else:
            files.new_folder(arguments.pictures, lambda folder: answer(arguments, predictor, folder))
    return output.DONE


def check(arguments: argparse.Namespace) -> None:
    """Raises UserError for options that can be judged before the model is read."""
    from torchstone.ship.answers import ENDINGS

    if arguments.top is not None and arguments.top < 1:
        raise UserError(f"--top must be >= 1, got {arguments.top}")
    if arguments.out is None:
        return
    if arguments.json:
        raise UserError("--json prints the answers and --out writes them: give one of the two")
    if arguments.out.suffix.lower() not in ENDINGS:
        raise UserError(f"--out {arguments.out}: the name says the form, it must end in {', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}")
    if arguments.out.is_dir() or not arguments.out.parent.is_dir():
        raise UserError(f"--out {arguments.out}: {'is a folder' if arguments.out.is_dir() else 'its folder does not exist'}")


def answer(arguments: argparse.Namespace, predictor: "Predictor", folder: Path | None) -> None:
    """Predicts, and puts the answers where they are wanted; captioned pictures go into `folder`."""
    from torchstone.ship.answers import encoded, line, shortened

    skipped: list[str] = []
    stream = continued(arguments, predictor) if predictor.is_language else labeled(arguments, predictor, folder, skipped)
    counted = Counted(stream)
    if arguments.out is not None:
        classes = () if predictor.is_language else predictor.artifact.facts.classes
        files.write_durable(arguments.out, encoded(counted, arguments.out.suffix.lower(), classes, arguments.top))
        output.say(f"{plural(counted.count, 'answer')} in {arguments.out}")
    elif arguments.json:
        output.say_json([shortened(each, arguments.top) for each in counted])
    else:
        for each in counted:
            output.say(line(each, arguments.top))
    if folder is not None:
        print(f"{plural(counted.count, 'picture')} in {clean(str(arguments.pictures))}", file=sys.stderr)


class Counted:
    """An iterator that counts what it has given."""

    def __init__(self, items: Iterator[dict[str, Any]]) -> None:
        self.count = 0
        self._items = items

    def __iter__(self) -> "Counted":
        return self

    def __next__(self) -> dict[str, Any]:
        item = next(self._items)
        self.count += 1
        return item


def continued(arguments: argparse.Namespace, predictor: "Predictor") -> Iterator[dict[str, Any]]:
    options = {name: value for name in LANGUAGE_OPTIONS if (value := getattr(arguments, name)) is not None}
    prompts = [prompt(text) for text in arguments.inputs]
    return iter(predictor.predict(prompts, **options))


def labeled(arguments: argparse.Namespace, predictor: "Predictor", folder: Path | None, skipped: list[str]) -> Iterator[dict[str, Any]]:
    """The answers, batch by batch. Files that were skipped are counted at the end; none left is a UserError."""
    from torchstone.ship.inputs import FIRST

    position = 0
    for batch in predictor.scored(paths(arguments.inputs), skipped if arguments.on_bad == "skip" else None):
        for row, each in enumerate(predictor.answers(batch)):
            if folder is not None:
                picture(folder, predictor, batch, row, position, each)
            position += 1
            yield each
    if not skipped:
        return
    more = f"; and {len(skipped) - FIRST} more" if len(skipped) > FIRST else ""
    told = f"{len(skipped)} {'file' if len(skipped) == 1 else 'files'} skipped: {'; '.join(skipped[:FIRST])}{more}"
    if position == 0:
        raise UserError(f"nothing is left to predict; {told}")
    warn(told)


def picture(folder: Path, predictor: "Predictor", batch: Any, row: int, position: int, each: dict[str, Any]) -> None:
    """Writes one captioned picture."""
    from torchstone.ship.captions import captioned, file_name
    from torchstone.tasks import Classify

    task = predictor.artifact.task
    shown = task.picture((batch.inputs[row], batch.outputs[row])) if isinstance(task, Classify) else None
    if shown is None:
        raise UserError("--pictures: the inputs of this run are no pictures of 1 or 3 channels")
    caption = f"{each['label']} {each['probabilities'][each['label']]:.1%}"
    files.write_new(folder / file_name(position, each), captioned(shown, caption))


def paths(inputs: list[str]) -> list[Path]:
    """The inputs as paths; `-` stands for those on stdin, one a line."""
    if "-" not in inputs:
        return [Path(each) for each in inputs]
    if inputs.count("-") > 1:
        raise UserError("stdin can be read once: give - once")
    content = sys.stdin.buffer.read(MOST_PATH_BYTES + 1)
    if len(content) > MOST_PATH_BYTES:
        raise UserError(f"stdin: more than {MOST_PATH_BYTES >> 20} MiB of paths; name a folder, or call it in parts")
    listed = [Path(os.fsdecode(line)) for line in content.splitlines() if line.strip()]
    if not listed:
        raise UserError("stdin names no file; one path a line is expected")
    at = inputs.index("-")
    return [*map(Path, inputs[:at]), *listed, *map(Path, inputs[at + 1 :])]


def prompt(text: str) -> str:
    """The text itself, or all of stdin for `-`."""
    if text != "-":
        return text
    content = sys.stdin.buffer.read(MOST_PROMPT_BYTES + 1)
    if len(content) > MOST_PROMPT_BYTES:
        raise UserError(f"stdin: more than {MOST_PROMPT_BYTES} bytes; only the end of a long prompt is read by the model anyway")
    return content.decode(errors="replace")
