"""`torchstone doctor`: what is wrong with an experiment before it is trained, or with a run; `--rate` and `--saddle` are in `cli.rate`."""

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from torchstone.cli import output
from torchstone.cli.parsing import Parser, add_device, add_json
from torchstone.cli.rate import told_rate, told_saddle
from torchstone.core.errors import UserError
from torchstone.core.layout import EXPERIMENT, PICTURES

if TYPE_CHECKING:
    from torchstone.doctor import Examination, Finding
    from torchstone.experiment import Experiment
    from torchstone.report.examination import Asked

HELP = "looks for what is wrong: before a training (data, first steps of a copy of the model), or in a run"
EXAMPLES = """  torchstone doctor digits                                 every check before training, in under a minute
  torchstone doctor digits optimizer.lr=10 --only overfit_one_batch,loss_at_init
  torchstone doctor digits --out looked                    the same as a page, looked/doctor.html, with pictures and what to leave out
  torchstone doctor runs/digits/run                        what its probes saw while it was trained
  torchstone doctor digits --rate                          a learning-rate range test: a table, the curve, a suggestion; rate.png
  torchstone doctor digits --rate optimizer=sgd --low 1e-5 --high 1 --out sgd.png
  torchstone doctor runs/digits/run --saddle               gradient, extreme curvatures: minimum, saddle, or not there yet

Findings are no failure: the exit code is 0 unless the input is wrong."""
PAGE = "doctor.html"
WIDTH = 110
ROWS = 6
"""Rows of a table that the terminal shows."""


def add(parser: Parser) -> None:
    parser.add_argument(
        "recipe", metavar="RECIPE|RUN", help="a name from `torchstone list recipes`, a .toml file, or a run folder (--saddle: a run folder)"
    )
    parser.add_argument("edits", metavar="EDIT", nargs="*", default=[], help="path=value, as for train")
    parser.add_argument("--only", metavar="CHECK,…", default="", help="these checks alone, by the names that are printed")
    parser.add_argument("--rate", action="store_true", help="learning-rate range test, on a copy: the rate rises until the loss explodes")
    parser.add_argument("--saddle", action="store_true", help="the training loss of a run: its gradient, its curvatures, and a verdict")
    parser.add_argument("--low", type=float, metavar="RATE", default=1e-7, help="of --rate: the first rate (1e-7)")
    parser.add_argument("--high", type=float, metavar="RATE", default=10.0, help="of --rate: the last rate (10)")
    parser.add_argument("--steps", type=int, metavar="N", default=200, help="of --rate: updates from the one to the other (200)")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="a new folder for doctor.html, findings.json, pictures and the list of samples to leave out; else nothing is written. "
        "Of --rate a FILE.png (else rate.png)",
    )
    parser.add_argument("--seed", metavar="N", help="the edit run.seed=N")
    add_device(parser)
    add_json(parser, "the findings and what each check measured (of --rate and --saddle: what was measured)")


def run(arguments: argparse.Namespace) -> int:
    if arguments.saddle:
        return told_saddle(arguments)
    if arguments.rate:
        return told_rate(arguments)
    out: Path | None = arguments.out
    if out is not None and out.exists():
        raise UserError(f"--out {out}: it exists already; choose another folder")
    only = [name.strip() for name in arguments.only.split(",") if name.strip()]
    folder = Path(arguments.recipe)
    of_run = is_run(folder)
    if folder.is_dir() and not of_run and not is_recipe(arguments.recipe):
        raise UserError(
            f"{folder}: a folder, and no run ({EXPERIMENT} is missing); of pictures in class folders: "
            f"torchstone doctor image-folder data.path={shlex.quote(str(folder))}"
        )
    beside: dict[str, bytes] = {}
    if of_run:
        if arguments.edits or only or arguments.seed is not None:
            raise UserError(f"{folder} is a run and is judged as it was: leave out edits, --seed and --only")
        from torchstone.doctor.during import judge

        examination = judge(folder)
        edits: list[str] = []
    else:
        edits = [*arguments.edits, *([] if arguments.seed is None else [f"run.seed={arguments.seed}"])]
        edits += [] if arguments.device == "auto" else [f"run.device={arguments.device}"]
        examination = examined(arguments.recipe, edits, only, out, beside)
    name = str(folder / EXPERIMENT) if of_run else arguments.recipe  # what `train` takes
    if out is not None and output.prints():
        write(out, examination, beside, page_of(examination, arguments, name, edits))
    if arguments.json:
        output.say_json(examination.document())
        return output.DONE
    for line in told(examination, name, edits):
        output.say(line)
    if out is not None:
        output.say(f"written: {output.short(out / PAGE)}")
    return output.DONE


