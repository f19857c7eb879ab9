"""What a study is: its baseline, its factors, its seeds, what decides. `study.toml` in the study's folder says it, whole.

A person writes less (`studies/x.toml`): only a [study] table, with the words of the command line.

    [study]
    recipe = "digits-mini"                     # a recipe, or a .toml experiment beside this file
    edits = ["run.epochs=10"]                  # applied to every variant
    vary = ["method.averaging=none,ema"]
    seeds = 5                                  # or [0, 3, 7], or "0-9"
    metric = "accuracy"
    design = "one"                             # one, grid or without
    note = "What is claimed, and by whom."

Also `mode` ("max" or "min", where torchstone does not know the metric), `confidence`, `unpaired`, `matters` (the smallest
effect that matters), `until` ("decided"), `budget` ("30m") and `also` (["loss", "train_loss"], told beside the metric that decides).
"""

import json
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import tomli_w

from torchstone.core import files, tree
from torchstone.core.errors import UserError
from torchstone.core.layout import TRAINING
from torchstone.core.parts import hint
from torchstone.experiment.tree import Experiment, own_parts, without_own_parts
from torchstone.study.design import Design, Variant, variants_of
from torchstone.study.factors import Factor

VERSION = 1
FILE = "study.toml"
MOST_SEEDS = 10_000
WRITTEN: dict[str, type | tuple[type, ...]] = {
    "recipe": str,
    "edits": list,
    "vary": list,
    "seeds": (int, str, list),
    "metric": str,
    "mode": str,
    "design": str,
    "note": str,
    "confidence": (int, float),
    "unpaired": bool,
    "until": str,
    "budget": (str, int, float),
    "matters": (int, float),
    "also": (str, list),
}
"""What a person may write in [study], and its kinds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Definition:
    """A study that has been checked."""

    recipe: str
    baseline: Experiment
    """Every variant is edits of it; its run settings (device, threads, precision) are what the machine gave when the study began."""
    factors: tuple[Factor, ...]
    design: Design = "one"
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    metric: str
    mode: Literal["max", "min"] = "max"
    confidence: float = 0.95
    paired: bool = True
    until_decided: bool = False
    matters: float | None = None
    """The smallest effect that matters, in the metric's units: what is smaller for sure is said to be no effect."""
    budget: float | None = None
    """Seconds after which no further run begins; each resumption has as much again."""
    note: str = ""
    """What is claimed."""
    edits: tuple[str, ...] = ()
    """What was edited in the recipe for every variant, for the reader; the baseline has it."""
    also: tuple[str, ...] = ()
    """Metrics that are told beside the one that decides."""

    @property
    def variants(self) -> tuple[Variant, ...]:
        return variants_of(self.factors, self.design)

    def seed_of(self, variant: int, seed: int) -> int:
        """The run's seed: the same for all variants; unpaired, every variant has seeds of its own."""
        return seed if self.paired else seed + variant * (max(self.seeds) + 1)


# --- study.toml ----------------------------------------------------------------------------------------------------------


def to_text(study: Definition) -> str:
    table: dict[str, Any] = {
        "version": VERSION,
        "recipe": study.recipe,
        "metric": study.metric,
        "mode": study.mode,
        "design": study.design,
        "seeds": list(study.seeds),
        "confidence": study.confidence,
        "paired": study.paired,
        "until_decided": study.until_decided,
        "edits": list(study.edits),
        "factors": [
            {"path": factor.path, "values": list(factor.values), "baseline": factor.baseline, "written": factor.written}
            for factor in study.factors
        ],
    }
    numbers = {"threads": study.baseline.run.threads, "budget": study.budget, "matters": study.matters}
    table |= {name: value for name, value in numbers.items() if value is not None}
    table |= {"note": study.note} if study.note else {}
    table |= {"also": list(study.also)} if study.also else {}
    return tomli_w.dumps({"study": table, "experiment": tree.encode(study.baseline)})


