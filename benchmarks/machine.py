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

RESULTS = Path(os.environ.get("TORCHSTONE_RESULTS") or Path(__file__).parent / "results")
"""Where results are written; a trial at small sizes sets TORCHSTONE_RESULTS, so that it never passes for a measurement."""
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
PRODUCT = 1024
"""Side of the matrices whose product is the ceiling."""


def facts() -> dict[str, Any]:
    """The machine, and its ceilings on one thread at this moment: matrix products in GFLOP/s, memory copy in GB/s."""
    import torch

    torch.set_num_threads(1)
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
        **ceilings(),
        "copy_gb_per_s": round(2 * x.nbytes / best(lambda: y.copy_(x), 10) / 1e9, 1),
    }


def ceilings(rounds: int = 15) -> dict[str, float]:
    """GFLOP/s of a matrix product on this thread, the best of `rounds` by the processor's time; bf16 where the hardware has it."""
    import torch

    torch.set_num_threads(1)
    dtypes = {"fp32": torch.float32}
    if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported():
        dtypes["bf16"] = torch.bfloat16
    rates = {}
    for name, dtype in dtypes.items():
        a, b = (torch.randn(PRODUCT, PRODUCT).to(dtype) for _ in "ab")
        seconds = best(lambda a=a, b=b: torch.mm(a, b), rounds, clock=time.process_time)
        rates[f"gemm_{name}_gflops"] = round(2 * PRODUCT**3 / seconds / 1e9, 1)
    return rates


def best(work: Callable[[], Any], rounds: int, clock: Callable[[], float] = time.perf_counter) -> float:
    """The shortest of `rounds` timings, in seconds, after one to warm up."""
    work()
    times = []
    for _ in range(rounds):
        started = clock()
        work()
        times.append(clock() - started)
    return min(times)


def side(script: str, name: str, *arguments: str, interpreter: str = sys.executable) -> Any:
    """What `script --side NAME ...` prints last, read as JSON. One thread; a failure ends the benchmark with what it said."""
    command = [interpreter, script, *arguments, "--side", name]
    done = subprocess.run(command, env=os.environ | ONE_THREAD, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def interleaved(script: str, sides: Sequence[str], rounds: int) -> dict[str, list[Any]]:
    """Runs `script --side NAME` for every side in turn, `rounds` times. Returns what each said, by side."""
    said: dict[str, list[Any]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name in sides:
            said[name].append(side(script, name))
    return said


def save(name: str, document: dict[str, Any]) -> str:
    """Writes benchmarks/results/<name>.json, whole or not at all, and returns its text."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    text = json.dumps(document, indent=2)
    partial = RESULTS / f".{name}.partial"
    partial.write_text(text + "\n")
    partial.replace(RESULTS / f"{name}.json")
    return text


def write(name: str, document: dict[str, Any]) -> None:
    """The same, and the text on the screen."""
    print(save(name, document))
