"""Small study folders on disk: results.json, costs.json and study.toml as `compare` writes them, and of each run its log and findings.

Effects and intervals are SciPy's. The values are drawn, the files written by hand.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from report.sample_run import write_json

SEEDS = (0, 1, 2, 3, 4)
BASE = np.array([0.912, 0.921, 0.905, 0.917, 0.909])
GAINS: dict[str, np.ndarray] = {
    "averaging=ema": np.array([0.006, 0.009, 0.012, 0.007, 0.008]),
    "loss.smoothing=0.1": np.array([0.001, -0.002, 0.002, -0.001, 0.0005]),
    "optimizer.lr=0.1": np.array([-0.051, -0.043, -0.062, -0.058, -0.049]),
    "batch_size=32": np.array([0.011, -0.009, 0.014, -0.006, 0.002]),
    "note=b": np.zeros(5),
}
VERDICTS = ("helps", "no effect larger than x shown", "hurts", "undecided", "inert")
DIVERGED = "optimizer.lr=9"
CLASSES = ["T-shirt", "trouser", "bag"]

PLAN = """
[study]
version = 1
recipe = "digits-mini"
metric = "METRIC"
mode = "max"
design = "one"
seeds = [0, 1, 2, 3, 4]
confidence = 0.95
paired = true

[[study.factors]]
path = "method.averaging"
values = ["none", "ema"]

[experiment.data]
kind = "digits"

