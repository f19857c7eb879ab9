"""Two and three gloo processes: sums, their gradients, shared decisions, and errors that name the rank."""

import os
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from torchstone.core import ranks
from torchstone.core.errors import UserError

SRC = Path(__file__).resolve().parents[2] / "src"
HEAD = """
import sys, time, torch
from torchstone.core import ranks
from torchstone.core.errors import WorkError
ranks.start(torch.device("cpu"), timeout=float(sys.argv[1]))
rank, world = ranks.rank(), ranks.world()
"""


def together(world: int, body: str, timeout: float = 60.0) -> list[tuple[int, str]]:
    """(exit status, output) of each of `world` processes that run `body`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    program = HEAD + textwrap.dedent(body) + "\nranks.stop()\n"
    common = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "PYTHONPATH": str(SRC)}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(timeout)],
            env={**os.environ, **common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(world)
    ]
    return [(process.wait(240), process.stdout.read()) for process in running if process.stdout is not None]


def all_right(results: list[tuple[int, str]]) -> None:
    assert all(status == 0 for status, _ in results), results


def test_alone_everything_is_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert ranks.start(torch.device("cpu")) == torch.device("cpu")
    assert (ranks.rank(), ranks.world(), ranks.is_main()) == (0, 1, True)
    x = torch.ones(3, requires_grad=True)
    assert ranks.sum_with_gradient(x) is x
    assert ranks.sum_(y := torch.ones(2)) is y and ranks.lay_end_to_end(y) is y
    assert ranks.gather_objects({"a": 1}) == [{"a": 1}] and ranks.broadcast_object("x") == "x"
    ranks.barrier()
    ranks.stop()


@pytest.mark.parametrize("variables", [{"WORLD_SIZE": "two"}, {"WORLD_SIZE": "2"}, {"WORLD_SIZE": "2", "RANK": "2"}])
def test_bad_variables_are_named(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="RANK|WORLD_SIZE"):
        ranks.start(torch.device("cpu"))


def test_two_ranks_sum_decide_and_differentiate() -> None:
    body = """
    assert world == 2 and ranks.is_main() == (rank == 0)
    for dtype in (torch.int64, torch.float64, torch.float32):
        assert ranks.sum_(torch.tensor([1, rank], dtype=dtype)).tolist() == [2, 1]
    assert ranks.max_(torch.tensor([rank, -rank])).tolist() == [1, 0]

    for dtype in (torch.int64, torch.float64, torch.float32):
        for rows in ([3, 0], [0, 2], [0, 0], [1, 4]):
            mine = torch.full((rows[rank], 2), rank + 1, dtype=dtype)
            whole = ranks.lay_end_to_end(mine)
            assert whole.dtype == dtype and whole.shape == (sum(rows), 2)
            assert whole[:, 1].tolist() == [1] * rows[0] + [2] * rows[1] and len(mine) == rows[rank]
    nan = ranks.lay_end_to_end(torch.tensor([float("nan") if rank else -0.5]))
    assert nan[0] == -0.5 and nan[1].isnan()

    # Each rank's loss is weight * sum(x)^2, so that d total / d x = 2 (1 + 2) sum(x) on both.
    x = torch.tensor([1.0 + rank, 2.0], dtype=torch.float64, requires_grad=True)
    summed = ranks.sum_with_gradient(x)
    assert summed.tolist() == [3.0, 4.0] and x.tolist() == [1.0 + rank, 2.0]
    ((rank + 1) * summed.square()).sum().backward()
    assert x.grad.tolist() == [18.0, 24.0], x.grad

    value = ranks.broadcast_object({"seed": 3, "nan": float("nan"), "text": "é" * 1000} if rank == 0 else "ignored")
    assert value["seed"] == 3 and value["nan"] != value["nan"] and value["text"] == "é" * 1000
    assert ranks.gather_objects([rank] * rank) == [[], [1]]
    ranks.barrier()
    """
    all_right(together(2, body))


@pytest.mark.slow
def test_three_ranks_have_the_gradient_of_one() -> None:
    """Batch statistics over ranks of 1, 2 and 3 rows equal those of the joined batch, gradients included."""
    body = """
    torch.manual_seed(0)
    whole = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(6, 4, dtype=torch.float64)
    (weight * (whole - whole.mean(0)) / whole.var(0, unbiased=False).sqrt()).sum().backward()
    rows = slice(rank * (rank + 1) // 2, (rank + 1) * (rank + 2) // 2)
    mine = whole.detach()[rows].requires_grad_()
    sums = ranks.sum_with_gradient(torch.cat((mine.sum(0), mine.square().sum(0), mine.new_tensor([len(mine)]))))
    mean = sums[:4] / sums[8]
    std = (sums[4:8] / sums[8] - mean.square()).sqrt()
    (weight[rows] * (mine - mean) / std).sum().backward()
    torch.testing.assert_close(mine.grad, whole.grad[rows], rtol=1e-12, atol=1e-12)
    """
    all_right(together(3, body))


@pytest.mark.slow
def test_a_dead_rank_and_a_stuck_rank_are_named(tmp_path: Path) -> None:
    dead = """
    import os, signal
    if rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    try:
        ranks.sum_(torch.ones(1))
    except WorkError as error:
        print(error)
        os._exit(1)
    """
    (status, output), _ = together(2, dead)
    assert status == 1 and "rank 0 of 2: a sum over the ranks failed" in output
    said = tmp_path / "said"
    stuck = f"""
    import os, pathlib
    said = pathlib.Path({str(said)!r})
    if rank == 1:  # neither dead nor at the barrier, until the other has given up
        until = time.monotonic() + 120
        while not said.exists() and time.monotonic() < until:
            time.sleep(0.05)
        os._exit(0)
    started = time.monotonic()
    try:
        ranks.barrier()
    except WorkError as error:
        print(error, time.monotonic() - started)
        said.touch()
        os._exit(1)
    """
    (status, output), (other, _) = together(2, stuck, timeout=8)
    assert other == 0 and said.exists(), "it was the limit that ended the wait"
    assert status == 1 and "rank 0 of 2" in output and 5 < float(output.split()[-1]) < 60, output
