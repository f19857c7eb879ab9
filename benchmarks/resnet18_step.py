"""A training step of ResNet-18 on pictures of 32 pixels: ours as `run.speed=auto` sets it, against PyTorch as it comes. One thread.

    python benchmarks/resnet18_step.py [ROUNDS] [--steps 5] [--batch 128]

Both train the same network (3x3 stem, 10 classes) on random pictures held in memory by SGD with momentum 0.9 and weight decay 5e-4.
- `ours`: `train_step` as the loop calls it, bytes in, normalized in the step; the speed trial runs once, before, for a run of 30 epochs
  of 50,000 pictures, and every round uses what it chose.
- `eager`: the loop a person writes, fp32 and contiguous; its pictures are normalized floats before the clock starts.
Each side runs in its own process, in turn. Times are the process's own (user and system): with one thread and no files that is the
wall's on a quiet machine, and fair on a busy one. A round measures the ceiling of matrix products (1024^3) before and after its steps.
Arithmetic of a step: 3 x 2 x multiply-accumulates x pictures, batch norm and the rest not counted.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import machine
import numpy as np

SIDES = ("ours", "eager")
PICTURES, CLASSES = 1024, 10
STEPS_OF_A_RUN = 30 * 391
"""What the trial's share is taken of: 30 epochs of 50,000 pictures."""
SPEED = ("precision", "memory_format", "compile", "threads")


def data() -> tuple[np.ndarray, np.ndarray]:
    """Bytes [N, 3, 32, 32] and classes [N]."""
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (PICTURES, 3, 32, 32), dtype=np.uint8), rng.integers(0, CLASSES, PICTURES)


def prepared(batch: int, *edits: str) -> Any:
    """Our training, ready to start."""
    from dataclasses import dataclass

    import torch

    from torchstone.core.protocols import ImageShape, Splits
    from torchstone.data import Normalize
    from torchstone.data.facts import describe
    from torchstone.data.splits import TensorSplit
    from torchstone.experiment import Experiment, prepare
    from torchstone.models import ResnetConfig
    from torchstone.optim import SGD
    from torchstone.tasks import Classify
    from torchstone.train.method import Method
    from torchstone.train.settings import Run

    @dataclass(frozen=True, kw_only=True, slots=True)
    class RandomPictures:
        """As many in each split."""

        def open(self) -> Splits:
            images, labels = (torch.from_numpy(array) for array in data())
            splits = {name: TensorSplit(images, labels) for name in ("train", "validation", "test")}
            return Splits(**splits, facts=describe(splits, ImageShape(3, 32, 32), tuple(map(str, range(CLASSES))), "random"))

    experiment = Experiment(
        data=RandomPictures(),
        task=Classify(),
        model=ResnetConfig(depth=18, stem="small"),
        method=Method(batch_transforms=(Normalize(),), optimizer=SGD(lr=0.01, momentum=0.9, weight_decay=5e-4)),
        run=Run(steps=STEPS_OF_A_RUN, batch_size=batch, threads=1, device="cpu"),
    )
    return prepare(experiment, *edits)


def chosen(batch: int) -> dict[str, Any]:
    """What the speed trial picks, as edits, its table, and the size of the network."""
    from torchstone import profile

    ready = prepared(batch, "run.speed=auto")
    edits = ["run.speed=measured"]
    for name in SPEED:
        value = getattr(ready.experiment.run, name)
        edits.append(f"run.{name}={str(value).lower()}")
    trial = ready.trial.document()
    return {"edits": edits, "trial": trial, "macs": ready.macs, "parameters": profile.parameters(ready.model)["total"]}


def ours(batch: int, edits: list[str]) -> Callable[[], Any]:
    from pathlib import Path

    import torch

    from torchstone.train.build import build_state
    from torchstone.train.loop import updates
    from torchstone.train.step import train_step

    torch.set_num_threads(1)
    ready = prepared(batch, *edits)
    job = ready.job(Path(), {})
    state, setting, batches = build_state(ready.model, job.method, job.run, job.device), job.setting, updates(job, 0)

    def step() -> None:
        epoch, microbatches = next(batches)
        train_step(state, microbatches, job.method, setting, epoch)

    return step


def eager(batch: int, edits: list[str]) -> Callable[[], Any]:
    import torch
    import torch.nn.functional as F

    from torchstone.core.protocols import ImageShape
    from torchstone.models import ResnetConfig

    torch.set_num_threads(1)
    torch.manual_seed(0)
    images, y = (torch.from_numpy(array) for array in data())
    x = (images.float() / 255 - 0.5) / 0.25
    model = ResnetConfig(depth=18, stem="small").build(ImageShape(3, 32, 32), CLASSES)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)

    def batches():
        while True:
            yield from torch.randperm(len(x)).split(batch)

    rows = batches()

    def step() -> None:
        some = next(rows)
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x[some]), y[some])
        loss.backward()
        optimizer.step()
        loss.item()

    return step


