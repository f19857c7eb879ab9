"""Norms against NumPy in float64 and PyTorch; the synchronized ones against the joined batch."""

import copy
import os
import socket
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from torchstone.core.errors import UserError
from torchstone.nn import (
    NORMS,
    FrozenBatchNorm,
    SwitchableNorm,
    SyncBatchNorm,
    freeze_batch_norm,
    norm_layer,
    set_valid_rows,
    synchronize,
    token_norm,
    zero_branch,
)
from torchstone.nn.norm import ABOUT, groups_of

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

# Switchable norm: two ranks against one that holds the whole batch.
from torchstone.nn import SwitchableNorm
torch.manual_seed(0)
whole = SwitchableNorm(6, 2).double()
nn.init.normal_(whole.mean_weight)
nn.init.normal_(whole.var_weight)
share = synchronize(copy.deepcopy(whole))
joined, d_y = torch.randn(2, 8, 6, 3, 2, dtype=torch.float64)
own = slice(0, 5) if ranks.rank() == 0 else slice(5, 8)
joined.requires_grad_()
x = joined.detach()[own].requires_grad_()
truth, y = whole(joined), share(x)
truth.backward(d_y)
y.backward(d_y[own])
torch.testing.assert_close(y, truth[own], **close)
torch.testing.assert_close(x.grad, joined.grad[own], **close)
for name, parameter in whole.named_parameters():
    torch.testing.assert_close(ranks.sum_(share.get_parameter(name).grad.clone()), parameter.grad, **close)
for name, buffer in whole.named_buffers():
    torch.testing.assert_close(share.get_buffer(name), buffer, **close)
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
        assert [worker.wait(timeout=240) for worker in workers] == [0, 0]
    finally:
        for worker in workers:
            worker.kill()


AXES = {"batch": (0, 2, 3), "layer": (1, 2, 3), "instance": (2, 3)}


def by_hand(x, mean, var, eps=1e-5):
    return (x - mean) / np.sqrt(var + eps)


@pytest.mark.parametrize("name", NORMS)
def test_images_against_numpy(name):
    torch.manual_seed(0)
    norm = norm_layer(name, 12, 2).double()
    x = 3 + 2 * torch.randn(5, 12, 4, 3, dtype=torch.float64)
    a = x.numpy()
    stats = {key: (a.mean(axis=axes, keepdims=True), a.var(axis=axes, keepdims=True)) for key, axes in AXES.items()}
    if name in AXES:
        expected = by_hand(a, *stats[name])
    elif name == "group":
        parts = a.reshape(5, 6, 2, 4, 3)  # the most groups that divide 12 and have two channels
        expected = by_hand(parts, parts.mean(axis=(2, 3, 4), keepdims=True), parts.var(axis=(2, 3, 4), keepdims=True)).reshape(a.shape)
    elif name == "rms":
        expected = a / np.sqrt((a**2).mean(axis=(1, 2, 3), keepdims=True) + 1e-5)
    elif name == "switchable":
        norm.mean_weight.data, norm.var_weight.data = torch.tensor([0.3, -1.0, 0.5]), torch.tensor([1.0, 0.0, -0.5])
        norm.double()
        w, v = (np.exp(p.detach().numpy()) / np.exp(p.detach().numpy()).sum() for p in (norm.mean_weight, norm.var_weight))
        means, variances = zip(*(stats[key] for key in ("instance", "layer", "batch")), strict=True)
        mixed = [sum(k * each for k, each in zip(share, of, strict=True)) for share, of in ((w, means), (v, variances))]
        expected = by_hand(a, *mixed)
    else:
        expected = a / np.sqrt(1 + 1e-5) if name == "frozen_batch" else a
    np.testing.assert_allclose(norm(x).detach().numpy(), expected, rtol=1e-10, atol=1e-10)
    affine = norm_layer(name, 12, 2)
    if getattr(affine, "weight", None) is not None:
        affine.weight.data.fill_(2.0)
        torch.testing.assert_close(affine.double()(x), 2 * norm_layer(name, 12, 2).double()(x))


