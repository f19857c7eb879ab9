"""`torchstone VERB …`: finds the verb, parses, calls, and turns every way it can fail into one line and an exit code."""

import os
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from io import TextIOWrapper

from torchstone import __version__
from torchstone.cli import compare, doctor, env, eval_, explain, list_, output, predict, report, runs, soup, train
from torchstone.cli.parsing import Parser
from torchstone.core.errors import UserError, warn
from torchstone.core.parts import hint

VERBS = {
    "train": train,
    "compare": compare,
    "eval": eval_,
    "predict": predict,
    "runs": runs,
    "report": report,
    "soup": soup,
    "doctor": doctor,
    "list": list_,
    "explain": explain,
    "env": env,
}

EXAMPLES = """examples:
  torchstone train digits                                 a recipe; writes runs/digits/run/
  torchstone train digits optimizer=sgd optimizer.lr=0.1  the same with two edits
  torchstone eval runs/digits/run
  torchstone predict runs/digits/run picture.png
  torchstone list optimizer

exit codes: 0 done; 1 the work failed; 2 the input was wrong; 130 or 143 interrupted"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command, and returns its exit code. Nothing but the verb's own output goes to stdout."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name that the terminal cannot show is no reason to fail
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            code = dispatch(arguments)
            sys.stdout.flush()
            return code
    except SystemExit as end:  # argparse, after it has printed a help text
        return end.code if isinstance(end.code, int) else 0
    except BrokenPipeError:  # whoever read the output has seen enough
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except BaseException as error:
        if debug:
            traceback.print_exc()
        return output.failed(error)


def dispatch(arguments: Sequence[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(overview(), end="")
        return 0
    name, *rest = arguments
    if name == "--version":
        print(f"torchstone {__version__}")
        return 0
    if name not in VERBS:
        raise UserError(f"there is no verb {name!r}{hint(name, VERBS)}; see torchstone --help")
    verb = VERBS[name]
    parser = Parser(name, verb.HELP, verb.EXAMPLES)
    verb.add(parser)
    run: Callable[..., int] = verb.run
    return run(parser.parse(rest))


def overview() -> str:
    """What `torchstone --help` prints."""
    lines = ["usage: torchstone VERB …", "", "Trains, measures and ships PyTorch models; every technique is a switch.", "", "verbs:"]
    lines += [f"  {name:<9} {verb.HELP}" for name, verb in VERBS.items()]
    lines += ["", "torchstone VERB --help says more.", "", EXAMPLES]
    return "\n".join(lines) + "\n"


def _show_warning(message: Warning | str, *where: object, **more: object) -> None:
    """A Python warning as one `warning: …` line."""
    warn(" ".join(str(message).split()))