def measure(step: Callable[[], Any], steps: int) -> dict[str, Any]:
    """The steps after the first two, and the ceilings around them."""
    before = machine.ceilings()
    for _ in range(2):
        step()
    seconds, wall = [], []
    for _ in range(steps):
        started, started_wall = time.process_time(), time.perf_counter()
        step()
        seconds.append(time.process_time() - started)
        wall.append(time.perf_counter() - started_wall)
    after = machine.ceilings()
    return {
        "seconds": statistics.median(seconds),
        "fastest": min(seconds),
        "wall": statistics.median(wall),
        "ceilings": {name: max(rate, after[name]) for name, rate in before.items()},
    }


def summary(rounds: list[dict[str, Any]], operations: float) -> dict[str, Any]:
    """One side over its rounds; a share of the ceiling is of the ceiling measured around the same steps."""
    ceiling = {name: max(each["ceilings"][name] for each in rounds) for name in rounds[0]["ceilings"]}
    fastest = min(each["fastest"] for each in rounds)
    document = {
        "step_ms": round(1e3 * statistics.median(each["seconds"] for each in rounds), 1),
        "step_ms_fastest": round(1e3 * fastest, 1),
        "step_ms_wall": round(1e3 * statistics.median(each["wall"] for each in rounds), 1),
        "gflops": round(statistics.median(operations / each["seconds"] for each in rounds) / 1e9, 1),
        "gflops_fastest": round(operations / fastest / 1e9, 1),
    }
    for name, most in ceiling.items():
        kind = name.split("_")[1]
        shares = [operations / each["seconds"] / 1e9 / each["ceilings"][name] for each in rounds]
        document[f"{kind}_ceiling_gflops"] = most
        document[f"share_of_{kind}_ceiling"] = round(statistics.median(shares), 3)
        document[f"share_of_{kind}_ceiling_fastest"] = round(operations / fastest / 1e9 / most, 3)
    return document


def main(rounds: int, batch: int, steps: int) -> None:
    facts = machine.facts()
    sizes = ("--batch", str(batch), "--steps", str(steps))
    choice = machine.side(__file__, "choose", *sizes)
    said: dict[str, list[dict[str, Any]]] = {name: [] for name in SIDES}
    for _ in range(rounds):
        for name in SIDES:
            said[name].append(machine.side(__file__, name, *sizes, "--edits", *choice["edits"]))
    ratios = [theirs["seconds"] / our["seconds"] for our, theirs in zip(said["ours"], said["eager"], strict=True)]
    operations = 3 * 2 * choice["macs"] * batch
    machine.write(
        "resnet18_step",
        {
            "what": "ResNet-18 (3x3 stem) on 3 x 32 x 32, one thread: ms of processor time a training step, ours under run.speed=auto "
            "against eager PyTorch (fp32, contiguous); fastest: the fastest step of all rounds against the highest ceiling of all rounds",
            "machine": facts,
            "batch": batch,
            "rounds": rounds,
            "steps_a_round": steps,
            "parameters": choice["parameters"],
            "macs": choice["macs"],
            "gflop_a_step": round(operations / 1e9, 1),
            "chosen": choice["edits"],
            "trial_ms": {
                " ".join([row["precision"], row["memory_format"], *(["compiled"] if row["compile"] else [])]): round(
                    1e3 * row["seconds_per_step"], 1
                )
                for row in choice["trial"]["rows"]
            },
            "trial_seconds": choice["trial"]["seconds"],
            **{name: summary(said[name], operations) for name in SIDES},
            "times_faster": round(statistics.median(ratios), 2),
            "times_faster_range": [round(min(ratios), 2), round(max(ratios), 2)],
        },
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("rounds", nargs="?", type=int, default=5)
    parser.add_argument("--steps", type=int, default=5, help="timed steps of a round")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--edits", nargs="*", default=[])
    parser.add_argument("--side", choices=("choose", *SIDES))
    settings = parser.parse_args()
    if settings.side == "choose":
        print(json.dumps(chosen(settings.batch)))
    elif settings.side:
        work = {"ours": ours, "eager": eager}[settings.side](settings.batch, settings.edits)
        print(json.dumps(measure(work, settings.steps)))
    else:
        main(settings.rounds, settings.batch, settings.steps)
