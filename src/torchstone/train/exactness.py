"""What two trainings must share to be bit-identical: stored in every checkpoint, compared on resume."""

import hashlib
import platform
from functools import cache
from pathlib import Path

import torch

from torchstone.core import ranks
from torchstone.train.settings import Run


def exactness_key(run: Run, device: torch.device) -> dict[str, str | int | bool]:
    """The same key on the same data and tree gives the same bits; another key gives equal numbers within a tolerance."""
    return {
        "torch": torch.__version__,
        "device": device.type if device.type == "cpu" else torch.cuda.get_device_name(device),
        "processor": torch.backends.cpu.get_cpu_capability() + " " + platform.machine(),
        "threads": torch.get_num_threads(),
        "ranks": ranks.world(),
        "precision": run.precision,
        "compile": run.compile,
        "memory_format": run.memory_format,
        "code": code_hash(),
    }


def differences(stored: dict, current: dict) -> list[str]:
    """In words, what differs."""
    return [f"{name} {stored.get(name)} -> {value}" for name, value in current.items() if stored.get(name) != value]


@cache
def code_hash() -> str:
    """SHA-256 over the package's own source files."""
    root = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]
