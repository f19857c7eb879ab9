"""What the tracker `probes` costs: steps with and without it, in turn, in one process.

    python benchmarks/probes_overhead.py [ROUNDS]

Two trainings that are the same but for the tracker take their steps alternately on one thread, so that whatever else the machine does falls
on both; times are the process's own (waiting for a busy core is nobody's cost), and every round is a process of its own. `digits` is a step
of about 20 ms, `digits_mini` one of half a millisecond. Looks happen at updates 1, 2, 4, 8 ... 64 and every 100th. The share is (median
extra of a look x looks + median extra of any other step x those) / (median step x steps), for the run that was measured and for one of
1,000 steps.
"""

import json
import statistics
import sys
import time

import machine

SIDES: dict[str, tuple[str, tuple[str, ...], int]] = {
    "digits": ("digits", (), 240),
    "digits_mini": ("digits-mini", (), 1000),
}
"""Recipe, edits, steps."""
LONG = 1000


def measure(recipe: str, edits: tuple[str, ...], steps: int) -> dict[str, float]:
    """Medians in microseconds, and what they come to."""
    import tempfile
    from pathlib import Path

    import torch

    from torchstone import experiment, recipes
    from torchstone.train.build import build_state
    from torchstone.train.loop import inside, timed, updates
    from torchstone.train.step import train_step
    from torchstone.train.trackers import Probes

    torch.set_num_threads(1)
    taken: dict[str, list[float]] = {"with": [], "without": []}
    with tempfile.TemporaryDirectory() as folder:
        tracker = Probes().open(Path(folder))
        sides = {}
        for side in taken:
            prepared = experiment.prepare(recipes.RECIPES[recipe](), *edits, f"run.steps={steps}", "run.threads=1", "run.device=cpu")
            job = prepared.job(Path(folder), {})
            state = build_state(prepared.model, prepared.experiment.method, prepared.experiment.run, prepared.device)
            sides[side] = (job, state, job.setting, timed(updates(job, 0)))
        tracker.start({"total": steps})
        tracker.inside(inside(*sides["with"][:2]))
        for step in range(1, steps + 1):
            order = list(sides) if step % 2 else list(sides)[::-1]
            for side in order:
                job, state, setting, batches = sides[side]
                epoch, microbatches, waited = next(batches)
                started = time.process_time()
                if side == "with":
                    tracker.before(step, waited)
                report = train_step(state, microbatches, job.method, setting, epoch)
                if side == "with":
                    tracker.step(report)
                taken[side].append(time.process_time() - started)
        looks = [step for step in range(1, steps + 1) if tracker.due(step)]
        same = torch.equal(sides["with"][1].parameters.data, sides["without"][1].parameters.data)
        tracker.close()
    extra = [a - b for a, b in zip(taken["with"], taken["without"], strict=True)]
    look = statistics.median(extra[step - 1] for step in looks[1:])  # the first is the first time anything runs
    other = statistics.median(extra[step - 1] for step in range(1, steps + 1) if step not in set(looks))
    base = statistics.median(taken["without"])
    many = len([step for step in range(1, LONG + 1) if step % 100 == 0 or (step & (step - 1) == 0 and step < 100)])
    return {
        "step_us": base * 1e6,
        "look_us": look * 1e6,
        "other_us": other * 1e6,
        "looks": len(looks),
        "share_of_this_run": (look * len(looks) + other * (steps - len(looks))) / (base * steps),
        "share_of_1000_steps": (look * many + other * (LONG - many)) / (base * LONG),
        "same_weights": float(same),
    }


def main(rounds: int) -> None:
    facts = machine.facts()
    numbers = machine.interleaved(__file__, list(SIDES), rounds)
    medians = {side: {key: statistics.median(said[key] for said in all_) for key in all_[0]} for side, all_ in numbers.items()}
    spread = {side: [round(said["share_of_this_run"], 5) for said in all_] for side, all_ in numbers.items()}
    document = {
        "what": "cost of the tracker probes as a share of step time; steps with and without it alternate in one process, one thread",
        "machine": facts,
        "rounds": rounds,
        "steps": {side: steps for side, (_, _, steps) in SIDES.items()},
        "sides": {side: {key: round(value, 5 if "share" in key else 1) for key, value in found.items()} for side, found in medians.items()},
        "share_of_this_run_by_round": spread,
    }
    machine.write("probes_overhead", document)


if __name__ == "__main__":
    if "--side" in sys.argv:
        print(json.dumps(measure(*SIDES[sys.argv[-1]])))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
