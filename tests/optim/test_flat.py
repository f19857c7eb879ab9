"""FlatParameters: the model keeps its values, every gradient lands in one buffer, names stay the keys."""

import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import torchstone
from torchstone.core.errors import UserError
from torchstone.core.protocols import Group
from torchstone.optim import NoDecay
from torchstone.optim.flat import ALIGNMENT, FlatParameters


def conv_net(dtype: torch.dtype = torch.float32) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.Conv2d(5, 5, 3), nn.BatchNorm2d(5), nn.Flatten(), nn.Linear(5 * 4 * 4, 7)
    ).to(dtype)


def images(dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(1)).to(dtype)


def gradients_of(model: nn.Module, inputs: torch.Tensor) -> dict[str, torch.Tensor]:
    model(inputs).float().square().mean().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("channels_last", [False, True])
def test_values_gradients_and_buffers_are_the_models(dtype, channels_last):
    model = conv_net(dtype)
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
    plain = copy.deepcopy(model)
    flat = FlatParameters(model)
    for (name, p), q in zip(model.named_parameters(), plain.parameters(), strict=True):
        assert torch.equal(p, q) and p.is_contiguous() and torch.equal(flat.view(flat.data, name), q)
    expected = gradients_of(plain, images(dtype))
    flat.zero_grad()
    found = gradients_of(model, images(dtype))
    assert expected.keys() == found.keys() == set(flat.names)
    for name, grad in expected.items():
        # bfloat16 kernels round in another order for another memory format
        torch.testing.assert_close(found[name], grad, **({"rtol": 0, "atol": 1e-2} if dtype == torch.bfloat16 else {}))
        assert torch.equal(flat.view(flat.grad, name), found[name])
    for name, buffer in plain.named_buffers():
        torch.testing.assert_close(model.get_buffer(name), buffer)
    flat.check()


def test_slots_are_aligned_and_padding_is_zero():
    flat = FlatParameters(conv_net())
    gradients_of(flat.module, images())
    covered = torch.zeros_like(flat.data)
    for name, view in flat.named(covered).items():
        assert flat.view(flat.data, name).storage_offset() % ALIGNMENT == 0
        view.fill_(1)
    assert 0 < covered.sum() == sum(p.numel() for p in flat) < flat.data.numel()
    assert not flat.data[covered == 0].any() and not flat.grad[covered == 0].any()


def test_groups_are_contiguous_and_cut_in_order():
    flat = FlatParameters(conv_net(), NoDecay()(conv_net()))
    decayed, free = flat.groups
    assert (decayed.start, decayed.stop, free.stop) == (0, free.start, flat.data.numel())
    assert (decayed.decay_scale, free.decay_scale) == (1.0, 0.0)
    assert set(free.names) == {n for n in flat.names if flat.view(flat.data, n).ndim < 2}
    assert [piece.numel() for piece in flat.cut(flat.data)] == [decayed.stop, free.stop - free.start]


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([Group(("0.weight", "0.bias", "0.weight"))], r"0\.weight is in two groups"),
        ([Group(("0.weight",)), Group(("0.weight", "0.bias"))], r"0\.weight is in two groups"),
        ([Group(("0.weight",))], r"0\.bias is in no group"),
        ([Group(("0.weight", "0.bias", "9.weight"))], r"9\.weight, which is no parameter"),
    ],
)
def test_groups_must_be_a_partition(groups, message):
    with pytest.raises(UserError, match=message):
        FlatParameters(nn.Sequential(nn.Linear(2, 2)), groups)


def test_frozen_parameters_stay_out():
    model = conv_net()
    model[0].requires_grad_(False)
    before = model[0].weight.data_ptr()
    flat = FlatParameters(model, NoDecay()(model))
    assert "0.weight" not in flat.names and "0.bias" not in flat.names and model[0].weight.data_ptr() == before
    gradients_of(model, images())
    assert model[0].weight.grad is None


def test_tied_parameters_lie_once_and_stay_tied():
    model = nn.ModuleDict({"tokens": nn.Embedding(11, 4), "blocks": nn.Linear(4, 4), "head": nn.Linear(4, 11, bias=False)})
    model["head"].weight = model["tokens"].weight
    flat = FlatParameters(model)
    assert flat.names.count("tokens.weight") == 1 and "head.weight" not in flat.names
    assert model["head"].weight is model["tokens"].weight
    assert [path for path, _ in flat.owners("tokens.weight")] == ["tokens", "head"]
    flat.data.zero_()
    assert not model["head"].weight.any()
    assert [stack.names for stack in flat.stacks] == [("blocks.weight",)]


