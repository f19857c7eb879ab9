"""The kill sweep, as a program of its own: one parent imports torch and forks a child a run, so that a run costs tenths of a second.

    python kill_sweep.py JOB operations START STEP     SIGKILL before every STEP-th file operation from START, each resumed to the end
    python kill_sweep.py JOB instants COUNT SEED       SIGKILL at COUNT random instants (over and over, until each run ends)

JOB: digits (a ConvNet with batch norm, dropout, mixup and an average) or gpt (a byte-level GPT with Muon and dropout).
Prints one JSON document: runs made, kills, and the runs whose end differs from the uninterrupted one.
"""

import hashlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import torch
import torch._dynamo
import torch.utils.flop_counter
from torch.utils.tensorboard import SummaryWriter  # noqa: F401 - imported here so that no child has to

import torchstone
from torchstone import experiment
from torchstone.core import fault
from torchstone.experiment import keepsakes

DIGITS = (
    "model=conv_net",
    "model.widths=[4,8]",
    "model.dropout=0.1",
    "averaging=ema",
    "batch_transforms=[normalize,padded_crop,mixup]",
    "gradient_transforms=[clip_by_norm]",
    "run.epochs=3",
    "run.batch_size=256",
    "run.evaluate_every=3",
    "run.threads=1",
    "trackers=[jsonl,csv]",
)
GPT = (
    "model.depth=1",
    "model.dim=32",
    "model.num_heads=2",
    "model.dropout=0.1",
    "averaging=ema",
    "run.steps=12",
    "run.batch_size=8",
    "run.microbatch_size=4",
    "run.evaluate_every=4",
    "run.threads=1",
    "trackers=[jsonl,csv]",
)


def job(name: str, base: Path) -> tuple[torchstone.Experiment, tuple[str, ...]]:
    """The recipe and its edits."""
    if name == "digits":
        return torchstone.recipes.digits_mini(), DIGITS
    text = base / "text.txt"
    text.write_text("".join(f"{n} bottles of beer on the wall, {n} bottles of beer\n" for n in range(99, 0, -1)))
    return torchstone.recipes.gpt_bytes(), (f"data={{kind='plain_text', path='{text}', context=32}}", *GPT)


def train(out: Path) -> None:
    """Trains in `out`, or goes on there."""
    torchstone.train_experiment(recipe, *edits, out=out, resume=True)


def child(work) -> int:
    """Runs `work` in a forked process and returns its process id."""
    pid = os.fork()
    if pid:
        return pid
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        work()
    except BaseException:
        os._exit(1)
    os._exit(0)


def wait(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def ending(out: Path) -> dict[str, str]:
    """What must be equal: weights, averages, optimizer memory, the table of evaluations, the log without its clocks, the final numbers."""
    last = out / "checkpoints" / (out / "checkpoints" / "last").read_text().strip()
    files = {name: (last / f"{name}.safetensors").read_bytes() for name in ("model", "average", "optimizer")}
    files["results.csv"] = (out / "results.csv").read_bytes()
    log = [{k: v for k, v in json.loads(line).items() if k != "samples_per_s"} for line in (out / "log.jsonl").read_text().splitlines()]
    files["log.jsonl"] = json.dumps(log).encode()
    files["metrics"] = json.dumps(json.loads((out / "metrics.json").read_text())["final"]).encode()
    files["folders"] = " ".join(sorted(p.name for p in (out / "checkpoints").iterdir())).encode()
    return {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}


def operations(base: Path, start: int, step: int) -> dict:
    reference = base / "reference"
    counted = base / "count"

    def count() -> None:
        train(reference)
        counted.write_text(str(fault.count()))

    assert wait(child(count)) == 0
    wanted, total, differ, kills = ending(reference), int(counted.read_text()), [], 0
    for number in range(start, total + 1, step):
        out = base / f"run-{number}"

        def killed(number: int = number, out: Path = out) -> None:
            fault.arm("kill", number)
            train(out)

        kills += wait(child(killed)) == -signal.SIGKILL
        code = wait(child(lambda out=out: train(out)))
        if code != 0 or ending(out) != wanted:
            differ.append({"operation": number, "exit": code})
        shutil.rmtree(out, ignore_errors=True)
    return {"operations": total, "kills": kills, "differ": differ}


def instants(base: Path, count: int, seed: int) -> dict:
    reference = base / "reference"
    assert wait(child(lambda: train(reference))) == 0
    started = time.perf_counter()
    assert wait(child(lambda: train(base / "timed"))) == 0
    usual = time.perf_counter() - started
    wanted, draw, kills, runs, differ = ending(reference), random.Random(seed), 0, 0, []
    while kills < count:
        out, runs = base / f"run-{runs}", runs + 1
        while True:
            pid = child(lambda out=out: train(out))
            time.sleep(draw.uniform(0, usual))
            if kills < count:
                os.kill(pid, signal.SIGKILL)
            code = wait(pid)
            kills += code == -signal.SIGKILL
            if code != -signal.SIGKILL:
                break
        if code != 0 or ending(out) != wanted:
            differ.append({"run": out.name, "exit": code})
        shutil.rmtree(out, ignore_errors=True)
    return {"kills": kills, "runs": runs, "differ": differ}


if __name__ == "__main__":
    keepsakes.MISTAKES = keepsakes.SAMPLES = 1  # every further picture is written as the first one is
    # A kill loses nothing that the kernel has; what a machine that stops loses is tested in tests/core/test_store_crashes.py.
    os.fsync = lambda fd: None
    torch.set_num_threads(1)
    name, sweep, *numbers = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        recipe, edits = job(name, Path(folder))
        experiment.prepare(recipe, *edits)
        result = {"operations": operations, "instants": instants}[sweep](Path(folder), *map(int, numbers))
    print(json.dumps(result))
