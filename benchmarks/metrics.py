"""ROC AUC, average precision and the confusion matrix of ten million scores: ours against scikit-learn, and the same digits.

    python benchmarks/metrics.py [ROUNDS] [MILLIONS]

One thread, one process a side, in turn; the median of the rounds. Both sides are given the same NumPy arrays (scores of a logistic
model, 30 % positives; tied: rounded to two decimals; ten classes for the confusion) and the clock runs around the one call.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import machine

SIDES = ("ours", "scikit_learn")
MILLIONS = 10.0
CASES = ("roc_auc_float64", "roc_auc_float32", "roc_auc_tied", "average_precision_float64", "average_precision_tied", "confusion")


def calls(name: str) -> dict[str, Callable[..., Any]]:
    if name == "ours":
        import torch

        from torchstone.metrics.counts import pairs
        from torchstone.ops.curves import average_precision, roc_auc

        torch.set_num_threads(1)

        def confusion(truth: Any, named: Any) -> Any:
            truth, named = torch.from_numpy(truth), torch.from_numpy(named)
            return pairs(truth, named, torch.ones(len(truth), dtype=torch.bool), 10).tolist()

        return {"roc_auc": lambda y, s: roc_auc(s, y), "average_precision": lambda y, s: average_precision(s, y), "confusion": confusion}
    from sklearn.metrics import average_precision_score, confusion_matrix, roc_auc_score

    return {
        "roc_auc": roc_auc_score,
        "average_precision": average_precision_score,
        "confusion": lambda truth, named: confusion_matrix(truth, named).tolist(),
    }


def measured(name: str, millions: float) -> dict[str, Any]:
    """Case -> seconds and value."""
    import numpy as np

    count, draw = int(millions * 1e6), np.random.default_rng(0)
    positive = draw.random(count) < 0.3
    scores = 1 / (1 + np.exp(-draw.normal(size=count) - positive))
    truth, named = draw.integers(0, 10, count), draw.integers(0, 10, count)
    data = {
        "float64": (positive, scores),
        "float32": (positive, scores.astype(np.float32)),
        "tied": (positive, scores.round(2)),
        "confusion": (truth, named),
    }
    functions, found = calls(name), {}
    for case in CASES:
        metric, _, kind = case.rpartition("_")
        function = functions[metric or case]
        function(*(column[:1000] for column in data[kind]))
        started = time.perf_counter()
        value = function(*data[kind])
        found[case] = {"seconds": time.perf_counter() - started, "value": value}
    return found


def main(rounds: int, millions: float) -> None:
    facts = machine.facts()
    said: dict[str, list[Any]] = {name: [] for name in SIDES}
    for _ in range(rounds):
        for name in SIDES:
            said[name].append(machine.side(__file__, name, str(millions)))
    rows = {}
    for case in CASES:
        seconds = {name: statistics.median(each[case]["seconds"] for each in said[name]) for name in SIDES}
        ours, theirs = (said[name][0][case]["value"] for name in SIDES)
        rows[case] = {
            **{f"{name}_s": round(value, 3) for name, value in seconds.items()},
            "times_faster": round(seconds["scikit_learn"] / seconds["ours"], 2),
            "value": ours if isinstance(ours, float) else None,
            "difference": abs(ours - theirs) if isinstance(ours, float) else 0 if ours == theirs else None,
        }
    import sklearn

    what = f"seconds a call over {millions:g} million scores, one thread, median of {rounds} rounds"
    machine.write("metrics", {"what": what, "machine": facts, "rounds": rounds, "scikit_learn": sklearn.__version__, "cases": rows})


if __name__ == "__main__":
    if "--side" in sys.argv:
        print(json.dumps(measured(sys.argv[-1], float(sys.argv[1]))))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 3, float(sys.argv[2]) if len(sys.argv) > 2 else MILLIONS)