def test_memory_shared_by_two_parameters_is_refused():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight.data = model[0].weight.data
    with pytest.raises(UserError, match=r"0\.weight and 1\.weight share memory"):
        FlatParameters(model)


def test_what_cannot_lie_together_is_refused():
    with pytest.raises(UserError, match=r"1\.weight is torch\.float64, but 0\.weight is torch\.float32"):
        FlatParameters(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2).double()))
    with pytest.raises(UserError, match="no parameter to train"):
        FlatParameters(nn.Linear(2, 2).requires_grad_(False))
    with pytest.raises(UserError, match=r"0\.weight is on meta|1\.weight is on meta"):
        FlatParameters(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2, device="meta")))
    with pytest.raises(UserError, match="weight has no shape yet"):
        FlatParameters(nn.LazyLinear(2))


def test_a_memory_is_saved_and_loaded_by_name():
    first, second = FlatParameters(conv_net()), FlatParameters(conv_net(), NoDecay()(conv_net())[::-1])
    memory = torch.zeros_like(first.data)
    for i, view in enumerate(first.named(memory).values()):
        view.fill_(i + 1)
    other = torch.zeros_like(second.data)
    assert list(first.names) != list(second.names)
    second.load(other, first.named(memory))
    for name in first.names:
        assert torch.equal(first.view(memory, name), second.view(other, name))


def test_load_is_strict_and_writes_nothing_on_error():
    flat = FlatParameters(conv_net())
    good = {name: torch.ones_like(view) for name, view in flat.named(flat.data).items()}
    memory = torch.zeros_like(flat.data)
    for bad, message in [
        ({k: v for k, v in good.items() if k != "3.weight"}, r"3\.weight is missing"),
        ({**good, "extra": torch.ones(1)}, "extra is to be loaded"),
        ({**good, "3.weight": torch.ones(5, 45)}, r"3\.weight has shape \[5, 5, 3, 3\], the tensor to load \[5, 45\]"),
    ]:
        with pytest.raises(UserError, match=message):
            flat.load(memory, bad)
        assert not memory.any()
    flat.load(memory, good)
    assert memory.sum() == sum(p.numel() for p in flat)


def test_state_dict_goes_through_the_views():
    flat, source = FlatParameters(conv_net()), conv_net(torch.float64)
    flat.module.load_state_dict({k: v * 2 for k, v in source.state_dict().items()})
    flat.check()
    assert torch.equal(flat.view(flat.data, "6.weight"), (source[6].weight * 2).float())


def test_zero_grad_zeroes_and_puts_replaced_gradients_right():
    flat = FlatParameters(conv_net())
    gradients_of(flat.module, images())
    assert flat.grad.any()
    flat.module.zero_grad(set_to_none=True)
    flat.module[6].weight.grad = torch.ones_like(flat.module[6].weight)
    with pytest.raises(AssertionError, match=r"0\.weight left the flat gradient|gradient of"):
        flat.check()
    flat.zero_grad()
    flat.check()
    assert not flat.grad.any()
    expected = gradients_of(conv_net(), images())
    gradients_of(flat.module, images())
    for name, grad in expected.items():
        torch.testing.assert_close(flat.view(flat.grad, name), grad)


def test_check_finds_a_model_that_was_cast():
    flat = FlatParameters(conv_net())
    flat.module.double()
    with pytest.raises(AssertionError, match="left the flat data"):
        flat.check()


def test_norm_is_the_norm_of_all_gradients():
    model = conv_net()
    flat = FlatParameters(model)
    gradients_of(model, images())
    torch.testing.assert_close(flat.norm(), nn.utils.get_total_norm([p.grad for p in model.parameters()]))
    flat = FlatParameters(conv_net(torch.bfloat16))
    assert flat.norm().dtype == torch.float32


