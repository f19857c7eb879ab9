"""Makes docs/studies: a page for each study of studies/, from its results, and what we read in them.

    python docs/make_studies.py          writes the pages and pictures; those of studies that are gone are removed

A study is `studies/NAME.toml`; what it found is `studies/results/NAME.json` and `NAME.costs.json`, copied from the study's folder; what
that says of the claim is the table NAME of `studies/readings.toml`, written by hand. A test fails while the pages are not what this makes.
"""

import re
import shutil
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path

from torchstone.report import forest, levels, study_svg
from torchstone.report.headline import SHARES, title_of
from torchstone.report.numbers import NONE, duration, number
from torchstone.report.study import numbers_row
from torchstone.report.study_reading import Study, Variant, read_study

HERE = Path(__file__).resolve().parent / "studies"
STUDIES = HERE.parents[1] / "studies"
SHOWN = {"yes": "shown", "partly": "shown in part", "no": "not shown"}


@dataclass(frozen=True, slots=True)
class Told:
    """One study with what was read in it."""

    name: str
    study: Study
    shown: str
    text: str


def told() -> list[Told]:
    """Every study that has results, in the order of the readings."""
    readings = tomllib.loads((STUDIES / "readings.toml").read_text())
    return [Told(name, read(name), SHOWN[entry["shown"]], " ".join(entry["text"].split())) for name, entry in readings.items()]


def read(name: str) -> Study:
    """The committed files, as a study's folder has them."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / name
        place.mkdir()
        shutil.copy(STUDIES / f"{name}.toml", place / "study.toml")
        shutil.copy(STUDIES / "results" / f"{name}.json", place / "results.json")
        shutil.copy(STUDIES / "results" / f"{name}.costs.json", place / "costs.json")
        study = read_study(place)
    if study.problems:
        raise SystemExit(f"studies/{name}: {'; '.join(study.problems)}")
    return study


def pages() -> dict[str, str]:
    """File name -> text, of every page and picture."""
    made: dict[str, str] = {}
    index = [
        "# The folklore, measured",
        "",
        "What everybody says of deep learning, each as a study that anybody can run again on two cores:",
        "`torchstone compare studies/NAME.toml`. A claim that did not show here is said not to have shown: on small data, small networks",
        "and these settings; its page says what would have to differ. Made by `docs/make_studies.py` from `studies/`; how the numbers come",
        "about is on [the statistics of a study](../why/statistics-of-a-study.md).",
        "",
        "| claim | here | study |",
        "|---|---|---|",
    ]
    for each in told():
        index.append(f"| {cell(first_sentence(each.study.note))} | {each.shown} | [{words(each.name)}]({each.name}.md) |")
        made |= page(each)
    made["README.md"] = "\n".join(index) + "\n"
    return made


def page(each: Told) -> dict[str, str]:
    """One study: the claim, what was found, the pictures, all numbers, how to run it again."""
    name, study = each.name, each.study
    unit = forest.unit_of(study)
    made: dict[str, str] = {}
    lines = [f"# {words(name).capitalize()}", "", f"**The claim.** {study.note}", "", f"**Here: {each.shown}.** {each.text}", ""]
    measured = title_of(study.metric)
    panels = levels.panels(study)
    for number_, panel in enumerate(panels):
        file = f"{name}-{number_}.svg" if len(panels) > 1 else f"{name}.svg"
        made[file] = study_svg.panel_svg(panel, measured, study.metric in SHARES)
        lines += [f"![{measured} over {panel.across}, a line for each {panel.down}{': ' + panel.title if panel.title else ''}]({file})", ""]
    effects = None if panels else forest.effects_forest(study, unit)
    if effects:
        made[f"{name}.svg"] = study_svg.forest_svg(effects, f"{words(name)}: differences of {measured} to the baseline")
        lines += [f"![differences of {measured} to the baseline, with their intervals]({name}.svg)", ""]
    if panels and any(place and place.lost for panel in panels for row in panel.rows for place in row.places):
        lines += ["A cross at the bottom: runs that diverged, which have no value; the means are of the others.", ""]
    lines += [*table(study, unit), "", *how(name, study)]
    made[f"{name}.md"] = "\n".join(lines).rstrip() + "\n"
    return made


def table(study: Study, unit: forest.Unit) -> list[str]:
    """All numbers of the study, a variant a row."""
    points = f", {unit.word}" if unit.word else ""
    also = list(study.also)
    titles = ("", "n", title_of(study.metric), f"difference{points}", "p (Holm)", "verdict", *map(title_of, also), "time a run")
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for variant in study.all:
        row = numbers_row(variant, unit, study.matters)
        lost = "; ".join(forest.troubles(variant))
        cells = [
            f"`{row['name']}`" if variant.effect else f"`{row['name']}`: {levels_text(variant)}",
            row["n"],
            row["mean"] + (f" ± {unit.spread(half(variant))}" if half(variant) is not None else ""),
            f"{row['change']} {row['t']}" if row["change"] != NONE else NONE,
            row["p_holm"] or NONE,
            row["verdict"] + (f" ({lost})" if lost else ""),
            *(also_text(variant, name) for name in also),
            duration(cost.value.mean) if (cost := variant.costs.get("seconds")) else NONE,
        ]
        lines.append("| " + " | ".join(cell(text) for text in cells) + " |")
    return lines


def levels_text(variant: Variant) -> str:
    names = levels.named(list(variant.levels))
    return ", ".join(f"{names[path]}={level}" for path, level in variant.levels.items())


def half(variant: Variant) -> float | None:
    """Half the length of the mean's interval."""
    return (variant.ends[1] - variant.ends[0]) / 2 if variant.ends else None