def examined(recipe: str, edits: Sequence[str], only: Sequence[str], out: Path | None, files: dict[str, bytes]) -> "Examination":
    from torchstone.cli.train import find_recipe
    from torchstone.doctor import examine

    return examine(find_recipe(recipe)[0], *edits, only=only, out=out, files=None if out is None else files)


def page_of(examination: "Examination", arguments: argparse.Namespace, name: str, edits: Sequence[str]) -> "Asked":
    """What doctor.html says besides the findings."""
    from torchstone.report.examination import Asked

    folder = Path(arguments.recipe)
    given = [arguments.recipe, *arguments.edits, *(["--only", arguments.only] if arguments.only else [])]
    given += [] if arguments.seed is None else ["--seed", arguments.seed]
    given += [] if arguments.device == "auto" else ["--device", arguments.device]
    return Asked(
        title=folder.absolute().name if is_run(folder) else folder.name.removesuffix(".toml"),
        command="torchstone doctor " + " ".join(map(shlex.quote, [*given, "--out", str(arguments.out)])),
        seconds=examination.seconds,
        commands={(found.check, found.summary): pasted(name, edits, found.remedy) for found in examination.findings if found.remedy},
        of_run=is_run(folder),
    )


def write(out: Path, examination: "Examination", beside: dict[str, bytes], asked: "Asked") -> None:
    """A new folder: doctor.html, findings.json, and pictures/ and leave_out.json where there are any."""
    from torchstone.core import files
    from torchstone.core.json_text import to_json
    from torchstone.doctor.finding import FILE
    from torchstone.report import examination as report

    def fill(folder: Path) -> None:
        files.write_new(folder / FILE, (to_json(examination.document(), indent=2) + "\n").encode())
        if any(name.startswith(f"{PICTURES}/") for name in beside):
            files.make_folder(folder / PICTURES)
        for name, content in beside.items():
            files.write_new(folder / name, content)
        report.write(folder, asked)

    files.new_folder(out, fill)


# --- what is said ----------------------------------------------------------------------------------------------------


def told(examination: "Examination", recipe: str, edits: Sequence[str]) -> list[str]:
    """Findings, then what passed, then what was skipped and why."""
    from torchstone.doctor.finding import SEVERITIES

    lines: list[str] = []
    for finding in examination.findings:
        lines += [*told_finding(finding, recipe, edits), ""]
    by = {outcome: [check for check in examination.checks if check.outcome == outcome] for outcome in ("passed", "found", "skipped")}
    counts = [
        f"{n} {severity}{'' if n == 1 else 's'}"
        for severity in SEVERITIES
        if (n := sum(f.severity == severity for f in examination.findings))
    ]
    lines.append(f"{', '.join(counts) or 'no findings'}; {len(examination.checks)} checks in {examination.seconds:.0f} s")
    if by["passed"]:
        lines += hanging("passed: ", ", ".join(check.check for check in by["passed"]))
    if by["skipped"]:
        reasons = list(dict.fromkeys(check.why for check in by["skipped"]))
        groups = [(", ".join(check.check for check in by["skipped"] if check.why == why), why) for why in reasons]
        lines += hanging("skipped: ", "; ".join(f"{names} ({why})" for names, why in groups))
    return lines