def read(path: Path, here: Experiment | None = None) -> Definition:
    """The study that a study.toml says. `here`: the experiment at hand, whose classes of the user's own, which no file can build, are
    the study's. Raises UserError naming the file and the place in it."""
    document = _document(path)
    table = document.get("study")
    if not isinstance(table, dict) or "experiment" not in document or "factors" not in table:
        raise UserError(f"{path}: not the study.toml of a study folder: [study] with factors and [experiment] are expected")
    if table.get("version") != VERSION:
        raise UserError(f"{path}: written by another version of torchstone (version {table.get('version')}, this one reads {VERSION})")
    try:
        baseline = _baseline(document["experiment"], here, path.absolute().parent)
        known = {"max", "min"}, {"one", "grid", "without"}
        if table["mode"] not in known[0] or table["design"] not in known[1]:
            raise UserError(f"mode = {table['mode']!r} and design = {table['design']!r} are not what a study has there")
        return Definition(
            recipe=_text(table["recipe"]),
            baseline=baseline,
            factors=tuple(
                Factor(_text(each["path"]), tuple(map(_text, each["values"])), _text(each["baseline"]), _text(each["written"]))
                for each in table["factors"]
            ),
            design=table["design"],
            seeds=seeds_of(table["seeds"]),
            metric=_text(table["metric"]),
            mode=table["mode"],
            confidence=confidence_of(table["confidence"]),
            paired=table["paired"] is True,
            until_decided=table["until_decided"] is True,
            matters=matters_of(table.get("matters")),
            budget=None if table.get("budget") is None else seconds_of(table["budget"]),
            note=_text(table.get("note", "")),
            edits=tuple(map(_text, table["edits"])),
            also=also_of(table.get("also", [])),
        )
    except (KeyError, TypeError) as error:
        raise UserError(f"{path}: [study] is not whole ({error!r:.80})") from None
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _baseline(document: dict[str, Any], here: Experiment | None, folder: Path) -> Experiment:
    own = own_parts(document)
    if not own:
        return tree.decode(Experiment, document, folder=folder)
    if here is None:
        raise UserError(
            f"{' and '.join(own)}: a class of your own, which no file can build; go on from your script by "
            f"torchstone.compare(…, out={str(folder)!r}, resume=True)"
        )
    encoded = tree.encode(here)
    for place in own:
        there, now = (said_of_own(at(each, place)) for each in (document, encoded))
        if there != now:
            raise UserError(f"is another study ({place}: {there} there, {now} here); choose another folder, or take the change back")
    seats = {place.removeprefix("method."): tree.get(here, place) for place in own if place.startswith("method.")}
    baseline = without_own_parts(document, here, folder)
    return replace(baseline, method=replace(baseline.method, **seats))


def at(document: Any, place: str) -> Any:
    for name in place.split("."):
        document = document[name]
    return document


def said_of_own(value: Any) -> str:
    """An encoded part as text, without what differs from one process to the next."""
    return re.sub(r" at 0x[0-9a-f]+", "", json.dumps(value, sort_keys=True))


def is_written(path: Path) -> bool:
    """Whether the file is a study a person wrote or a folder's study.toml, rather than an experiment."""
    try:
        document = _document(path)
    except UserError:
        return False
    return isinstance(document.get("study"), dict)


def is_whole(path: Path) -> bool:
    """Whether the file is the study.toml of a study folder."""
    return "experiment" in _document(path)


def read_written(path: Path) -> dict[str, Any]:
    """The [study] table a person wrote, keys and kinds checked. Raises UserError naming what is wrong."""
    document = _document(path)
    table = document["study"]
    if extra := sorted(set(document) - {"study"}):
        raise UserError(f"{path}: {extra[0]!r} beside [study]; the recipe and edits say the experiment")
    for name, value in table.items():
        if name not in WRITTEN:
            raise UserError(f"{path}: [study] has no {name!r}{hint(name, WRITTEN)}")
        if not isinstance(value, WRITTEN[name]) or (isinstance(value, bool) and WRITTEN[name] is not bool):
            raise UserError(f"{path}: study.{name} = {value!r:.60} is not what is expected there")
        if isinstance(value, list) and name != "seeds" and not all(isinstance(each, str) for each in value):
            raise UserError(f"{path}: study.{name} must be a list of texts")
    for name in ("recipe", "vary"):
        if name not in table:
            raise UserError(f"{path}: study.{name} is missing")
    if table["recipe"].endswith(".toml"):
        table["recipe"] = str(path.parent / table["recipe"])
    if table.get("design", "one") not in ("one", "grid", "without"):
        raise UserError(f"{path}: study.design must be one, grid or without, got {table['design']!r}")
    if table.get("until", "decided") != "decided":
        raise UserError(f"{path}: study.until must be decided, got {table['until']!r}")
    return table