@pytest.mark.parametrize("name", [name for name in NORMS if name != "none"])
@pytest.mark.parametrize("shape", [(4, 6), (3, 6, 5), (3, 6, 2, 3)])
def test_gradients_by_finite_differences(name, shape):
    if name == "instance" and len(shape) == 2:
        with pytest.raises(UserError, match="one number there"):
            norm_layer(name, 6, 0)
        return
    torch.manual_seed(0)
    norm = norm_layer(name, 6, len(shape) - 2).double()
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(norm, x)
    assert norm(x[:0]).shape == (0, *shape[1:])


def test_switchable_with_all_weight_on_one_is_that_one():
    torch.manual_seed(0)
    x = torch.randn(6, 8, 5, 4)
    for number, other in enumerate(("instance", "layer", "batch")):
        norm, theirs = SwitchableNorm(8, 2), norm_layer(other, 8, 2)
        for weights in (norm.mean_weight, norm.var_weight):
            weights.data.fill_(-1e9)[number] = 0.0
        torch.testing.assert_close(norm(x), theirs(x), rtol=1e-4, atol=1e-5)
        if other == "batch":
            torch.testing.assert_close(norm.running_mean, theirs.running_mean)
            torch.testing.assert_close(norm.running_var, 0.9 + 0.1 * x.var(dim=(0, 2, 3), correction=0))
            norm.running_var.copy_(theirs.running_var)
            torch.testing.assert_close(norm.eval()(x), theirs.eval()(x), rtol=1e-4, atol=1e-5)


def test_switchable_padding_does_not_count():
    norm = SwitchableNorm(3, 2)
    whole = copy.deepcopy(norm)
    x = torch.randn(6, 3, 2, 2)
    set_valid_rows(norm, 4)
    torch.testing.assert_close(norm(x)[:4], whole(x[:4]))
    torch.testing.assert_close(norm.running_var, whole.running_var)
    set_valid_rows(norm, 0)
    before = norm.running_mean.clone()
    assert norm(x).isfinite().all()
    assert torch.equal(norm.running_mean, before)


@pytest.mark.parametrize("affine", [True, False])
def test_freezing_a_batch_norm_keeps_what_it_computes(affine):
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4, affine=affine))
    for _ in range(3):
        model(torch.randn(8, 2, 6, 6))
    x = torch.randn(3, 2, 6, 6)
    expected = model.eval()(x)
    frozen = freeze_batch_norm(copy.deepcopy(model)).train()
    torch.testing.assert_close(frozen(x), expected)
    assert isinstance(frozen[1], FrozenBatchNorm) and not list(frozen[1].parameters())
    frozen[1].load_state_dict(model[1].state_dict(), strict=affine)
    with pytest.raises(UserError, match="cannot be frozen"):
        freeze_batch_norm(nn.Sequential(SwitchableNorm(3, 2)))


@pytest.mark.parametrize("name", NORMS)
def test_tokens(name):
    x = torch.randn(3, 5, 32, dtype=torch.float64)
    norm = token_norm(name, 32).double()
    y = norm(x)
    assert y.shape == x.shape
    changed = x.clone()
    changed[:, 3:] += torch.randn(3, 2, 32, dtype=torch.float64)
    sees_later = not torch.allclose(norm(changed)[:, :3], y[:, :3])
    assert sees_later == (name in ("batch", "instance", "switchable"))
    if name == "group":
        torch.testing.assert_close(y, nn.functional.group_norm(x.flatten(0, 1), 2).view(x.shape))


def test_groups_divide_the_channels():
    assert [groups_of(c, 2) for c in (1, 2, 3, 64, 96, 100, 17, 128)] == [1, 1, 1, 32, 32, 25, 1, 32]
    assert [groups_of(c, 16) for c in (15, 32, 120, 512, 1024)] == [1, 2, 6, 32, 32]


def test_a_branch_starts_at_zero_by_what_it_has():
    for name in NORMS:
        conv, norm = nn.Conv2d(3, 4, 3), norm_layer(name, 4, 2)
        nn.init.zeros_(conv.bias)
        zero_branch(norm, conv)
        assert norm(conv(torch.randn(2, 3, 5, 5))).eq(0).all()
        assert conv.weight.eq(0).all() == (name in ("none", "frozen_batch"))


def test_instance_norm_needs_more_than_one_position():
    with pytest.raises(UserError, match="channels of one position"):
        norm_layer("instance", 3, 2)(torch.zeros(2, 3, 1, 1))


def test_the_table_holds_every_norm():
    assert set(ABOUT) == set(NORMS)