def told_finding(finding: "Finding", recipe: str, edits: Sequence[str]) -> list[str]:
    lines = hanging(f"{finding.severity + ':':<9}", f"{finding.summary} [{finding.check}]")
    numbers = [] if finding.value is None or finding.threshold is None else [f"{finding.value:.3g} against {finding.threshold:.3g}"]
    reason = ": ".join([*numbers, finding.because] if finding.because else numbers)
    lines += hanging(" " * 9, reason) if reason else []
    lines += [" " * 9 + line for line in told_evidence(finding.evidence)]
    lines += hanging(" " * 9, finding.advice) if finding.advice else []
    if finding.remedy:
        lines.append(" " * 9 + "try: " + pasted(recipe, edits, finding.remedy))
    return lines


def told_evidence(evidence: dict[str, Any] | None) -> list[str]:
    """The first rows of a table, the ends of a curve, the largest and smallest bars, where the pictures are."""
    match evidence:
        case {"kind": "table", "columns": columns, "rows": rows}:
            more = [f"… {len(rows) - ROWS} more in --json"] if len(rows) > ROWS else []
            cells = [[str(name) for name in columns], *([cell(value) for value in row] for row in rows[:ROWS])]
            return ["  " + line for line in [*output.table(cells), *more]]
        case {"kind": "curve", "x": x, "lines": lines}:
            return [f"  {line['name']}: {course(line['y'])} over {len(line['x'])} {x}s" for line in lines if line["y"]]
        case {"kind": "bars", "labels": labels, "values": values}:
            order = sorted(zip(values, labels, strict=True), reverse=True)
            few = order if len(order) <= ROWS else [*order[:3], *order[-3:]]
            return ["  " + ", ".join(f"{label}: {value:g}" for value, label in few)]
        case {"kind": "images", "files": names}:
            return [f"  {len(names)} pictures: {names[0]} …"] if names else []
        case _:
            return []


def course(values: Sequence[float | None]) -> str:
    """A curve in five numbers."""
    every = [values[round(i * (len(values) - 1) / 4)] for i in range(5)] if len(values) > 5 else list(values)
    return " > ".join("-" if value is None or value != value else f"{value:.2g}" for value in every)


def cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def hanging(first: str, text: str) -> list[str]:
    """Lines of at most `WIDTH` characters, those after the first indented."""
    return wrap(text, WIDTH, initial_indent=first, subsequent_indent=" " * 9, break_long_words=False, break_on_hyphens=False)


def pasted(recipe: str, edits: Sequence[str], remedy: Sequence[str]) -> str:
    """The command that trains with the remedy. Edits of the user's that the remedy takes back are left out."""
    from torchstone.core import tree

    base = known(recipe)
    kept = [edit for edit in edits if not any(taken_back(edit, other) for other in remedy)]
    short = [edit.removeprefix("method.") for edit in remedy]
    for tried in ([*kept, *short], [*kept, *remedy]):
        try:
            if tree.edit(base, tried) == tree.edit(base, [*kept, *remedy]):
                return command(recipe, tried)
        except UserError:
            continue
    inside = [edit for edit in kept if not any(place(edit).startswith(f"{place(other)}.") for other in remedy)]
    return command(recipe, [*inside, *remedy])


def command(recipe: str, edits: Sequence[str]) -> str:
    return "torchstone train " + " ".join(map(shlex.quote, [recipe, *edits]))


def taken_back(edit: str, remedy: str) -> bool:
    """Whether the remedy sets what the edit set, or takes out what it put in."""
    if place(edit) != place(remedy):
        return False
    added = edit.partition("+=")[2]
    return not added or added.strip() == remedy.partition("-=")[2]


def place(edit: str) -> str:
    """The path of an edit, below the method."""
    return edit.partition("=")[0].strip(" +-").removeprefix("method.")


def is_run(folder: Path) -> bool:
    return folder.is_dir() and (folder / EXPERIMENT).is_file()


def is_recipe(name: str) -> bool:
    from torchstone.recipes import RECIPES

    return name.replace("_", "-") in RECIPES


def known(recipe: str) -> "Experiment":
    from torchstone.cli.train import find_recipe

    return find_recipe(recipe)[0]
