"""What one update costs: ours against the schedulefree package, torch.optim.Muon and torch's fused AdamW, in milliseconds.

    python benchmarks/optimizers.py --peers PYTHON [ROUNDS]

PYTHON is an interpreter with schedulefree (and torch of the same version). Gradients are drawn once; only `step` is timed, on one thread.
Three sets of parameters: `many` small tensors (60 times a 64 x 64 matrix and two vectors, 0.25 M), `small`, the GPT that recipes call
gpt-bytes-like (6 blocks of width 128, 1.2 M), and `large` (12 blocks of width 512, 38 M, past every cache). Every side runs in a process of
its own, in turn; a side's number is its fastest window, a ratio is the median over rounds of the two numbers of one round. The schedulefree
package has no fused form, so its foreach form is what a user gets.
"""

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import machine

SIZES = ("many", "small", "large")
SIDES = {
    "adamw": "torch_adamw",
    "lion": "torch_adamw",
    "lamb": "torch_adamw",
    "muon": "torch_muon",
    "schedule_free": "schedulefree",
}
"""Our kind -> what it is compared with."""
PEERS = ("torch_adamw", "torch_muon", "schedulefree")


def shapes(size: str) -> list[tuple[int, ...]]:
    """Of a GPT: attention in one matrix, an MLP of four times the width, two norms with bias a block, an embedding."""
    if size == "many":
        return 60 * [(64, 64), (64,), (64,)]
    depth, dim = {"small": (6, 128), "large": (12, 512)}[size]
    block = [(3 * dim, dim), (3 * dim,), (dim, dim), (dim,), (4 * dim, dim), (4 * dim,), (dim, 4 * dim), (dim,)] + 4 * [(dim,)]
    return [(256, dim), *(depth * block), (dim,), (dim,)]


def model(size: str) -> Any:
    import torch
    from torch import nn

    torch.manual_seed(0)
    return nn.ParameterList([nn.Parameter(torch.randn(shape) * 0.02) for shape in shapes(size)])


def ours(kind: str, size: str) -> Callable[[], Any]:
    import torch

    from torchstone import optim
    from torchstone.core.allocator import keep_freed_memory
    from torchstone.core.tree import choices
    from torchstone.optim.flat import FlatParameters

    keep_freed_memory()  # as a run does
    part = choices(optim.Optimizer)[kind]()
    parameters = FlatParameters(model(size))
    memory = part.init(parameters)
    parameters.grad.copy_(torch.randn_like(parameters.grad) * 1e-3)
    return lambda: part.step(parameters, memory)


def theirs(name: str, size: str) -> Callable[[], Any]:
    import torch

    parameters = list(model(size))
    for p in parameters:
        p.grad = torch.randn_like(p) * 1e-3
    if name == "torch_adamw":
        return torch.optim.AdamW(parameters, fused=True).step
    if name == "torch_muon":
        hidden = [p for p in parameters[1:] if p.ndim == 2]
        rest = [parameters[0], *(p for p in parameters if p.ndim == 1)]
        muon, adamw = torch.optim.Muon(hidden, lr=0.02), torch.optim.AdamW(rest, fused=True)
        return lambda: (muon.step(), adamw.step())
    import schedulefree

    optimizer = schedulefree.AdamWScheduleFree(parameters)
    optimizer.train()
    return optimizer.step


def measure(side: str) -> float:
    """Milliseconds a step in the fastest window."""
    import torch

    torch.set_num_threads(1)
    name, size = side.split("/")
    step = theirs(name, size) if name in PEERS else ours(name, size)
    slow = "muon" in name
    steps, windows = (1, 3) if slow and size == "large" else {"many": (50, 8), "small": (5 if slow else 50, 8), "large": (5, 5)}[size]
    for _ in range(2):
        step()
    best = float("inf")
    for _ in range(windows):
        started = time.perf_counter()
        for _ in range(steps):
            step()
        best = min(best, (time.perf_counter() - started) / steps)
    return best * 1e3


def main(settings: argparse.Namespace) -> None:
    facts = machine.facts()
    names = [f"{name}/{size}" for size in SIZES for name in [*SIDES, *PEERS]]
    rounds: list[dict[str, float]] = []
    for _ in range(settings.rounds):
        rounds.append({})
        for name in names:
            interpreter = settings.peers if name.startswith("schedulefree") else sys.executable
            rounds[-1][name] = machine.side(__file__, name, interpreter=interpreter)
        print(f"round {len(rounds)} of {settings.rounds}", file=sys.stderr)
    ratios = {
        f"{kind}/{size}": [one[f"{peer}/{size}"] / one[f"{kind}/{size}"] for one in rounds]
        for size in SIZES
        for kind, peer in SIDES.items()
    }
    counts = {size: sum(math.prod(shape) for shape in shapes(size)) for size in SIZES}
    machine.write(
        "optimizers",
        {
            "what": "milliseconds an update takes, one thread, float32, gradients given; the fastest window of each round",
            "machine": facts,
            "rounds": settings.rounds,
            "parameters": counts,
            "compared_with": SIDES,
            "milliseconds": nested({name: statistics.median(one[name] for one in rounds) for name in names}, 3),
            "times_faster": nested({name: statistics.median(values) for name, values in ratios.items()}, 2),
            "times_faster_least": nested({name: min(values) for name, values in ratios.items()}, 2),
            "times_faster_most": nested({name: max(values) for name, values in ratios.items()}, 2),
        },
    )


def nested(numbers: dict[str, float], digits: int) -> dict[str, dict[str, float]]:
    """{"lion/small": 1.234} as {"lion": {"small": 1.23}}."""
    made: dict[str, dict[str, float]] = {}
    for name, value in numbers.items():
        kind, size = name.split("/")
        made.setdefault(kind, {})[size] = round(value, digits)
    return made


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("rounds", nargs="?", type=int, default=5)
    parser.add_argument("--peers", help="a Python interpreter with schedulefree")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        print(json.dumps(measure(options.side)))
    elif options.peers:
        main(options)
    else:
        parser.error("--peers PATH is needed")