def also_text(variant: Variant, name: str) -> str:
    """A metric told beside the one that decides: its mean, and how far from the baseline."""
    value, more = variant.also.get(name, (None, None))
    if value is None:
        return NONE
    factor, percent = (100, "\u202f%") if name in SHARES else (1, "")
    text = number(factor * value.mean, 3) + percent
    if more is None or more.low is None or more.high is None:
        return text
    return f"{text} ({number(factor * more.mean, 2)} [{number(factor * more.low, 2)}, {number(factor * more.high, 2)}])"


def how(name: str, study: Study) -> list[str]:
    """What it is a study of, and how to run it again."""
    costs = [each.costs.get("seconds") for each in study.all]
    seconds = sum(cost.value.mean * (cost.value.n or 0) for cost in costs if cost)
    seeds = f"{len(study.seeds)} {'paired ' if study.paired else ''}seeds"
    lines = [
        f"Brackets and ± are {study.confidence:.0%} intervals (t); {measured_how(study)}",
        "",
        f"- Baseline: `{' '.join((study.recipe, *study.edits))}`",
        *(f"- Varied: `{path}` = {', '.join(f'`{level}`' for level in values)}" for path, values in study.factors),
        f"- {seeds}, {sum(len(each.runs) for each in study.all)} runs{f', {duration(seconds)} of training' if seconds else ''}",
        "",
        f"    torchstone compare studies/{name}.toml",
    ]
    return lines


def measured_how(study: Study) -> str:
    better = "smaller is better" if study.smaller else "larger is better"
    return f"{title_of(study.metric)} on the {study.split} split, {better}; differences are to the first row, at the same seed."


def words(name: str) -> str:
    return name.replace("_", " ")


def first_sentence(text: str) -> str:
    return re.split(r"(?<! al)\. ", text)[0].rstrip(".") + "." if text else ""


def cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def main() -> None:
    made = pages()
    HERE.mkdir(exist_ok=True)
    for old in set(HERE.glob("*.md")) | set(HERE.glob("*.svg")):
        if old.name not in made:
            old.unlink()
    for name, text in made.items():
        (HERE / name).write_text(text)


if __name__ == "__main__":
    main()
