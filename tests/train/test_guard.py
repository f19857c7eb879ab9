"""The guard, on numbers: sticky, and nothing but a finite step with something to learn from passes."""

import math

import pytest
import torch

from torchstone.train.guard import Guard

CPU = torch.device("cpu")


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", ["loss", "norm"])
def test_what_is_not_finite_never_passes_again(bad: float, where: str) -> None:
    guard = Guard(CPU)
    assert guard.may_update(3, 1.0, 2.0, 8.0)
    assert not guard.may_update(4, *((bad, 1.0) if where == "loss" else (1.0, bad)), 8.0)
    assert guard.tripped_at == 4
    assert not guard.may_update(5, 1.0, 2.0, 8.0)
    assert not guard.may_update(6, bad, bad, 8.0)
    assert guard.tripped_at == 4


def test_nothing_to_learn_from_is_no_update_and_no_divergence() -> None:
    guard = Guard(CPU)
    assert not guard.may_update(0, 0.0, 0.0, 0.0)
    assert guard.tripped_at is None
    assert guard.may_update(1, 0.0, 0.0, 1.0)


def test_on_the_cpu_nothing_waits_on_a_device() -> None:
    guard = Guard(CPU)
    guard.may_update(0, 1.0, 1.0, 1.0)
    guard.read()
    assert guard.flag is None and guard.skip is None and guard.tripped_at is None


@pytest.mark.gpu
def test_on_an_accelerator_the_flag_stops_kernels_at_once_and_the_host_knows_a_step_later() -> None:
    device = torch.device("cuda")
    guard = Guard(device)
    one, nan = torch.ones((), device=device), torch.full((), math.nan, device=device)
    assert guard.may_update(0, one, one, one) and guard.skip.item() == 0
    assert guard.may_update(1, one, one, one * 0) and guard.skip.item() == 1
    assert guard.may_update(2, one, nan, one) and guard.skip.item() == 1
    assert not guard.may_update(3, one, one, one) and guard.skip.item() == 1
    assert guard.tripped_at == 2
