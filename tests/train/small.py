"""Trainings of a tenth of a second on the real digits, through the Python API, and what two of them must share to be the same."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import torchstone
from torchstone.experiment import Trained, train_experiment

MLP = ("model.hidden=[8]", "run.epochs=3", "run.batch_size=256", "run.threads=1", "run.device=cpu", "trackers=[jsonl,csv]")
"""An MLP: 15 updates, an evaluation and a checkpoint every 5."""
CONV = (
    "model=conv_net",
    "model.widths=[4,8]",
    "model.dropout=0.1",
    "averaging=ema",
    "batch_transforms=[normalize,mixup]",
    *MLP[1:],
)
"""A ConvNet with batch norm, dropout, mixup and an average: all that a resumed run could get wrong."""
STEPS, EVERY = 15, 5

COMMAND = (sys.executable, "-m", "torchstone")
ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(torchstone.__file__).parents[1])}
"""The command line, in a process of its own (where no annotation is checked)."""


def train(out: Path | None, *edits: str, base: tuple[str, ...] = MLP, resume: bool = False) -> Trained:
    return train_experiment(torchstone.recipes.digits_mini(), *base, *edits, out=out, resume=resume)


def ending(run: Path) -> dict[str, Any]:
    """What two runs share bit for bit if they are the same training."""
    last = run / "checkpoints" / (run / "checkpoints" / "last").read_text().strip()
    found: dict[str, Any] = {path.name: path.read_bytes() for path in sorted(last.glob("*.safetensors"))}
    found["results.csv"] = (run / "results.csv").read_text()
    found["final"] = json.loads((run / "metrics.json").read_text())["final"]
    found |= {f"pictures/{path.name}": path.read_bytes() for path in sorted((run / "pictures").glob("*"))}
    return found


def flip(path: Path, bit: int) -> None:
    """Turns one bit of the file over, in place."""
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)