[experiment.method.optimizer]
kind = "adamw"
lr = 0.003
"""


def sample_study(folder: Path, *, metric: str = "accuracy", seeds: int = 5) -> Path:
    """Makes the study folder, six variants beside the baseline; returns it."""
    folder.mkdir(parents=True)
    (folder / "study.toml").write_text(PLAN.replace("METRIC", metric))
    write_json(folder / "results.json", results(metric, seeds))
    write_json(folder / "costs.json", costs(seeds))
    for name, values in all_values(seeds).items():
        for seed, value in zip(SEEDS, values, strict=False):
            run = folder / name / f"seed-{seed}"
            run.mkdir(parents=True)
            (run / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log(metric, value, seed)))
            write_json(run / "findings.json", findings(name))
    return folder


def all_values(seeds: int = 5) -> dict[str, list[float | None]]:
    """Value of each run; None: it diverged."""
    found: dict[str, list[float | None]] = {"baseline": BASE[:seeds].tolist()}
    found |= {name: (BASE + gain)[:seeds].tolist() for name, gain in GAINS.items()}
    return found | {DIVERGED: [None] * seeds}


def results(metric: str = "accuracy", seeds: int = 5) -> dict[str, Any]:
    values = all_values(seeds)
    variants = [variant("baseline", values["baseline"], None)]
    for (name, gain), verdict in zip(GAINS.items(), VERDICTS, strict=True):
        variants.append(variant(name, values[name], effect(gain[:seeds], verdict if seeds > 1 else "withheld")))
    nothing = dict.fromkeys(("mean", "std", "low", "high", "bootstrap_low", "bootstrap_high", "p", "p_holm", "smallest"))
    lost = nothing | {"n": 0, "inert": False, "diverged": seeds, "p_diverged_holm": 0.041, "verdict": "hurts", "sentence": "diverged"}
    return {
        "kind": "study",
        "version": 1,
        "recipe": "digits-mini",
        "metric": metric,
        "mode": "max",
        "also": ["train_accuracy"],
        "split": "validation",
        "design": "one",
        "confidence": 0.95,
        "paired": True,
        "seeds": list(SEEDS[:seeds]),
        "baseline": "baseline",
        "factors": [{"path": "method.averaging", "values": ["none", "ema"]}],
        "variants": [*variants, variant(DIVERGED, values[DIVERGED], lost)],
        "interactions": [
            {
                "factors": ["averaging", "smoothing"],
                "levels": ["ema", "0.1"],
                "n": 5,
                "mean": 0.004,
                "low": -0.001,
                "high": 0.009,
                "p": 0.09,
                "p_holm": 0.18,
            }
        ],
        "sequential": {"method": "group sequential", "alpha": 0.05, "decided_after": {"averaging=ema": 4}},
        "classes": CLASSES,
        "warnings": [f"{DIVERGED} diverged at seeds 0-4", "the baseline's last evaluation is not its best"],
    }


def variant(name: str, values: Sequence[float | None], effect: Mapping[str, Any] | None) -> dict[str, Any]:
    finished = [value for value in values if value is not None]
    known = len(finished) > 1
    ends = stats.t.interval(0.95, len(finished) - 1, np.mean(finished), stats.sem(finished)) if known else (None, None)
    return {
        "name": name,
        "edits": [] if name == "baseline" else [f"method.{name}"],
        "factors": {"method.averaging": "none"},
        "status": "done" if finished else "diverged",
        "runs": [run(name, seed, value) for seed, value in zip(SEEDS, values, strict=False)],
        "mean": float(np.mean(finished)) if finished else None,
        "std": float(np.std(finished, ddof=1)) if len(finished) > 1 else None,
        "n": len(finished),
        "low": ends[0],
        "high": ends[1],
        "macs": 4736,
        "parameters": 4810,
        "effect": effect,
        "also": {"train_accuracy": also(name, len(finished))},
    }


def also(name: str, n: int) -> dict[str, Any]:
    """Of the accuracy on the training split: 0.05 above that of the validation split, wherever it is."""
    gain, mean = GAINS.get(name, np.zeros(5))[:n], (BASE[:n].mean() if n else 0.0) + 0.05
    low, high = stats.t.interval(0.95, n - 1, gain.mean(), stats.sem(gain)) if n > 1 and gain.any() else (None, None)
    mean = float(mean + gain.mean()) if n else None
    ends = {"low": mean - 0.002, "high": mean + 0.002} if mean and n > 1 else {"low": None, "high": None}
    difference = float(gain.mean()) if n and name != "baseline" else None
    return {"mean": mean, **ends, "n": n, "difference": difference, "difference_low": low, "difference_high": high}


def run(name: str, seed: int, value: float | None) -> dict[str, Any]:
    document = {
        "seed": seed,
        "run": f"{name}/seed-{seed}",
        "status": "diverged" if value is None else "done",
        "value": value,
        "metrics": {},
    }
    return document if value is None else document | {"per_class": {"recall": recall(name, seed)}}


def recall(name: str, seed: int) -> list[float]:
    """Of the three classes: the second gains where the variant is ema, the third never changes."""
    draw = np.random.default_rng([seed, 7])
    base = 0.9 + 0.02 * draw.normal(size=3)
    gain = 0.03 + 0.01 * np.random.default_rng([seed, 8]).normal() if name == "averaging=ema" else 0.0
    return [float(np.clip(base[0], 0, 1)), float(np.clip(base[1] + gain, 0, 1)), 0.9]


def effect(gain: np.ndarray, verdict: str) -> dict[str, Any]:
    n, inert = len(gain), verdict == "inert"
    known = n > 1 and not inert
    low, high = stats.t.interval(0.95, n - 1, gain.mean(), gain.std(ddof=1) / math.sqrt(n)) if known else (None, None)
    resampled = gain[np.random.default_rng(0).integers(0, n, (2000, n))].mean(axis=1)
    ends = [float(end) for end in np.quantile(resampled, [0.025, 0.975])] if known else [None, None]
    p = float(stats.ttest_1samp(gain, 0).pvalue) if known else None
    return {
        "n": n,
        "mean": float(gain.mean()),
        "std": float(gain.std(ddof=1)) if n > 1 else None,
        "low": low,
        "high": high,
        "bootstrap_low": ends[0],
        "bootstrap_high": ends[1],
        "p": p,
        "p_holm": min(1.0, 4 * p) if p is not None else None,
        "inert": inert,
        "diverged": 0,
        "verdict": verdict,
        "smallest": 0.0031 if known else None,
        "sentence": "in words",
    }


def costs(seeds: int = 5) -> dict[str, Any]:
    def measured(mean: float, more: float | None) -> dict[str, Any]:
        entry: dict[str, Any] = {"mean": mean, "low": 0.97 * mean, "high": 1.03 * mean, "n": seeds}
        return entry if more is None else entry | {"difference": {"mean": more, "low": more - 0.2, "high": more + 0.2, "n": seeds}}

    names = ["baseline", *GAINS, DIVERGED]
    return {
        "variants": {
            name: {
                "seconds": measured(10.0 + i, None if i == 0 else float(i)),
                "peak_memory_mb": measured(430.0 + i, None if i == 0 else float(i)),
            }
            for i, name in enumerate(names)
        },
        "runs": {},
        "study": {"seconds": 365.0, "training_seconds": 360.0, "overhead": 0.0137},
    }


def log(metric: str, value: float | None, seed: int) -> list[dict[str, Any]]:
    if value is None:
        return [{"step": 1, "loss": 3.0}, {"step": 2, "loss": None}]
    lines: list[dict[str, Any]] = []
    for step in (1, 20, 40, 60):
        fall = math.exp(-step / 20)
        lines.append({"step": step, "loss": 0.3 + 2 * fall + 0.02 * seed, "lr": 0.003, "norm": 1.0})
        if step > 1:
            lines.append({"step": step, "eval": {metric: value * (1 - fall), "loss": 0.3 + fall}})
    return lines


def findings(name: str) -> dict[str, Any]:
    """A warning in every run, an error in those that diverged."""
    slow = finding("data_bound", "warning", "The device waits 31 % of the time.", ["run.workers=2"])
    worse = finding("rate_too_high", "error", "The loss left the finite numbers at step 2.", ["method.optimizer.lr=0.003"])
    return {"version": 1, "kind": "findings", "findings": [worse, slow] if name == DIVERGED else [slow], "checks": []}


def finding(check: str, severity: str, summary: str, remedy: list[str]) -> dict[str, Any]:
    return {
        "check": check,
        "severity": severity,
        "summary": summary,
        "value": 0.31,
        "threshold": 0.1,
        "because": "a tenth is what reading may cost.",
        "evidence": None,
        "remedy": remedy,
        "advice": "Read the advice.",
    }
