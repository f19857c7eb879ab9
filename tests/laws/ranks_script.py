"""What one rank does for `test_workers_ranks.py`: trains every case and scores one checkpoint; rank 0 writes what it saw.

RANK=0 WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT=... python ranks_script.py FOLDER
"""

import gc
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from laws import cases
from laws.cases import PLAIN, TinyImages, TinyTokens, begin, ready
from torchstone.core import ranks
from torchstone.core.protocols import Metric
from torchstone.data import Flip, Mixup, Normalize, PaddedCrop
from torchstone.losses import L2, Center, SupervisedContrastive, Triplet
from torchstone.metrics import AveragePrecision, RocAuc
from torchstone.models import ConvNetConfig, GPTConfig, MLPConfig
from torchstone.optim import EMA, LAWA, SAM, SGD, AdamW, ClipByNorm, Cosine, Muon, NoDecay
from torchstone.train import checkpoint
from torchstone.train.evaluate import evaluate
from torchstone.train.loop import refresh_batch_norm, score

CONV = ConvNetConfig(widths=(4, 6))
GPT = GPTConfig(depth=1, dim=16, num_heads=2)
MOVING = replace(PLAIN, optimizer=SGD(lr=0.05))
MIXED = (Normalize(), Flip(), PaddedCrop(padding=1), Mixup())
FULL = replace(
    PLAIN,
    batch_transforms=MIXED,
    penalties=(L2(strength=0.01),),
    gradient_transforms=(ClipByNorm(max_norm=0.5),),
    groups=NoDecay(),
    optimizer=AdamW(lr=0.003),
    schedules=(Cosine(warmup=0.2),),
    averaging=EMA(decay=0.7),
)


@dataclass(frozen=True)
class Case:
    method: Any
    model: Any
    source: Any = None
    dtype: torch.dtype = torch.float32
    epochs: int = 2
    batch_size: int = 8
    microbatch_size: int | None = None


CASES = {
    "batch norm, mixup, uneven last window": Case(replace(MOVING, batch_transforms=MIXED), CONV),
    "everything": Case(FULL, CONV, source=TinyImages(train=21)),
    "one row in the last window": Case(MOVING, CONV, batch_size=7),
    "one pair in the last window": Case(replace(MOVING, batch_transforms=(Mixup(),)), CONV, batch_size=10),
    "micro-batches, no batch norm": Case(replace(FULL, averaging=None), MLPConfig(hidden=(9,)), microbatch_size=2),
    "an average with its own statistics": Case(replace(MOVING, averaging=LAWA(count=2, every=2)), CONV, source=TinyImages(train=21)),
    "sharpness": Case(replace(MOVING, gradient=SAM(), penalties=(L2(strength=0.1),)), CONV),
    "triplets, one row in the last window": Case(replace(MOVING, loss=Triplet(margin=1.0)), MLPConfig(hidden=(9,)), batch_size=7),
    "contrasts, batch norm": Case(replace(MOVING, loss=SupervisedContrastive(temperature=0.5)), CONV),
    "centers": Case(replace(MOVING, loss=Center(dim=4), gradient=SAM()), CONV, batch_size=7),
    "ragged tokens": Case(replace(MOVING, optimizer=Muon(), gradient_transforms=(ClipByNorm(),)), GPT, microbatch_size=3),
    "ragged tokens, tied, float64": Case(MOVING, replace(GPT, tie=True), dtype=torch.float64),
    "a rank without targets, float64": Case(MOVING, GPT, source=TinyTokens(mute=4), dtype=torch.float64, batch_size=2, epochs=1),
}


def losses(case: Case, folder: Path) -> dict[str, Any]:
    """Loss and gradient norm of every update, which were skipped, and the norm of the last weights."""
    run = {"epochs": case.epochs, "batch_size": case.batch_size, "microbatch_size": case.microbatch_size}
    job, state = begin(ready(case.method, case.model, case.source, **run), folder, case.dtype)
    reports = cases.advance(job, state, job.total)
    weights = {name: float(tensor.double().norm()) for name, tensor in cases.weights(state).items()}
    refresh_batch_norm(job, state)
    result = (
        {k: v for k, v in score(job, state, job.splits.validation).items() if isinstance(v, float)} if case.dtype == torch.float32 else {}
    )
    return {
        "loss": [r.loss for r in reports],
        "norm": [r.norm for r in reports],
        "skipped": state.skipped,
        "weights": weights,
        "score": result,
    }


@dataclass(frozen=True)
class Sums:
    """A metric's sums over the whole split, undivided."""

    inner: Any
    name: str

    def measure(self, outputs: Any, target: Any, weight: Tensor, terms: Tensor) -> dict[str, Tensor]:
        return self.inner.measure(outputs, target, weight, terms)

    def result(self, sums: Mapping[str, Tensor]) -> dict[str, Any]:
        return {f"{self.name}.{key}": [str(value.dtype), value.flatten().tolist()] for key, value in sums.items()}


@dataclass(frozen=True)
class Result:
    """What a metric makes of its rows."""

    inner: Any
    name: str

    @property
    def rows(self) -> tuple[str, ...]:
        return self.inner.rows

    def measure(self, outputs: Any, target: Any, weight: Tensor, terms: Tensor) -> dict[str, Tensor]:
        return self.inner.measure(outputs, target, weight, terms)

    def result(self, sums: Mapping[str, Tensor]) -> dict[str, Any]:
        return {f"{self.name}.{key}": ["torch.float64", [value]] for key, value in self.inner.result(sums).items()}


def sums(model: Any, folder: Path) -> dict[str, Any]:
    """The sums of every metric of the checkpoint in `folder` over the test split: batches of 3, so that the last one is short."""
    job, state = begin(ready(cases.NOISY, model), folder)
    found = checkpoint.newest_good(folder)
    assert found is not None
    checkpoint.restore(state, found[1], found[2], found[0])
    result: dict[str, Any] = {}
    for batch_size in (3, 4, 11, 100):
        metrics: list[Metric] = [Sums(metric, f"{batch_size}.{type(metric).__name__}") for metric in job.metrics]
        if isinstance(
            model, ConvNetConfig
        ):  # their state is rows, in another order over ranks: what is made of them is the same to the bit
            metrics += [Result(metric, f"{batch_size}.{type(metric).__name__}") for metric in (RocAuc(), AveragePrecision(average="micro"))]
        result |= evaluate(
            state.evaluated, job.splits.test, loss=job.method.loss, metrics=metrics, device=job.device, batch_size=batch_size
        )
    return result


EVALUATED = {"conv_net": cases.CONV, "gpt": cases.GPT}


def everything(folder: Path) -> dict[str, Any]:
    return {
        "losses": {name: losses(case, folder / "unused") for name, case in CASES.items()},
        "sums": {name: sums(model, folder / name) for name, model in EVALUATED.items()},
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    with ranks.joined(torch.device("cpu")):
        seen = everything(Path(sys.argv[1]))
        if ranks.is_main():
            (Path(sys.argv[1]) / "seen.json").write_text(json.dumps(seen))
        gc.collect()  # the wrapped models first: a process that ends with one of them alive may abort in gloo's threads