def test_stacks_read_equal_hidden_matrices_in_place():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens = nn.Embedding(6, 6)
            self.blocks = nn.ModuleList(
                nn.ModuleDict({"up": nn.Linear(6, 3), "mix": nn.Linear(6, 6), "conv": nn.Conv1d(2, 3, 3)}) for _ in range(3)
            )
            self.head = nn.Linear(6, 6)

    flat = FlatParameters(Net())
    stacks = {stack.names[0]: stack for stack in flat.stacks}
    up = tuple(name for i in range(3) for name in (f"blocks.{i}.up.weight", f"blocks.{i}.conv.weight"))  # both 3 x 6 once flattened
    assert {stack.names for stack in flat.stacks} == {up, tuple(f"blocks.{i}.mix.weight" for i in range(3))}
    assert stacks["blocks.0.up.weight"].shape == (6, 3, 6) and stacks["blocks.0.mix.weight"].shape == (3, 6, 6)
    for stack in flat.stacks:
        for name, matrix in zip(stack.names, stack.view(flat.data), strict=True):
            assert torch.equal(matrix, flat.view(flat.data, name).flatten(1))
    covered = torch.zeros_like(flat.data)
    for stack in flat.stacks:
        stack.view(covered).add_(1)
    for _, start, stop in flat.outside_stacks:
        covered[start:stop] += 1
    for view in flat.named(covered).values():
        assert (view == 1).all()


@pytest.mark.parametrize("flat_buffers", [True, False])
def test_twin_has_the_same_layout_and_shares_nothing(flat_buffers):
    flat = FlatParameters(conv_net(), NoDecay()(conv_net()), flat_buffers=flat_buffers)
    twin = flat.twin()
    twin.check()
    assert list(twin.names) == list(flat.names) and torch.equal(twin.data, flat.data) and twin.data.data_ptr() != flat.data.data_ptr()
    assert not twin.module.training and flat.module.training and not any(p.requires_grad for p in twin.module.parameters())
    twin.data.zero_()
    for buffer in twin.module.buffers():
        buffer.fill_(9)
    assert flat.data.any() and not any((b == 9).all() for b in flat.module.buffers())
    assert (twin.buffers is not None) == flat_buffers
    flat.check()


def test_buffers_lie_in_one_tensor_and_unsaved_ones_stay():
    model = conv_net()
    model.register_buffer("rate", torch.tensor(0.5), persistent=False)
    flat = FlatParameters(model)
    assert flat.buffers is not None and list(flat.float_buffers) == [
        f"{i}.{name}" for i in (1, 4) for name in ("running_mean", "running_var")
    ]
    assert list(flat.other_buffers) == ["1.num_batches_tracked", "4.num_batches_tracked"]
    flat.buffers.fill_(3)
    assert (model[4].running_var == 3).all() and model.rate == 0.5


def test_buffers_of_two_dtypes_stay_where_they_are():
    model = conv_net()
    model[4].double()
    model[4].weight.data, model[4].bias.data = model[4].weight.data.float(), model[4].bias.data.float()
    flat = FlatParameters(model)
    assert flat.buffers is None and len(flat.float_buffers) == 4


@pytest.mark.slow
@pytest.mark.parametrize("flat_buffers", [True, False])
def test_gradients_and_statistics_land_in_the_buffers_under_compile(flat_buffers):
    torch.compiler.reset()
    model = conv_net()
    flat = FlatParameters(model, flat_buffers=flat_buffers)
    compiled, plain = torch.compile(model), conv_net()
    target = torch.arange(6)
    for _ in range(3):
        plain.zero_grad()
        flat.zero_grad()
        cross_entropy(plain(images()), target).backward()
        cross_entropy(compiled(images()), target).backward()
        flat.check()
        for name, p in plain.named_parameters():
            torch.testing.assert_close(flat.view(flat.grad, name), p.grad, rtol=1e-4, atol=1e-5)
        for name, buffer in plain.named_buffers():
            torch.testing.assert_close(model.get_buffer(name), buffer)
        with torch.no_grad():
            flat.data.add_(flat.grad, alpha=-0.1)
            for p in plain.parameters():
                p.add_(p.grad, alpha=-0.1)


@pytest.mark.parametrize("world", [1, 2])
def test_gradients_land_in_the_buffer_under_ddp(world, tmp_path):
    script = Path(__file__).with_name("ddp_gradients.py")
    environment = {**os.environ, "PYTHONPATH": str(Path(torchstone.__file__).parents[1])}
    commands = [[sys.executable, str(script), str(rank), str(world), str(tmp_path / "rendezvous")] for rank in range(world)]
    ranks = [subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) for command in commands]
    try:
        for rank in ranks:
            _, stderr = rank.communicate(timeout=240)
            assert rank.returncode == 0, stderr
    finally:
        for rank in ranks:
            rank.kill()
