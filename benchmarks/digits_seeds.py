"""What `make run` gives over seeds: test accuracy and seconds of the recipe `digits`, one thread.

python benchmarks/digits_seeds.py [SEEDS]
"""

import statistics
import sys
import tempfile
from pathlib import Path

import machine

import torchstone


def main(seeds: int) -> None:
    facts = machine.facts()
    accuracies, seconds = [], []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(seeds):
            run = torchstone.train(
                torchstone.recipes.digits(), f"run.seed={seed}", "run.threads=1", "run.trackers=[]", out=Path(folder) / f"{seed}"
            )
            accuracies.append(run.metrics["final"]["accuracy"])
            seconds.append(run.metrics["cost"]["seconds"])
    machine.write(
        "digits_seeds",
        {
            "what": "recipe digits: accuracy on its 270 test pictures and seconds of training, one thread",
            "machine": facts,
            "seeds": seeds,
            "accuracy": [round(value, 4) for value in accuracies],
            "accuracy_mean": round(statistics.mean(accuracies), 4),
            "accuracy_least": round(min(accuracies), 4),
            "seconds_median": round(statistics.median(seconds), 2),
        },
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
