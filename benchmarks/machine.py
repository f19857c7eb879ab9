"""What every benchmark shares: the machine's facts and ceilings, sides run in processes of their own in turn, results on disk."""

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def facts() -> dict[str, Any]:
    """The machine, and its ceilings on one thread at this moment: fp32 matrix product in GFLOP/s, memory copy in GB/s."""
    import torch

    torch.set_num_threads(1)
    a, b = torch.randn(1024, 1024), torch.randn(1024, 1024)
    x, y = torch.randn(1 << 25), torch.empty(1 << 25)
    with open("/proc/cpuinfo") as file:
        processor = next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), platform.machine())
    return {
        "processor": processor,
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": 1,
        "gemm_fp32_gflops": round(2 * 1024**3 / best(lambda: torch.mm(a, b), 15) / 1e9, 1),
        "copy_gb_per_s": round(2 * x.nbytes / best(lambda: y.copy_(x), 10) / 1e9, 1),
    }


def best(work: Callable[[], Any], rounds: int) -> float:
    """The shortest of `rounds` timings, in seconds, after one to warm up."""
    work()
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times)


def interleaved(script: str, sides: Sequence[str], rounds: int) -> dict[str, list[float]]:
    """Runs `script --side NAME` for every side in turn, `rounds` times; each prints one JSON number. Returns the numbers by side."""
    numbers: dict[str, list[float]] = {side: [] for side in sides}
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    for _ in range(rounds):
        for side in sides:
            done = subprocess.run([sys.executable, script, "--side", side], env=environment, capture_output=True, text=True, check=True)
            numbers[side].append(json.loads(done.stdout.strip().splitlines()[-1]))
    return numbers


def write(name: str, document: dict[str, Any]) -> None:
    """benchmarks/results/<name>.json, and the same on the screen."""
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps(document, indent=2)
    (RESULTS / f"{name}.json").write_text(text + "\n")
    print(text)
