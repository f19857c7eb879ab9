"""The processes of one training under `torchrun`, over torch.distributed: who am I, sums, and decisions shared by all.

Alone (no `torchrun`, or one process) everything here is a no-op, so callers never ask. Nothing is pickled: what is no tensor
travels as JSON. Rendezvous and gloo have no authentication: on one machine they are kept on the loopback interface.
"""

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from torchstone.core.errors import UserError, WorkError
from torchstone.core.json_text import from_exact_json, to_exact_json

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def start(device: torch.device, timeout: float = 600.0) -> torch.device:
    """Joins the other ranks if `torchrun` started this process, and returns the device of this rank.

    gloo carries what is on the CPU, nccl what is on CUDA devices (one a rank of a machine). A collective that waits longer
    than `timeout` seconds is a WorkError. UserError if torchrun's variables make no sense or a device is missing.
    """
    world = _variable("WORLD_SIZE", 1)
    if world == 1 or dist.is_initialized():
        return device
    rank, local_rank = _variable("RANK"), _variable("LOCAL_RANK", 0)
    if not 0 <= rank < world:
        raise UserError(f"RANK={rank} is not in 0..{world - 1} (WORLD_SIZE={world})")
    if device.type == "cuda":
        device = _own_device(local_rank)
    if os.environ.get("MASTER_ADDR") in _LOOPBACK:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    try:
        dist.init_process_group(backend, timeout=timedelta(seconds=timeout), rank=rank, world_size=world)
    except (RuntimeError, ValueError) as error:
        raise WorkError(f"rank {rank} of {world} could not join the others: {_first_line(error)}") from error
    return device


def stop() -> None:
    """Leaves the group; nothing when alone."""
    if dist.is_initialized():
        gc.collect()  # a wrapped model in a reference cycle would keep the group's threads alive until the interpreter is gone
        dist.destroy_process_group()


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    """The number of ranks; 1 when alone."""
    return dist.get_world_size() if dist.is_initialized() else 1


def device_named(name: str, said: str) -> torch.device:
    """The device that `name` means; "auto" is the accelerator if there is one. A rank takes the one of its own number.

    Raises UserError, beginning with `said` (how the user said it), for a device this machine does not have.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"{said}{name}: no such device; use auto, cpu, cuda or cuda:0") from None
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"{said}{name}: torchstone computes on cpu and cuda")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"{said}{name}: torch sees {torch.cuda.device_count()} CUDA devices on this machine; use cpu")
    return torch.device("cuda", local_rank()) if device.type == "cuda" and device.index is None else device


def local_rank() -> int:
    """The number of this process on its machine, as torchrun gives it: also which accelerator is its own."""
    return _variable("LOCAL_RANK", 0)


def local_world() -> int:
    """Processes of this training on this machine."""
    return _variable("LOCAL_WORLD_SIZE", 1)


@contextmanager
def joined(device: torch.device) -> Iterator[None]:
    """Inside, the other ranks are there. A group that was there before is left as it was."""
    before = dist.is_initialized()
    start(device)
    try:
        yield
    finally:
        if not before:
            stop()


def is_main() -> bool:
    """Whether this is rank 0: the one that writes files and prints."""
    return rank() == 0


def sum_(tensor: Tensor) -> Tensor:
    """Adds `tensor` up over the ranks, in place, and returns it. Every rank calls it with the same shape and type."""
    if world() > 1:
        with _named("sum"):
            dist.all_reduce(tensor)
    return tensor


def lay_end_to_end(rows: Tensor) -> Tensor:
    """The rows of all ranks, [M, ...] with an M of each rank's own, as one tensor on every rank, those of rank 0 first."""
    if world() == 1:
        return rows
    sizes = torch.zeros(world(), dtype=torch.int64)
    sizes[rank()] = len(rows)
    ends = sum_(sizes).cumsum(0).tolist()
    whole = rows.new_zeros(ends[-1], *rows.shape[1:])
    whole[ends[rank()] - len(rows) : ends[rank()]] = rows  # the other ranks add zeros
    return sum_(whole)


def max_(tensor: Tensor) -> Tensor:
    """As `sum_`, the largest over the ranks."""
    if world() > 1:
        with _named("maximum"):
            dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
    return tensor


def any_of(*flags: bool) -> tuple[bool, ...]:
    """Each flag, true if it is on any rank."""
    if world() == 1:
        return flags
    return tuple(bool(flag) for flag in max_(torch.tensor(flags, dtype=torch.int64)).tolist())


def sum_with_gradient(tensor: Tensor) -> Tensor:
    """The sum over the ranks as a new tensor that autograd sees through: a gradient is the sum of all ranks' gradients."""
    return _Sum.apply(tensor) if world() > 1 else tensor  # type: ignore[return-value]


def barrier() -> None:
    """Returns when every rank is here."""
    if world() > 1:
        with _named("barrier"):
            dist.all_reduce(torch.zeros(1))


def broadcast_object(value: Any) -> Any:
    """Rank 0's `value` on every rank: JSON-able, string keys, floats exact, tuples come back as lists."""
    return value if world() == 1 else gather_objects(value if is_main() else None)[0]


def gather_objects(value: Any) -> list[Any]:
    """The `value` of each rank, on every rank. JSON-able, as for `broadcast_object`."""
    if world() == 1:
        return [value]
    content = torch.frombuffer(bytearray(to_exact_json(value).encode()), dtype=torch.uint8)
    sizes = torch.zeros(world(), dtype=torch.int64)
    sizes[rank()] = len(content)
    sum_(sizes)
    rows = torch.zeros(world(), int(sizes.max()), dtype=torch.uint8)
    rows[rank(), : len(content)] = content
    sum_(rows)
    return [from_exact_json(row[:size].numpy().tobytes(), "rank") for row, size in zip(rows, sizes.tolist(), strict=True)]


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        return sum_(tensor.clone(memory_format=torch.contiguous_format))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return sum_(gradients[0].clone(memory_format=torch.contiguous_format))


@contextmanager
def _named(purpose: str) -> Iterator[None]:
    """Turns a failed collective into an error that says which rank was waiting, and for what."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, WorkError):
            raise
        message = f"rank {rank()} of {world()}: a {purpose} over the ranks failed; another rank ended or is stuck ({_first_line(error)})"
        raise WorkError(message) from error


def _variable(name: str, default: int | None = None) -> int:
    text = os.environ.get(name)
    if text is None and default is not None:
        return default
    if text is None or not text.isdigit():
        raise UserError(f"{name} must be a number, as torchrun sets it, got {text!r}")
    return int(text)


def _own_device(local_rank: int) -> torch.device:
    if local_rank >= torch.cuda.device_count():
        raise UserError(f"rank {local_rank} of this machine needs a CUDA device of its own; there are {torch.cuda.device_count()}")
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
