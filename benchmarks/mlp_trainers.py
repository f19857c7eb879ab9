"""Samples a second of a small MLP, end to end: torchstone against transformers' Trainer and Lightning. One thread each.

    python benchmarks/mlp_trainers.py --peers PATH [ROUNDS] [--epochs 3] [--samples 60000]

`--peers` is a Python interpreter that has transformers and lightning. An MLP 784-256-10 (a step of about 0.8 ms, of which 0.5 to 0.8 are
matrix products), batch 64, 60,000 + 10,000 + 10,000 vectors held in memory, AdamW at a constant rate of 1e-3 with decay 0.01, fp32, no
clipping. All log the loss to a file or a list every `--log` steps, evaluate loss and accuracy on the validation samples and store a
checkpoint with the optimizer every `--every` steps (two are kept), show no progress bar, and score the test samples at the end. The clock
runs from the call that trains to the last score, after a run of 20 steps that loads what each library loads late.
- `ours`: `train_experiment`, which also computes the gradient's norm and guards each step, hashes the data and the checkpoints, flushes
  them to the disk, and writes the experiment, metrics.json and the predictions.
- `trainer`: transformers' `Trainer` on an `nn.Module`, its default AdamW (torch's fused one).
- `lightning`: `LightningModule`, `DataLoader` over a `TensorDataset`, `CSVLogger`, `ModelCheckpoint`, `torch.optim.AdamW` as one writes
  it; `lightning_fused` is the same with `fused=True`.
Each side runs in its own process, in turn; a ratio is that of one round. Processor time is beside the wall's.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import machine

SIDES = ("ours", "trainer", "lightning", "lightning_fused")
FEATURES, HIDDEN, CLASSES, BATCH, EVALUATION_BATCH = 784, 256, 10, 64, 256
LR, DECAY = 1e-3, 0.01
WARM_UP = 20

Training = Callable[[Path, int, int, int], float]
"""(folder, steps, steps between evaluations, steps between log lines) -> test accuracy."""


def data(samples: int) -> dict[str, Any]:
    """Split -> (x float32 [N, 784], y int64 [N]): ten clusters that overlap."""
    import torch

    generator = torch.Generator().manual_seed(0)
    centers = 0.12 * torch.randn(CLASSES, FEATURES, generator=generator)
    splits = {}
    for name, count in (("train", samples), ("validation", samples // 6), ("test", samples // 6)):
        y = torch.randint(0, CLASSES, (count,), generator=generator)
        splits[name] = (centers[y] + torch.randn(count, FEATURES, generator=generator), y)
    return splits


def network() -> Any:
    from torch import nn

    return nn.Sequential(nn.Linear(FEATURES, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, CLASSES))


def ours(splits: dict[str, Any]) -> Training:
    from dataclasses import dataclass

    from torchstone.core.protocols import Splits, VectorShape
    from torchstone.data.facts import describe
    from torchstone.data.splits import TensorSplit
    from torchstone.experiment import Experiment, train_experiment
    from torchstone.models import MLPConfig
    from torchstone.optim import AdamW
    from torchstone.tasks import Classify
    from torchstone.train.method import Method
    from torchstone.train.settings import Run
    from torchstone.train.trackers import Csv, Jsonl

    @dataclass(frozen=True, kw_only=True, slots=True)
    class InMemory:
        """The benchmark's vectors."""

        def open(self) -> Splits:
            parts = {name: TensorSplit(x, y) for name, (x, y) in splits.items()}
            return Splits(**parts, facts=describe(parts, VectorShape(FEATURES), tuple(map(str, range(CLASSES))), "as made"))

    def train(folder: Path, steps: int, every: int, log: int) -> float:
        experiment = Experiment(
            data=InMemory(),
            task=Classify(),
            model=MLPConfig(hidden=(HIDDEN,)),
            method=Method(optimizer=AdamW(lr=LR, weight_decay=DECAY)),
            run=Run(
                steps=steps,
                batch_size=BATCH,
                evaluation_batch_size=EVALUATION_BATCH,
                evaluate_every=every,
                keep=2,
                threads=1,
                device="cpu",
                trackers=(Jsonl(every=log), Csv()),
            ),
        )
        return train_experiment(experiment, out=folder / "run").metrics["final"]["accuracy"]

    return train


