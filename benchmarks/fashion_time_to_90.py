"""Seconds until a network first knows 90 % of the Fashion-MNIST test pictures: the recipe `fashion` against the usual loop. One thread.

    python benchmarks/fashion_time_to_90.py PATH [--only ours|resnet18|resnet20] [--seeds 0 1 2 3 4] [--edit PATH=VALUE]

PATH is the folder with the set's four files. Contestants, each seed in a process of its own, one after the other:
- `ours`: the recipe with `run.speed=auto`, through `updates` and `train_step` as the loop calls them; `--edit` changes it.
- `resnet18`, `resnet20`: the loop that tutorials teach. ResNet-18 with a 3x3 stem or the ResNet-20 of He et al., fp32, contiguous; a
  torch DataLoader without workers over a dataset that mirrors, crops and normalizes each picture by itself (the same augmentation as
  ours); SGD with momentum 0.9, weight decay 5e-4 and rate 0.1, divided by 10 after a half and three quarters of 30 epochs; batch 128.
All are evaluated on the 10,000 test pictures whenever another 6,000 training pictures have been seen. What is counted is everything from
the end of the imports (reading the files, preparing with its speed trial, training) but the evaluations. A peer stops once it has used
`--most` times the median of ours: its figure is then a lower bound ("> 12"), with the accuracy it had. Seconds are the process's
own (user and system),
fair on a busy machine; the wall's are beside. Results are written after every evaluation; seeds already there are kept unless run again.
`--end` trains ours on to the recipe's end and scores it with one view and with six.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import machine

SIDES = ("ours", "resnet18", "resnet20")
SEEDS = {"ours": (0, 1, 2, 3, 4), "resnet18": (0,), "resnet20": (0, 1, 2, 3, 4)}
EPOCHS, BATCH, RATE = 30, 128, 0.1
NAME = "fashion_time_to_90"


class Watch:
    """Seconds of the process and of the wall, while it runs."""

    def __init__(self) -> None:
        self.seconds = self.wall = 0.0
        self.start()

    def start(self) -> None:
        self._since = time.process_time(), time.perf_counter()

    def stop(self) -> None:
        self.seconds += time.process_time() - self._since[0]
        self.wall += time.perf_counter() - self._since[1]

    @property
    def running(self) -> float:
        return self.seconds + time.process_time() - self._since[0]


def tell(**facts: Any) -> None:
    """One line for the parent."""
    print(json.dumps(facts), flush=True)


def race(steps: Iterator[int], score: Callable[[], float], watch: Watch, options: argparse.Namespace, macs: int) -> None:
    """Trains (`steps` yields the pictures of each update) until an evaluation reaches the target, or the limit is spent."""
    seen, due, over = 0, options.every, False
    while not over:
        pictures = next(steps, None)
        over = pictures is None or watch.running > options.limit
        seen += pictures or 0
        if seen < due and not over:
            continue
        due += options.every
        watch.stop()
        accuracy = score()
        reached = accuracy >= options.target
        tell(
            samples=seen,
            accuracy=round(accuracy, 4),
            seconds=round(watch.seconds, 2),
            wall=round(watch.wall, 2),
            pflop=round(3 * 2 * macs * seen / 1e15, 4),
            reached=reached,
        )
        watch.start()
        over = over or reached


def ours(options: argparse.Namespace) -> None:
    from dataclasses import replace
    from pathlib import Path

    import torch

    from torchstone import experiment, recipes
    from torchstone.metrics import Accuracy
    from torchstone.train.build import build_state
    from torchstone.train.loop import score, updates
    from torchstone.train.step import train_step

    torch.set_num_threads(1)
    watch = Watch()
    given = (f"data.path={options.path}", f"run.seed={options.seed}", "run.threads=1", "run.device=cpu", "run.trackers=[]")
    prepared = experiment.prepare(recipes.fashion(), *given, *options.edit)
    run = prepared.experiment.run
    state = build_state(prepared.model, prepared.experiment.method, run, prepared.device)
    job = replace(prepared.job(Path(), {}), metrics=(Accuracy(),))
    setting = job.setting

    def steps() -> Iterator[int]:
        for epoch, microbatches in updates(job, 0):
            yield train_step(state, microbatches, job.method, setting, epoch).samples

    def accuracy(job: Any = job) -> float:
        return score(job, state, job.splits.test)["accuracy"]

    tell(
        preparing_seconds=round(watch.running, 2),
        macs=prepared.macs,
        speed=f"{run.precision} {run.memory_format}{' compiled' if run.compile else ''}",
        trial_seconds=None if prepared.trial is None else round(prepared.trial.seconds, 2),
        epochs_planned=run.epochs,
    )
    training = steps()
    race(training, accuracy, watch, options, prepared.macs)
    if options.end:
        watch.start()
        for _ in training:
            pass
        watch.stop()
        views = replace(job, task=replace(job.task, views="flip_shift"))
        tell(end={"accuracy": accuracy(), "accuracy_six_views": accuracy(views), "seconds": round(watch.seconds, 2)})


def usual(options: argparse.Namespace) -> None:
    """ResNet-18 or ResNet-20 in the loop that tutorials teach."""
    from pathlib import Path

    import torch
    import torch.nn.functional as F
    from torch.utils.data import DataLoader, Dataset

    from torchstone import profile
    from torchstone.core.protocols import ImageShape
    from torchstone.data.sources.idx import read_idx
    from torchstone.models import CifarResnetConfig, ResnetConfig

    torch.set_num_threads(1)
    watch = Watch()
    torch.manual_seed(options.seed)
    folder, mean, std = Path(options.path), 0.2860, 0.3530

    class Pictures(Dataset):
        """What torchvision's ToTensor, RandomHorizontalFlip, RandomCrop(28, padding=2) and Normalize do, on one picture."""

        def __init__(self, part: str, augment: bool) -> None:
            self.images = torch.from_numpy(read_idx(folder / f"{part}-images-idx3-ubyte.gz", "images"))
            self.labels = torch.from_numpy(read_idx(folder / f"{part}-labels-idx1-ubyte.gz", "labels")).long()
            self.augment = augment

        def __len__(self) -> int:
            return len(self.labels)

        def __getitem__(self, index: int):
            image = self.images[index].unsqueeze(0).float() / 255
            if self.augment:
                if torch.rand(1) < 0.5:
                    image = image.flip(-1)
                padded = F.pad(image, (2, 2, 2, 2))
                top, left = torch.randint(0, 5, (2,)).tolist()
                image = padded[:, top : top + 28, left : left + 28]
            return (image - mean) / std, self.labels[index]

    train = DataLoader(Pictures("train", augment=True), batch_size=BATCH, shuffle=True)
    test = DataLoader(Pictures("t10k", augment=False), batch_size=500)
    config = ResnetConfig(depth=18, stem="small") if options.side == "resnet18" else CifarResnetConfig(depth=20)
    model = config.build(ImageShape(1, 28, 28), 10)
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [EPOCHS // 2, EPOCHS * 3 // 4], gamma=0.1)
    macs = profile.macs(model, torch.zeros(1, 1, 28, 28))

    def steps() -> Iterator[int]:
        for _ in range(EPOCHS):
            for x, y in train:
                optimizer.zero_grad()
                loss = F.cross_entropy(model(x), y)
                loss.backward()
                optimizer.step()
                yield len(x)
            schedule.step()

    def accuracy() -> float:
        model.eval()
        with torch.no_grad():
            correct = sum(int((model(x).argmax(1) == y).sum()) for x, y in test)
        model.train()
        return correct / len(test.dataset)

    tell(preparing_seconds=round(watch.running, 2), macs=macs, speed="fp32 contiguous", epochs_planned=EPOCHS)
    race(steps(), accuracy, watch, options, macs)


def contestant(options: argparse.Namespace, side: str, seed: int, limit: float) -> Iterator[dict[str, Any]]:
    """What one process says, as it says it."""
    command = [sys.executable, __file__, options.path, "--side", side, "--seed", str(seed), "--limit", str(limit)]
    command += ["--every", str(options.every), "--target", str(options.target)]
    command += ["--end"] if options.end and side == "ours" else []
    command += [word for edit in options.edit for word in ("--edit", edit)] if side == "ours" else []
    with subprocess.Popen(command, env=os.environ | machine.ONE_THREAD, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            yield json.loads(line)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed")


def run(options: argparse.Namespace, document: dict[str, Any], side: str, seed: int, limit: float) -> None:
    """One seed of one contestant, written down after every evaluation."""
    runs = document["runs"].setdefault(side, {})
    record: dict[str, Any] = {"load": round(os.getloadavg()[0], 2), **machine.ceilings(), "complete": False, "limit": round(limit, 1)}
    record["evaluations"] = []
    runs[str(seed)] = record
    for said in contestant(options, side, seed, limit):
        if "accuracy" not in said:
            record.update(said)
            continue
        record.update(said)
        record["evaluations"].append([said["samples"], said["accuracy"], said["seconds"]])
        summarize(document, options.target)
        machine.save(NAME, document)
        print(f"{side} seed {seed}: {said['samples']} pictures, {said['accuracy']:.4f}, {said['seconds']:.1f} s", file=sys.stderr)
    record["complete"] = True
    runs_in_order = dict(sorted(runs.items(), key=lambda item: int(item[0])))
    document["runs"][side] = runs_in_order
    summarize(document, options.target)
    machine.save(NAME, document)


def finished(document: dict[str, Any], side: str) -> list[dict[str, Any]]:
    return [record for record in document["runs"].get(side, {}).values() if record["complete"]]


def middle(records: list[dict[str, Any]], key: str) -> tuple[float, bool]:
    """The median, and whether it is exact. A run that was stopped counts as what it had used: then this is a lower bound."""
    order = sorted(records, key=lambda record: record[key])
    value = statistics.median(record[key] for record in order)
    low = order[: len(order) // 2 + 1]  # the middle one, or both, and all below: stopped later than they crossed, others change nothing
    return value, all(record["reached"] for record in low)


def figure(value: float, exact: bool) -> float | str:
    return value if exact else f"> {value}"


def summarize(document: dict[str, Any], target: float) -> None:
    """Medians of the seeds that are complete, and how many times less ours takes."""
    summary: dict[str, Any] = {}
    for side in SIDES:
        records = finished(document, side)
        if not records:
            continue
        summary[side] = {
            "seeds": len(records),
            "reached": sum(record["reached"] for record in records),
            **{
                f"{key}_median": figure(round(value, 3), exact)
                for key in ("seconds", "wall", "samples", "pflop")
                for value, exact in [middle(records, key)]
            },
            "seconds": [figure(record["seconds"], record["reached"]) for record in records],
            "accuracy_there": [record["accuracy"] for record in records],
            "preparing_seconds_median": round(statistics.median(record["preparing_seconds"] for record in records), 2),
            "macs": records[0]["macs"],
            "speed": sorted({record["speed"] for record in records}),
        }
        ends = [record["end"] for record in records if "end" in record]
        if ends:
            summary[side]["end"] = {key: [round(end[key], 4) for end in ends] for key in ("accuracy", "accuracy_six_views", "seconds")} | {
                f"{key}_mean": round(statistics.mean(end[key] for end in ends), 4) for key in ("accuracy", "accuracy_six_views")
            }
    document["summary"] = summary
    document["times_less"] = {key: {} for key in ("seconds", "wall", "pflop")}
    if "ours" in summary and middle(finished(document, "ours"), "seconds")[1]:
        for key, table in document["times_less"].items():
            base = middle(finished(document, "ours"), key)[0]
            for side in SIDES[1:]:
                if side in summary:
                    value, exact = middle(finished(document, side), key)
                    table[side] = figure(round(value / base, 1), exact)


def opened(options: argparse.Namespace) -> dict[str, Any]:
    """The results so far, if they are of the same race; else none."""
    conditions = {"target": options.target, "every_samples": options.every}
    path = machine.RESULTS / f"{NAME}.json"
    old = json.loads(path.read_text()) if path.exists() else {}
    same = all(old.get(name) == value for name, value in conditions.items())
    runs = old.get("runs", {}) if same else {}
    edits = options.edit
    if options.only not in (None, "ours") and runs.get("ours"):
        edits = old["edits_of_ours"]  # not run now
    elif old.get("edits_of_ours") != edits or options.seeds is None:
        runs = {name: kept for name, kept in runs.items() if name != "ours"}
    return {
        "what": f"seconds of processor time (one thread, evaluations not counted) until the first evaluation at {options.target:.0%} or "
        "more on the Fashion-MNIST test; times_less: the peer's median over ours",
        "machine": machine.facts(),
        **conditions,
        "edits_of_ours": edits,
        "runs": runs,
    }


def main(options: argparse.Namespace) -> None:
    document = opened(options)
    for side in SIDES if options.only is None else (options.only,):
        limit = options.limit
        if side != "ours":
            crossed = finished(document, "ours")
            if not crossed or not middle(crossed, "seconds")[1]:
                raise SystemExit("how long a peer may take is counted in our time: run --only ours first, until it reaches the target")
            limit = min(limit, options.most * middle(crossed, "seconds")[0])
        for seed in options.seeds if options.seeds is not None and options.only else SEEDS[side]:
            run(options, document, side, seed, limit)
    print(json.dumps({name: document[name] for name in ("edits_of_ours", "summary", "times_less")}, indent=2))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("path", help="the folder of the set's four files")
    parser.add_argument("--only", choices=SIDES)
    parser.add_argument("--seeds", nargs="+", type=int, help="with --only")
    parser.add_argument("--edit", action="append", default=[], metavar="PATH=VALUE", help="of the recipe, again for more")
    parser.add_argument("--most", type=float, default=12.0, help="times our seconds that a peer may use")
    parser.add_argument("--every", type=int, default=6000, help="training pictures between evaluations")
    parser.add_argument("--target", type=float, default=0.9)
    parser.add_argument("--end", action="store_true", help="train ours to the recipe's end and score it there")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--limit", type=float, default=36000.0, help="seconds that any contestant may use")
    settings = parser.parse_args()
    if settings.side:
        (ours if settings.side == "ours" else usual)(settings)
    elif settings.seeds is not None and settings.only is None:
        parser.error("--seeds is of one contestant: give --only")
    else:
        main(settings)
