"""Makes docs/numbers.md from benchmarks/results/*.json: no number on that page is typed.

python benchmarks/page.py
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
WIDEST = 400
"""Characters of a cell; what is longer stays in the file."""


@dataclass(frozen=True, slots=True)
class Goal:
    """A number of a result that was promised."""

    what: str
    path: str
    """Where the result has it, names joined by slashes."""
    least: float | None = None
    most: float | None = None


GOALS: dict[str, tuple[Goal, ...]] = {
    "augmentation": (
        Goal("small pictures: times faster than albumentations", "small/times_faster/albumentations", 6),
        Goal("small pictures: times faster than kornia", "small/times_faster/kornia", 6),
        Goal("large pictures: times faster than albumentations", "large/times_faster/albumentations", 2),
    ),
    "fashion_time_to_90": (
        Goal("times less seconds than ResNet-18 in the usual loop", "times_less/seconds/resnet18", 10),
        Goal("times less seconds than ResNet-20 in the usual loop", "times_less/seconds/resnet20", 3),
        Goal("accuracy at the recipe's end, mean of the seeds", "summary/ours/end/accuracy_mean", 0.935),
    ),
    "metrics": tuple(
        Goal(f"{case.replace('_', ' ')}: times faster than scikit-learn", f"cases/{case}/times_faster", 1)
        for case in ("roc_auc_float64", "roc_auc_tied", "average_precision_float64", "average_precision_tied", "confusion")
    ),
    "mlp_trainers": (
        Goal("times the samples/s of transformers' Trainer", "times_faster/trainer", 2.2),
        Goal("times the samples/s of Lightning", "times_faster/lightning", 1.6),
    ),
    "optimizers": tuple(
        Goal(f"{kind.replace('_', '-')}, {size} parameters: times faster than {peer}", f"times_faster/{kind}/{size}", least)
        for kind, peer, least in (
            ("schedule_free", "the schedulefree package", 5),
            ("muon", "torch.optim.Muon", 1.4),
            ("lion", "torch's fused AdamW", 0.77),
            ("lamb", "torch's fused AdamW", 0.77),
        )
        for size in ("many", "small", "large")
    ),
    "probes_overhead": (
        Goal("share of a run of 1,000 steps of about 20 ms", "sides/digits/share_of_1000_steps", most=0.02),
        Goal("the same at half a millisecond a step", "sides/digits_mini/share_of_1000_steps", most=0.02),
    ),
    "resnet18_step": (
        Goal("times faster than eager PyTorch", "times_faster", 2.2),
        Goal("share of the bf16 ceiling, the fastest step", "ours/share_of_bf16_ceiling_fastest", 0.9),
    ),
    "study_overhead": (
        Goal("share of a study's processor time that is no training", "overhead", most=0.02),
        Goal("two workers: times the throughput of one", "two_workers_speedup", 1.5),
    ),
    "study_statistics": (
        Goal("worst upper bound (99 %) of the sequential rule's false positives", "sequential/false_positives_upper_99_worst", most=0.06),
    ),
}


def page(results: Path = HERE / "results") -> str:
    parts = ["# Numbers\n\nMade by `python benchmarks/page.py` from `benchmarks/results/`; each section names its script.\n"]
    for name in sorted({path.stem for path in results.glob("*.json")} | set(GOALS)):
        path = results / f"{name}.json"
        if not path.exists():
            parts.append(f"## {name}\n\nNot measured yet (`benchmarks/{name}.py`).\n")
            continue
        parts.append(section(name, json.loads(path.read_text())))
    return "\n".join(parts)


def section(name: str, document: dict[str, Any]) -> str:
    machine = document.pop("machine")
    document.pop("runs", None)  # one by one in the file; the page has their medians
    parts = [f"## {name}\n\n{document.pop('what')} (`benchmarks/{name}.py`).\n"]
    if name in GOALS:
        parts.append("| goal | | measured | |\n|---|---|---|---|")
        parts += [f"| {goal.what} | {asked(goal)} | {' | '.join(verdict(goal, document))} |" for goal in GOALS[name]]
        parts.append("")
    parts.append("| number | value |\n|---|---|")
    parts += [f"| {name} | {value} |" for name, value in flattened(document)]
    facts = ", ".join(f"{name} {value}" for name, value in machine.items())
    parts.append(f"\nMachine: {facts}.\n")
    return "\n".join(parts)


def asked(goal: Goal) -> str:
    return f"at least {goal.least:g}" if goal.most is None else f"at most {goal.most:g}"


def verdict(goal: Goal, document: dict[str, Any]) -> tuple[str, str]:
    """The number, and whether it is enough. "> 12" is a lower bound: the peer was stopped there."""
    value: Any = document
    for name in goal.path.split("/"):
        value = value.get(name) if isinstance(value, dict) else None
    if value is None:
        return "", "not measured yet"
    bound = str(value).startswith("> ")
    number = float(str(value).removeprefix("> "))
    if number <= goal.most if goal.most is not None else number >= (goal.least or 0):
        return str(value), "met"
    return str(value), "not known: stopped too early" if bound else "**not met**"


def flattened(document: dict, prefix: str = "") -> list[tuple[str, str]]:
    rows = []
    for name, value in document.items():
        if isinstance(value, dict):
            rows += flattened(value, f"{prefix}{name}: ")
            continue
        text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        rows.append((prefix + name, text if len(text) <= WIDEST else f"{len(value)} in the file"))
    return rows


if __name__ == "__main__":
    (HERE.parent / "docs" / "numbers.md").write_text(page())