def _document(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(files.read_text(path, limit=1 << 20))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not TOML ({str(error)[:200]})") from None


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise UserError(f"{value!r:.60} is no text")
    return value


# --- the same study ------------------------------------------------------------------------------------------------------


def require_same(there: Definition, here: Definition, folder: Path) -> Definition:
    """The study to go on with: seeds and `also` may grow, the budget may differ. Raises UserError for another baseline, factor or rule."""
    changed = [] if there.recipe == here.recipe else [f"recipe: {there.recipe} there, {here.recipe} here"]
    free = ("run.device", "run.threads", "run.speed", "run.precision", "run.memory_format", "run.compile", "run.trackers")
    changed += [
        f"{path}: {old} there, {new} here" for path, old, new in tree.diff(there.baseline, here.baseline) if not path.startswith(free)
    ]
    said = [(each.path, each.values) for each in there.factors], [(each.path, each.values) for each in here.factors]
    if said[0] != said[1]:
        one, other = (", ".join(f"{path}={','.join(values)}" for path, values in each) for each in said)
        changed.append(f"it varies {one} there, {other} here")
    if there.until_decided and there.seeds != here.seeds:
        changed.append(f"seeds: {seeds_text(there.seeds)} there, {seeds_text(here.seeds)} here (the rule that stops it was made for those)")
    for name in ("until_decided", "metric", "mode", "design", "paired", "confidence", "matters"):
        if getattr(there, name) != getattr(here, name):
            changed.append(f"{name}: {getattr(there, name)} there, {getattr(here, name)} here")
    if changed:
        raise UserError(f"{folder}: is another study ({'; '.join(changed[:4])}); choose another folder, or take the change back")
    if missing := sorted(set(there.seeds) - set(here.seeds)):
        raise UserError(f"{folder}: its seeds are {seeds_text(there.seeds)}; seeds may be added, not left out ({seeds_text(missing)})")
    return replace(there, seeds=here.seeds, budget=here.budget, also=also_of((*there.also, *here.also), there.metric))


# --- words of the command line ---------------------------------------------------------------------------------------------


def seeds_of(value: Any) -> tuple[int, ...]:
    """The seeds of `5` (0 to 4), `0,3,7`, `0-9` or a list.

    >>> seeds_of("5"), seeds_of("0,3,7"), seeds_of("2-4,9")
    ((0, 1, 2, 3, 4), (0, 3, 7), (2, 3, 4, 9))
    """
    text = ",".join(map(str, value)) + "," if isinstance(value, list | tuple) else str(value).strip()
    wrong = UserError(f"--seeds {value!s:.60}: it is a number of seeds (5), a list (0,3,7) or a range (0-9)")
    if text.isdecimal():
        if not 1 <= int(text[:9]) <= MOST_SEEDS:
            raise UserError(f"--seeds must be from 1 to {MOST_SEEDS}, got {text:.20}")
        return tuple(range(int(text)))
    found = list[int]()
    for piece in filter(None, (each.strip() for each in text.split(","))):
        match = re.fullmatch(r"(\d{1,18})(?:-(\d{1,18}))?", piece)
        if match is None:
            raise wrong
        first, last = int(match[1]), int(match[2] or match[1])
        if not first <= last < first + MOST_SEEDS:
            raise wrong
        found += range(first, last + 1)
    if not found or len(found) > MOST_SEEDS:
        raise wrong
    if len(set(found)) < len(found):
        raise UserError(f"--seeds {value!s:.60}: a seed is listed twice; the same seed gives the same run")
    return tuple(found)


def seeds_text(seeds: Sequence[int]) -> str:
    """`0-4`, or the seeds one by one."""
    whole = len(seeds) > 2 and list(seeds) == list(range(seeds[0], seeds[-1] + 1))
    return f"{seeds[0]}-{seeds[-1]}" if whole else ", ".join(map(str, seeds))


def seconds_of(value: Any) -> float:
    """The seconds of `90s`, `30m`, `2h`, `1.5h` or a plain number of seconds.

    >>> seconds_of("90s"), seconds_of("30m"), seconds_of("1.5h"), seconds_of(20)
    (90.0, 1800.0, 5400.0, 20.0)
    """
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,6})?)\s*([smh]?)", str(value).strip())
    seconds = float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]] if match else 0.0
    if seconds <= 0:
        raise UserError(f"--budget {value!s:.40}: it is a duration, as 90s, 30m or 2h")
    return seconds


def confidence_of(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.5 <= value < 1:
        raise UserError(f"confidence must be in [0.5, 1), got {value!r:.40}")
    return float(value)


def also_of(value: Any, metric: str = "") -> tuple[str, ...]:
    """The metrics of `ece,loss` or a list, each once and without the one that decides.

    >>> also_of("ece, loss,accuracy", "accuracy"), also_of(["loss"])
    (('ece', 'loss'), ('loss',))
    """
    pieces = [piece.strip() for piece in value.split(",")] if isinstance(value, str) else list(value or ())
    for piece in pieces:
        if not isinstance(piece, str) or not re.fullmatch(r"[\w.-]{1,100}", piece):
            raise UserError(f"--also {piece!s:.60}: names of metrics are expected, as --also loss,ece")
    return tuple(dict.fromkeys(piece for piece in pieces if piece != metric))


def matters_of(value: Any) -> float | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf")):
        raise UserError(f"--matters must be > 0, in the metric's units, got {value!r:.40}")
    return None if value is None else float(value)


SMALL_IS_GOOD = re.compile(r"loss|error|brier|perplexity|bits_per_|_gap$|mse|mae|rmse|ece|nll|threshold_fpr")


def mode_of(metric: str, selection: tuple[str, str]) -> Literal["max", "min"]:
    """Whether large or small is good: as the task says of its own metric (`train_…`: the same), else by the metric's name."""
    metric = metric.removeprefix(TRAINING)
    if metric == selection[0]:
        return "min" if selection[1] == "min" else "max"
    return "min" if SMALL_IS_GOOD.search(metric) else "max"