def trainer(splits: dict[str, Any]) -> Training:
    import torch.nn.functional as F
    import transformers
    from torch import nn
    from torch.utils.data import Dataset

    transformers.logging.set_verbosity_error()

    class Vectors(Dataset):
        def __init__(self, name: str) -> None:
            self.x, self.y = splits[name]

        def __len__(self) -> int:
            return len(self.y)

        def __getitem__(self, index: int) -> dict[str, Any]:
            return {"x": self.x[index], "labels": self.y[index]}

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = network()

        def forward(self, x, labels):
            logits = self.layers(x)
            return {"loss": F.cross_entropy(logits, labels), "logits": logits}

    def accuracy(prediction) -> dict[str, float]:
        return {"accuracy": float((prediction.predictions.argmax(1) == prediction.label_ids).mean())}

    def train(folder: Path, steps: int, every: int, log: int) -> float:
        arguments = transformers.TrainingArguments(
            output_dir=str(folder),
            max_steps=steps,
            per_device_train_batch_size=BATCH,
            per_device_eval_batch_size=EVALUATION_BATCH,
            learning_rate=LR,
            weight_decay=DECAY,
            lr_scheduler_type="constant",
            max_grad_norm=0.0,
            logging_steps=log,
            eval_strategy="steps",
            eval_steps=every,
            save_strategy="steps",
            save_steps=every,
            save_total_limit=2,
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
            dataloader_pin_memory=False,
        )
        one = transformers.Trainer(
            model=Model(), args=arguments, train_dataset=Vectors("train"), eval_dataset=Vectors("validation"), compute_metrics=accuracy
        )
        one.train()
        return one.evaluate(Vectors("test"))["eval_accuracy"]

    return train


