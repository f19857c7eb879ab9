"""From a method to a state: recomputed blocks, compiled models, streams and memory."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from laws.cases import CONV, GPT, NOISY, STILL, all_tensors, differing, ready, steady, trained
from torchstone.data import Flip, Mixup
from torchstone.losses import L2
from torchstone.optim import SAM
from torchstone.train.build import recompute_blocks, streams
from torchstone.train.method import Method
from train.small import ENVIRONMENT


@pytest.mark.parametrize("model", [CONV, replace(CONV, drop_path=0.3, blocks_per_stage=2), GPT], ids=["conv_net", "drop_path", "gpt"])
@pytest.mark.parametrize("method", [NOISY, replace(NOISY, gradient=SAM())], ids=["backprop", "sam"])
def test_recomputing_changes_no_bit(model, method: Method, tmp_path: Path) -> None:
    """Neither weights nor averages nor moments; batch-norm statistics move once, dropout draws the same numbers twice."""
    usual = trained(method, tmp_path / "a", model, microbatch_size=3)
    recomputed = trained(method, tmp_path / "b", model, microbatch_size=3, activation_checkpointing=True)
    assert differing(all_tensors(usual), all_tensors(recomputed)) == []
    assert steady(usual) == steady(recomputed)


class Counted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear, self.calls = nn.Linear(3, 3), 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.linear(x).relu()


class Blocks(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Counted() for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x)
        return x


def test_blocks_run_again_in_the_backward_pass_only() -> None:
    model = Blocks()
    recompute_blocks(model)
    model(torch.ones(2, 3)).sum().backward()
    assert [block.calls for block in model.blocks] == [2, 2, 2]
    with torch.no_grad():
        model(torch.ones(2, 3))
    assert [block.calls for block in model.blocks] == [3, 3, 3]
    assert list(model.state_dict()) == list(Blocks().state_dict())


def test_less_is_kept_for_the_backward_pass() -> None:
    """What autograd saves outside the blocks: their inputs alone."""

    def saved(model: nn.Module) -> int:
        kept: list[torch.Tensor] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
            model(torch.ones(64, 3, requires_grad=True))
        return sum(tensor.numel() for tensor in kept)

    usual, recomputed = Blocks(), Blocks()
    recompute_blocks(recomputed)
    assert saved(recomputed) < saved(usual)


def test_a_model_without_blocks_is_refused() -> None:
    with pytest.raises(ValueError, match=r"run\.activation_checkpointing: Linear has no list of blocks to recompute; set it to false"):
        recompute_blocks(nn.Linear(2, 2))


def test_streams_are_named_by_kind_so_that_a_neighbor_changes_nothing() -> None:
    assert streams(Method(batch_transforms=(Flip(), Mixup(), Flip()))) == ("batch/flip/0", "batch/mixup/0", "batch/flip/1")
    assert streams(Method(batch_transforms=(Mixup(), Flip()))) == ("batch/mixup/0", "batch/flip/0")


def test_the_state_at_step_0(tmp_path: Path) -> None:
    prepared = ready(replace(NOISY, penalties=(L2(strength=0.1),)))
    weights = {name: tensor.clone() for name, tensor in prepared.model.state_dict().items()}
    state = trained(prepared.experiment.method, tmp_path, steps=0)
    assert state.step == state.updates == 0 and state.model.training
    assert differing({**state.model.state_dict()}, weights) == []
    assert differing({**state.average.module.state_dict()}, weights) == []
    assert state.evaluated is state.average.module
    own = {id(tensor) for tensor in state.model.state_dict(keep_vars=True).values()}
    assert not own & {id(tensor) for tensor in state.average.module.state_dict(keep_vars=True).values()}


def test_the_loss_scale_is_for_fp16_alone(tmp_path: Path) -> None:
    assert trained(STILL, tmp_path, steps=0).scale is None
    assert trained(STILL, tmp_path, steps=0, precision="bf16").scale is None
    assert trained(STILL, tmp_path, steps=0, precision="fp16").scale.scale == 2.0**16


@pytest.mark.slow
def test_a_compiled_model_learns_the_same(tmp_path: Path) -> None:
    """In a process without annotation checks: inside a compiled region they would be compiled too."""
    program = f"""
import torch, torchstone
edits = ["model.hidden=[8,8]", "run.steps=12", "run.batch_size=256", "run.threads=1", "trackers=[]"]
made = [torchstone.train(torchstone.recipes.digits_mini(), *edits, f"run.compile={{word}}", out={str(tmp_path)!r} + "/" + word)
        for word in ("false", "true")]
a, b = [run.metrics["final"]["loss"] for run in made]
assert abs(a - b) < 1e-4 * a, (a, b)
keys = [torchstone.load(run.folder).model.state_dict().keys() for run in made]
assert keys[0] == keys[1]
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, env=ENVIRONMENT)
    if "compiler" in done.stderr.lower() and done.returncode:
        pytest.skip("no C++ compiler on this machine")
    assert done.returncode == 0, done.stderr
