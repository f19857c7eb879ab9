"""`torchstone predict`: the answer of a run's model for each input."""

import argparse
import sys
from pathlib import Path
from typing import Any

from torchstone.cli import output
from torchstone.cli.parsing import Parser, add_device, add_json
from torchstone.core.errors import UserError

HELP = "the answer of a run's model for each input: a label, or the continuation of a text"
EXAMPLES = """  torchstone predict runs/digits/run picture.png another.jpg
  torchstone predict runs/digits/run more.npz --json              every sample of array x (or x_test)
  torchstone predict runs/gpt-bytes/run "def main(" --count 300
  head -c 500 script.py | torchstone predict runs/gpt-bytes/run - --temperature 0"""

MOST_PROMPT_BYTES = 1 << 20
OPTIONS = ("count", "temperature", "top_k", "seed")
"""How a text is continued; each None unless it is given."""


def add(parser: Parser) -> None:
    parser.add_argument("run", type=Path, metavar="RUN", help="a run folder")
    parser.add_argument(
        "inputs", metavar="INPUT", nargs="+", help="pictures, .npy or .npz files; for a language run a text, or - for stdin"
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

    predictor = ship.load(arguments.run, device=arguments.device)
    options = {name: value for name in OPTIONS if (value := getattr(arguments, name)) is not None}
    with threads_restored():
        if predictor.artifact.threads is not None:
            torch.set_num_threads(predictor.artifact.threads)
        inputs = [prompt(text) for text in arguments.inputs] if predictor.is_language else arguments.inputs
        if options and not predictor.is_language:
            raise UserError(f"--{next(iter(options)).replace('_', '-')} is for language runs; {arguments.run} is none")
        answers = predictor.predict(inputs, **options)
    if arguments.json:
        output.say_json(answers)
        return output.DONE
    for answer in answers:
        output.say(line(answer))
    return output.DONE


def prompt(text: str) -> str:
    """The text itself, or all of stdin for `-`."""
    if text != "-":
        return text
    content = sys.stdin.buffer.read(MOST_PROMPT_BYTES + 1)
    if len(content) > MOST_PROMPT_BYTES:
        raise UserError(f"stdin: more than {MOST_PROMPT_BYTES} bytes; only the end of a long prompt is read by the model anyway")
    return content.decode(errors="replace")


def line(answer: dict[str, Any]) -> str:
    """An answer as a person reads it: the text, or the label with the likeliest others."""
    if "text" in answer:
        return f"{answer['input']}{answer['text']}"
    likeliest = sorted(answer.get("probabilities", {}).items(), key=lambda pair: -pair[1])[:3]
    shares = [f"{name} {share:.1%}" for name, share in likeliest]
    return f"{answer['input']}: {answer['label']}  ({', '.join(shares)})"