def lightning(splits: dict[str, Any], *, fused: bool | None = None) -> Training:
    import logging
    import warnings

    import lightning as L
    import torch
    import torch.nn.functional as F
    from lightning.pytorch.callbacks import ModelCheckpoint
    from lightning.pytorch.loggers import CSVLogger
    from torch.utils.data import DataLoader, TensorDataset

    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

    class Module(L.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layers = network()

        def forward(self, x):
            return self.layers(x)

        def training_step(self, batch, number):
            x, y = batch
            loss = F.cross_entropy(self(x), y)
            self.log("train_loss", loss)
            return loss

        def looked_at(self, batch, name):
            x, y = batch
            logits = self(x)
            accuracy = (logits.argmax(1) == y).float().mean()
            self.log_dict({f"{name}_loss": F.cross_entropy(logits, y), f"{name}_accuracy": accuracy}, batch_size=len(y))

        def validation_step(self, batch, number):
            self.looked_at(batch, "validation")

        def test_step(self, batch, number):
            self.looked_at(batch, "test")

        def configure_optimizers(self):
            return torch.optim.AdamW(self.parameters(), lr=LR, weight_decay=DECAY, fused=fused)

    def train(folder: Path, steps: int, every: int, log: int) -> float:
        one = L.Trainer(
            accelerator="cpu",
            max_steps=steps,
            max_epochs=-1,
            log_every_n_steps=log,
            val_check_interval=every,
            check_val_every_n_epoch=None,
            num_sanity_val_steps=0,
            logger=CSVLogger(folder),
            callbacks=[ModelCheckpoint(folder, every_n_train_steps=every, save_top_k=2, monitor="step", mode="max")],
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        module = Module()
        loaders = {
            name: DataLoader(TensorDataset(*split), batch_size=BATCH if name == "train" else EVALUATION_BATCH, shuffle=name == "train")
            for name, split in splits.items()
        }
        one.fit(module, loaders["train"], loaders["validation"])
        return one.test(module, loaders["test"], verbose=False)[0]["test_accuracy"]

    return train


def lightning_fused(splits: dict[str, Any]) -> Training:
    return lightning(splits, fused=True)


def measure(name: str, settings: argparse.Namespace) -> dict[str, float]:
    """One run of one side, and what it takes."""
    import torch

    torch.set_num_threads(1)
    splits = data(settings.samples)
    train = {"ours": ours, "trainer": trainer, "lightning": lightning, "lightning_fused": lightning_fused}[name](splits)
    steps = settings.epochs * -(-settings.samples // BATCH)
    with tempfile.TemporaryDirectory() as folder:
        train(Path(folder) / "warm", WARM_UP, WARM_UP, 10)
        cpu, wall = time.process_time(), time.perf_counter()
        accuracy = train(Path(folder) / "timed", steps, settings.every, settings.log)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    samples = settings.epochs * settings.samples
    return {"samples_per_s": samples / wall, "samples_per_cpu_s": samples / cpu, "accuracy": accuracy, "us_a_step": 1e6 * wall / steps}


def versions(interpreter: str) -> dict[str, str]:
    code = "import json; from importlib.metadata import version as v; print(json.dumps({n: v(n) for n in %r}))"
    names = ("transformers", "accelerate", "lightning", "torch", "numpy")
    return json.loads(subprocess.run([interpreter, "-c", code % (names,)], capture_output=True, text=True, check=True).stdout)


def main(settings: argparse.Namespace) -> None:
    facts = machine.facts()
    sizes = [word for name in ("samples", "epochs", "every", "log") for word in (f"--{name}", str(getattr(settings, name)))]
    rounds: list[dict[str, dict[str, float]]] = []
    for _ in range(settings.rounds):
        rounds.append({})
        for name in SIDES:
            interpreter = sys.executable if name == "ours" else settings.peers
            rounds[-1][name] = machine.side(__file__, name, *sizes, interpreter=interpreter)
            print(f"round {len(rounds)}: {name} {rounds[-1][name]['samples_per_s']:,.0f} samples/s", file=sys.stderr)
    ratios = {
        key: {name: [one["ours"][key] / one[name][key] for one in rounds] for name in SIDES[1:]}
        for key in ("samples_per_s", "samples_per_cpu_s")
    }
    machine.write(
        "mlp_trainers",
        {
            "what": "samples a second of the wall's clock, end to end with evaluation, logging and checkpoints: MLP 784-256-10, batch 64, "
            "in memory, one thread",
            "machine": facts,
            "peers": versions(settings.peers),
            "rounds": settings.rounds,
            "samples": settings.samples,
            "epochs": settings.epochs,
            "steps_between_evaluations_and_checkpoints": settings.every,
            "steps_between_log_lines": settings.log,
            "sides": {
                name: {
                    key: round(statistics.median(one[name][key] for one in rounds), 4 if key == "accuracy" else 0)
                    for key in rounds[0][name]
                }
                for name in SIDES
            },
            "times_faster": {name: round(statistics.median(values), 2) for name, values in ratios["samples_per_s"].items()},
            "times_faster_range": {
                name: [round(min(values), 2), round(max(values), 2)] for name, values in ratios["samples_per_s"].items()
            },
            "times_faster_by_processor_time": {
                name: round(statistics.median(values), 2) for name, values in ratios["samples_per_cpu_s"].items()
            },
        },
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("rounds", nargs="?", type=int, default=5)
    parser.add_argument("--peers", help="a Python interpreter with transformers and lightning")
    parser.add_argument("--samples", type=int, default=60_000)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--every", type=int, default=500, help="steps between evaluations, and checkpoints")
    parser.add_argument("--log", type=int, default=50, help="steps between log lines")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        print(json.dumps(measure(options.side, options)))
    elif options.peers:
        main(options)
    else:
        parser.error("--peers PATH is needed")
