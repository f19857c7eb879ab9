"""Recomputed batch-norm statistics against one large batch, layer by layer, and what they must leave alone.

Shapes: N rows, C channels.
"""

import copy
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch
from torch import nn

from laws import cases
from laws.cases import NOISY, begin, ready
from torchstone.core.protocols import Batch
from torchstone.data import Flip, Normalize
from torchstone.nn.switchable import SwitchableNorm
from torchstone.optim import EMA, LAWA, SWA
from torchstone.train import batch_norm
from torchstone.train.loop import look, refresh_batch_norm, updates
from torchstone.train.step import transformed


def batches(*sizes: int, shape: tuple[int, ...] = (3, 4, 4)) -> list[list[Batch]]:
    draw = torch.Generator().manual_seed(0)
    made = [torch.randn(n, *shape, generator=draw, dtype=torch.float64) * 3 + 100 for n in sizes]
    return [[Batch(x, torch.zeros(len(x)), torch.arange(len(x)), torch.ones(len(x)))] for x in made]


def test_the_first_layer_is_the_pooled_batch() -> None:
    """Of unequal batches, exactly: mean and unbiased variance of all rows together, though the mean is far from zero."""
    net = nn.Sequential(nn.BatchNorm2d(3), nn.Dropout(0.5)).double()
    given = batches(5, 1, 9)
    batch_norm.recompute(net, net, given, net)
    rows = torch.cat([batch.inputs for (batch,) in given]).numpy()
    torch.testing.assert_close(net[0].running_mean.numpy(), rows.mean(axis=(0, 2, 3)), rtol=1e-14, atol=0)
    torch.testing.assert_close(net[0].running_var.numpy(), rows.var(axis=(0, 2, 3), ddof=1), rtol=1e-12, atol=0)


def test_deeper_layers_are_torchs_for_one_batch() -> None:
    """With one batch the whole network is what a training forward with momentum 1 leaves."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 5, 2), nn.BatchNorm2d(5)).double()
    theirs = copy.deepcopy(net).train()
    for norm in (theirs[1], theirs[4]):
        norm.momentum = 1.0
    given = batches(6)
    theirs(given[0][0].inputs)
    batch_norm.recompute(net, net, given, net)
    for name in ("1.running_mean", "1.running_var", "4.running_mean", "4.running_var"):
        torch.testing.assert_close(net.state_dict()[name], theirs.state_dict()[name], rtol=1e-12, atol=1e-12)


def test_equal_batches_are_near_torchs_update_bn() -> None:
    """update_bn averages the batches' variances; ours also counts how the batches' means differ. The means agree exactly."""
    net = nn.Sequential(nn.BatchNorm2d(3)).double()
    theirs, given = copy.deepcopy(net), batches(8, 8, 8)
    torch.optim.swa_utils.update_bn([batch.inputs for (batch,) in given], theirs)
    batch_norm.recompute(net, net, given, net)
    torch.testing.assert_close(net[0].running_mean, theirs[0].running_mean, rtol=1e-13, atol=0)
    torch.testing.assert_close(net[0].running_var, theirs[0].running_var, rtol=0.05, atol=0)


def test_it_changes_nothing_else() -> None:
    net = nn.Sequential(nn.BatchNorm2d(3), nn.Dropout(0.5), nn.BatchNorm2d(3, track_running_stats=False), nn.BatchNorm2d(3)).eval()
    net[1].train()
    trained = copy.deepcopy(net).train()
    trained[3].eval()  # frozen while it trains
    before, modes, drawn = copy.deepcopy(net.state_dict()), [m.training for m in net.modules()], torch.get_rng_state()
    batch_norm.recompute(net, trained, [[replace(b, inputs=b.inputs.float()) for b in each] for each in batches(4, 4)], net)
    changed = {name for name, value in net.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"0.running_mean", "0.running_var"}
    assert [m.training for m in net.modules()] == modes and torch.equal(torch.get_rng_state(), drawn)
    assert not net[0]._forward_pre_hooks


def test_switchable_norm_keeps_to_its_own_variance() -> None:
    net = nn.Sequential(SwitchableNorm(3, 2)).double()
    given = batches(5, 3)
    batch_norm.recompute(net, net, given, net)
    rows = torch.cat([batch.inputs for (batch,) in given]).numpy()
    torch.testing.assert_close(net[0].running_var.numpy(), rows.var(axis=(0, 2, 3)), rtol=1e-12, atol=0)


def test_a_share_that_only_pads_does_not_count() -> None:
    net = nn.Sequential(nn.BatchNorm2d(3)).double()
    given = batches(5, 2, 9)
    batch_norm.recompute(net, net, given, net, padding=lambda batch: len(batch.index) == 2)
    rows = torch.cat([given[0][0].inputs, given[2][0].inputs])
    torch.testing.assert_close(net[0].running_mean, rows.mean(dim=(0, 2, 3)), rtol=1e-13, atol=0)


@pytest.mark.parametrize("averaging", [SWA(start=0.0, every=2), LAWA(count=2, every=2), EMA(decay=0.7, recompute_batch_norm=True)], ids=str)
def test_a_run_evaluates_with_them(averaging: object, tmp_path: Path) -> None:
    """The evaluated module's statistics are those of its own weights over the first epoch's transformed batches."""
    method = replace(NOISY, averaging=averaging, batch_transforms=(Normalize(), Flip()))
    job, state = begin(ready(method), tmp_path)
    cases.advance(job, state, 5)
    assert state.average is not None
    module = state.average.module
    before = copy.deepcopy(module.state_dict())
    look(job, state, [])
    after = copy.deepcopy(module.state_dict())
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert changed and all(name.endswith(("running_mean", "running_var")) for name in changed)
    refresh_batch_norm(job, state)
    assert all(torch.equal(after[name], value) for name, value in module.state_dict().items()), "twice is once"

    met: list[torch.Tensor] = []
    first = next((name, m) for name, m in module.named_modules() if name + ".running_mean" in after)
    hook = first[1].register_forward_pre_hook(lambda m, inputs: met.append(inputs[0].double()))
    with torch.no_grad():
        for epoch, each in islice(updates(job, 0), job.plan.updates):
            for batch in transformed(each, job.method, job.setting, epoch):
                module(batch.inputs)
    hook.remove()
    rows = torch.cat(met)
    torch.testing.assert_close(after[f"{first[0]}.running_mean"].double(), rows.mean(dim=(0, 2, 3)), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(after[f"{first[0]}.running_var"].double(), rows.var(dim=(0, 2, 3)), rtol=1e-5, atol=1e-6)


def test_an_average_that_does_not_ask_keeps_its_own(tmp_path: Path) -> None:
    job, state = begin(ready(NOISY), tmp_path)
    cases.advance(job, state, 4)
    assert state.average is not None
    before = copy.deepcopy(state.average.module.state_dict())
    look(job, state, [])
    assert all(torch.equal(before[name], value) for name, value in state.average.module.state_dict().items())
