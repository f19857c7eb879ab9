"""torchstone: train, measure and ship PyTorch models; every technique is a switch, and what it is worth is measured.

    run = torchstone.train(torchstone.recipes.digits(), "method.averaging=none", "run.epochs=5")
    torchstone.load(run.folder).predict(images)

The names below load torch when they are first used, not before.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_FOUND_IN = {
    "Experiment": "torchstone.experiment",
    "Method": "torchstone.train.method",
    "Run": "torchstone.train.settings",
    "prepare": "torchstone.experiment",
    "soup": "torchstone.experiment.soup",
    "load": "torchstone.ship",
    "train_experiment": "torchstone.experiment",
    "train_folds": "torchstone.cli.folds",
    "train_with_report": "torchstone.cli.train",
}
_PACKAGES = ("data", "losses", "metrics", "models", "nn", "optim", "profile", "recipes", "ship", "slim", "tasks", "train")

__all__ = ["__version__", "compare", "evaluate", *_FOUND_IN, *_PACKAGES]


def __getattr__(name: str) -> Any:
    if name == "evaluate":
        return importlib.import_module("torchstone.cli.eval_").evaluated
    if name == "compare":
        return importlib.import_module("torchstone.cli.compare").compare_with_report
    if name in _FOUND_IN:
        return getattr(importlib.import_module(_FOUND_IN[name]), name)
    if name in _PACKAGES:
        return importlib.import_module(f"torchstone.{name}")
    raise AttributeError(f"torchstone has no {name}")


def __dir__() -> list[str]:
    return sorted(__all__)
