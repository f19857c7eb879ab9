"""What the loop costs over a bare PyTorch loop, in microseconds a step: guard, clipping, schedule and average on, and each one's share.

    python benchmarks/loop_overhead.py [ROUNDS]

An MLP 64-256-256-10 on digits, batch 64, one thread. `bare` is the loop a person writes: index the tensors, forward, cross-entropy,
backward, torch's fused AdamW; no clipping, no schedule, no average, no guard. `by_hand` adds those three with torch's own tools. Every
side runs in its own process, in turn; a side's number is the fastest window of 200 steps of all rounds.
"""

import json
import statistics
import sys
import time

import machine

EVERYTHING = ("gradient_transforms=[clip_by_norm]", "schedules=[{kind=cosine,warmup=0.05}]", "averaging=ema")
SIDES: dict[str, tuple[str, ...] | None] = {
    "bare": None,
    "by_hand": None,
    "ours": EVERYTHING,
    "ours_without_clipping": EVERYTHING[1:],
    "ours_without_schedule": (EVERYTHING[0], EVERYTHING[2]),
    "ours_without_average": EVERYTHING[:2],
    "ours_guard_only": (),
}
STEPS, WINDOW, BATCH, HIDDEN = 3000, 200, 64, 256


def fastest(stamps: list[float]) -> float:
    """Microseconds a step in the fastest window."""
    spans = [(stamps[i + WINDOW] - stamps[i]) / WINDOW for i in range(WINDOW, len(stamps) - WINDOW, WINDOW // 4)]
    return min(spans) * 1e6


def by_torch(*, everything: bool) -> float:
    import torch
    import torch.nn.functional as F
    from torch import nn

    from torchstone.data import Digits

    torch.set_num_threads(1)
    torch.manual_seed(0)
    split = Digits().open().train
    x, y = split.fetch(__import__("numpy").arange(len(split)))
    x = x.flatten(1)
    model = nn.Sequential(nn.Linear(64, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 10))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=STEPS + 1)
    average = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.999))
    stamps, step = [], 0
    while step < STEPS:
        order = torch.randperm(len(x))
        for rows in order.split(BATCH):
            optimizer.zero_grad(set_to_none=True)
            loss = F.cross_entropy(model(x[rows]), y[rows])
            loss.backward()
            if everything:
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            if everything:
                schedule.step()
                average.update_parameters(model)
            step += 1
            stamps.append(time.perf_counter())
            if step == STEPS:
                break
    return fastest(stamps)


def by_us(edits: tuple[str, ...]) -> float:
    import tempfile
    from pathlib import Path

    import torch

    from torchstone import experiment, recipes
    from torchstone.train.build import build_state
    from torchstone.train.loop import Job, updates, why_end
    from torchstone.train.signals import Request
    from torchstone.train.step import train_step

    torch.set_num_threads(1)
    plain = ("model.hidden=[256,256]", "batch_transforms=[]", "groups=none", "gradient_transforms=[]", "schedules=[]", "averaging=none")
    prepared = experiment.prepare(recipes.digits_mini(), *plain, *edits, f"run.steps={STEPS}", f"run.batch_size={BATCH}", "run.threads=1")
    method, run = prepared.experiment.method, prepared.experiment.run
    state = build_state(prepared.model, method, run, prepared.device)
    with tempfile.TemporaryDirectory() as folder:
        job = Job(
            method=method,
            run=run,
            splits=prepared.splits,
            metrics=(),
            selection=("accuracy", "max"),
            device=prepared.device,
            folder=Path(folder),
            facts={},
        )
        setting, request, stamps = job.setting, Request(), []
        for epoch, microbatches in updates(job, 0):  # the body of `loop.fit` between two evaluations
            report = train_step(state, microbatches, method, setting, epoch)
            why_end(job, state, report, request)
            stamps.append(time.perf_counter())
    return fastest(stamps)


def main(rounds: int) -> None:
    facts = machine.facts()
    numbers = machine.interleaved(__file__, list(SIDES), rounds)
    step = {side: round(min(values), 1) for side, values in numbers.items()}
    medians = {side: round(statistics.median(values), 1) for side, values in numbers.items()}
    ours, bare = step["ours"], step["bare"]
    machine.write(
        "loop_overhead",
        {
            "what": "microseconds a step, MLP 64-256-256-10, batch 64, one thread; fastest window of 200 steps in any round",
            "machine": facts,
            "rounds": rounds,
            "step_us": step,
            "median_of_rounds_us": medians,
            "overhead_over_bare_us": round(ours - bare, 1),
            "overhead_over_by_hand_us": round(ours - step["by_hand"], 1),
            "share_us": {
                "clipping": round(ours - step["ours_without_clipping"], 1),
                "schedule": round(ours - step["ours_without_schedule"], 1),
                "average": round(ours - step["ours_without_average"], 1),
                "loop_and_guard": round(step["ours_guard_only"] - bare, 1),
            },
        },
    )


if __name__ == "__main__":
    if "--side" in sys.argv:
        side = sys.argv[-1]
        edits = SIDES[side]
        print(json.dumps(by_torch(everything=side == "by_hand") if edits is None else by_us(edits)))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 7)
