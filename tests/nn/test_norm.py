"""Synchronized batch norm against PyTorch's on the joined batch."""

import copy
import os
import socket
import subprocess
import sys

import pytest
import torch
from torch import nn

from torchstone.nn import SyncBatchNorm, set_valid_rows, synchronize

CLOSE = {"rtol": 1e-12, "atol": 1e-12}


def run(norm, x, d_y):
    x = x.clone().requires_grad_()
    y = norm(x)
    y.backward(d_y)
    return y, x.grad, norm.weight.grad, norm.bias.grad, norm.running_mean, norm.running_var, norm.num_batches_tracked


@pytest.mark.parametrize(("norm", "shape"), [(nn.BatchNorm1d, (6, 3)), (nn.BatchNorm2d, (4, 3, 5, 2)), (nn.BatchNorm3d, (2, 3, 2, 2, 2))])
def test_alone_it_is_torch_bit_for_bit(norm, shape):
    theirs = norm(3)
    ours = synchronize(copy.deepcopy(theirs))
    assert isinstance(ours, SyncBatchNorm)
    x, d_y = torch.randn(2, *shape)
    for a, b in zip(run(ours, x, d_y), run(theirs, x, d_y), strict=True):
        assert torch.equal(a, b)
    assert torch.equal(ours.eval()(x), theirs.eval()(x))


@pytest.mark.parametrize("momentum", [0.1, None])
def test_rows_beyond_the_valid_ones_are_normalized_but_not_counted(momentum):
    theirs = nn.BatchNorm2d(3, momentum=momentum).double()
    ours = synchronize(copy.deepcopy(theirs))
    x = 1000 + torch.randn(7, 3, 2, 4, dtype=torch.float64)
    d_y = torch.randn_like(x)
    d_y[5:] = 0  # what padding is worth to the loss
    set_valid_rows(ours, 5)
    for _ in range(2):
        padded, truth = run(ours, x, d_y), run(theirs, x[:5], d_y[:5])
        torch.testing.assert_close(padded[0][:5], truth[0], rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(padded[1][:5], truth[1], rtol=1e-10, atol=1e-10)
        for a, b in zip(padded[2:], truth[2:], strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)
    assert padded[1][5:].eq(0).all()


def test_no_valid_row_leaves_the_running_statistics():
    norm = synchronize(nn.BatchNorm1d(3))
    set_valid_rows(norm, 0)
    assert norm(torch.randn(4, 3)).isfinite().all()
    assert norm.running_mean.eq(0).all()
    assert norm.running_var.eq(1).all()
    assert norm.num_batches_tracked == 0


def test_synchronize_keeps_objects_names_modes_and_sharing():
    shared = nn.BatchNorm1d(4)
    model = nn.Sequential(nn.Linear(4, 4), shared, nn.Sequential(shared, nn.BatchNorm1d(4, affine=False)))
    model[2].eval()
    names, parameters = list(model.state_dict()), list(model.parameters())
    assert synchronize(model) is model
    assert list(model.state_dict()) == names
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    assert model[1] is model[2][0]
    assert isinstance(model[2][1], SyncBatchNorm)
    assert not model[2][1].training
    assert copy.deepcopy(model)(torch.randn(3, 4)).shape == (3, 4)


def test_bfloat16_keeps_its_dtype_and_float32_statistics():
    norm = synchronize(nn.BatchNorm1d(2))
    set_valid_rows(norm, 3)
    x = torch.randn(4, 2).bfloat16()
    assert norm(x).dtype == torch.bfloat16
    torch.testing.assert_close(norm.running_mean, 0.1 * x[:3].float().mean(dim=0))


WORKER = """
import copy, torch
from torch import nn
from torchstone.core import ranks
from torchstone.nn import set_valid_rows, synchronize

ranks.start(torch.device("cpu"))
close = dict(rtol=1e-12, atol=1e-12)
for kind, tail in ((nn.BatchNorm1d, ()), (nn.BatchNorm2d, (3, 2))):
    for shares in ((4, 4), (5, 3), (8, 0)):
        for padding in (0, 2):
            torch.manual_seed(0)
            theirs = kind(6).double()
            nn.init.normal_(theirs.weight)
            ours = synchronize(copy.deepcopy(theirs))
            own = slice(0, shares[0]) if ranks.rank() == 0 else slice(shares[0], 8)
            for step in range(2):
                joined, d_y = torch.randn(2, 8, 6, *tail, dtype=torch.float64)
                joined = (joined + 50).requires_grad_()
                x = torch.cat([joined.detach()[own], torch.zeros(padding, 6, *tail, dtype=torch.float64)]).requires_grad_()
                set_valid_rows(ours, shares[ranks.rank()] if padding else None)
                truth, y = theirs(joined), ours(x)
                truth.backward(d_y)
                y.backward(torch.cat([d_y[own], torch.zeros(padding, 6, *tail, dtype=torch.float64)]))
                rows = shares[ranks.rank()]
                torch.testing.assert_close(y[:rows], truth[own], **close)
                torch.testing.assert_close(x.grad[:rows], joined.grad[own], **close)
                assert x.grad[rows:].eq(0).all()
            torch.testing.assert_close(ranks.sum_(ours.weight.grad.clone()), theirs.weight.grad, **close)
            torch.testing.assert_close(ranks.sum_(ours.bias.grad.clone()), theirs.bias.grad, **close)
            for name, buffer in theirs.named_buffers():
                torch.testing.assert_close(ours.get_buffer(name), buffer, **close)
            joined = torch.randn(8, 6, *tail, dtype=torch.float64)
            torch.testing.assert_close(ours.eval()(joined), theirs.eval()(joined), **close)
ranks.stop()
"""


def test_two_ranks_equal_one_joined_batch_for_even_uneven_and_empty_shares():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launched = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    workers = [
        subprocess.Popen([sys.executable, "-c", WORKER], env={**os.environ, **launched, "RANK": str(r), "LOCAL_RANK": str(r)})
        for r in range(2)
    ]
    try:
        assert [worker.wait(timeout=90) for worker in workers] == [0, 0]
    finally:
        for worker in workers:
            worker.kill()
