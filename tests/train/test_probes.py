"""The probes collect what is there, in the same places whenever the run is repeated, and change nothing."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from laws.cases import CONV, GPT, MLP, NOISY, PLAIN, all_tensors, begin, raw, ready
from torchstone.core.protocols import Inside, InsideTracker, StepReport, Tracker
from torchstone.experiment import train_experiment
from torchstone.models import MLPConfig
from torchstone.models.vision.vit import VITConfig
from torchstone.optim import SAM
from torchstone.optim.flat import FlatParameters
from torchstone.recipes import digits_mini
from torchstone.train import checkpoint, origin
from torchstone.train.loop import fit, inside
from torchstone.train.signals import Request
from torchstone.train.trackers import Probes
from torchstone.train.trackers.activations import Activations, dead_share, moments, saturated_share
from torchstone.train.trackers.probes import in_order
from train.small import MLP as SHORT
from train.small import train


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "probes.jsonl").read_text().splitlines()]


def steady(folder: Path) -> list[dict[str, Any]]:
    """The lines without their times."""
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines(folder)]


def fitted(prepared: Any, folder: Path, every: int = 3) -> Any:
    job, state = begin(prepared, folder)
    tracker = Probes(every=every).open(folder)
    tracker.start({"total": job.total})
    try:
        assert fit(job, state, [tracker], Request()) == "done"
    finally:
        tracker.close()
    return state


def test_it_is_a_tracker_that_looks_inside(run_dir: Path) -> None:
    tracker = Probes().open(run_dir)
    assert isinstance(tracker, Tracker) and isinstance(tracker, InsideTracker)
    tracker.close()


def test_the_schedule_is_dense_at_first(run_dir: Path) -> None:
    tracker = Probes(every=20).open(run_dir)
    tracker.start({"total": 107})
    assert [step for step in range(1, 108) if tracker.due(step)] == [1, 2, 4, 8, 16, 20, 40, 60, 80, 100, 107]
    tracker.close()


# --- the numbers -----------------------------------------------------------------------------------------------------


def test_norms_and_the_update_are_those_of_numpy(run_dir: Path) -> None:
    """One step of plain SGD by hand: gradients by autograd, everything else by NumPy."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 3))
    x, target = torch.randn(11, 5), torch.randint(0, 3, (11,))
    gradients = dict(
        zip(dict(model.named_parameters()), torch.autograd.grad(F.cross_entropy(model(x), target), list(model.parameters())), strict=True)
    )
    before = {name: p.detach().numpy().copy() for name, p in model.named_parameters()}
    hidden = np.maximum(x.numpy() @ before["0.weight"].T + before["0.bias"], 0)

    flat = FlatParameters(model)
    tracker = Probes().open(run_dir)
    tracker.inside(Inside(model, flat, lambda: None, False))
    tracker.before(1, 0.25)
    flat.zero_grad()
    F.cross_entropy(model(x), target).backward()
    flat.data.sub_(flat.grad, alpha=0.1)
    tracker.step(StepReport(1, 1.0, 0.5, {}, 11, 0.75))
    tracker.close()

    (line,) = lines(run_dir)
    names = ["0.weight", "2.weight"]
    assert line["layers"]["name"] == names
    rms = lambda array: float(np.sqrt(np.mean(np.square(array, dtype=np.float64))))
    assert line["layers"]["gradient"] == pytest.approx([rms(gradients[name].numpy()) for name in names], rel=1e-5)
    assert line["layers"]["weight"] == pytest.approx([rms(before[name]) for name in names], rel=1e-5)
    assert line["layers"]["update"] == pytest.approx([0.1 * rms(gradients[name].numpy()) / rms(before[name]) for name in names], rel=1e-3)
    assert line["outputs"]["name"] == ["0", "2"]
    assert line["activations"]["name"] == ["1"] and line["activations"]["kind"] == ["relu"]
    assert line["activations"]["mean"] == pytest.approx([hidden.mean()], rel=1e-5)
    assert line["activations"]["std"] == pytest.approx([hidden.std()], rel=1e-4)
    assert line["activations"]["off"] == pytest.approx([(hidden.max(axis=0) == 0).mean()])
    total = math.sqrt(sum(float(np.square(p.detach().numpy(), dtype=np.float64).sum()) for p in model.parameters()))
    assert line["weight_norm"] == pytest.approx(total, rel=1e-5)
    assert line["seconds"] == {"step": 0.75, "wait": 0.25, "idle": None}


@pytest.mark.parametrize("shape", [(9, 4), (9, 4, 3, 2), (9, 5, 4)])
def test_dead_units_and_moments_by_numpy(shape: tuple[int, ...]) -> None:
    """Units in dimension 1 of vectors and maps, in the last of sequences; one of the four is dead."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(shape, generator=generator).relu() + 0.1
    units = 2 if len(shape) == 3 else 1
    x.select(units, 2).zero_()
    assert float(dead_share(x)) == 0.25
    assert moments(x).tolist() == pytest.approx([x.numpy().mean(), x.numpy().std()], rel=1e-5)


def test_saturation_is_a_slope_below_a_hundredth() -> None:
    z = torch.linspace(-12, 12, 4001, dtype=torch.float64)
    assert float(saturated_share("tanh", z.tanh())) == pytest.approx(float((1 - z.tanh() ** 2 < 0.01).double().mean()), abs=2e-3)
    slope = z.sigmoid() * (1 - z.sigmoid())
    assert float(saturated_share("sigmoid", z.sigmoid())) == pytest.approx(float((slope < 0.0099).double().mean()), abs=2e-3)
    rows = torch.tensor([[0.995, 0.005], [0.6, 0.4], [0.0, 1.0], [0.5, 0.5]])
    assert float(saturated_share("softmax", rows)) == 0.5


@pytest.mark.parametrize(
    ("call", "kind"),
    [
        (F.relu, "relu"),
        (torch.relu, "relu"),
        (lambda x: x.relu(), "relu"),
        (nn.ReLU(), "relu"),
        (torch.sigmoid, "sigmoid"),
        (torch.tanh, "tanh"),
        (nn.Tanh(), "tanh"),
        (lambda x: F.softmax(x, dim=-1), "softmax"),
        (F.relu6, "relu6"),
    ],
)
def test_an_activation_is_seen_however_it_is_called(call: Any, kind: str) -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(3, 4)
            self.call = call

        def forward(self, x: Tensor) -> Tensor:
            return call(self.first(x))

    model = Two()
    seen = Activations(model)
    seen.arm()
    x = torch.ones(2, 3)
    model(x)
    model(x)  # the first pass alone is watched
    seen.disarm()
    assert [(name, what) for name, what, _ in seen.activations] == [("call" if isinstance(call, nn.Module) else "first", kind)]
    model(x)
    assert len(seen.activations) == 1 and not model._forward_hooks and not model.first._forward_hooks


def test_a_forward_pass_that_fails_leaves_no_mode_behind() -> None:
    class Fails(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(3, 4)

        def forward(self, x: Tensor) -> Tensor:
            raise RuntimeError("no")

    model = Fails()
    seen = Activations(model)
    seen.arm()
    with pytest.raises(RuntimeError, match="no"):
        model(torch.ones(1, 3))
    torch.relu(torch.ones(2, 2))
    assert seen.activations == [] and not torch.overrides._is_torch_function_mode_enabled()
    seen.disarm()


def test_layers_stand_in_the_order_of_use() -> None:
    layers = ("head.weight", "a.weight", "b.in_proj", "c.weight")
    assert in_order(layers, ["a", "b", "c", "head"]) == ("a.weight", "b.in_proj", "c.weight", "head.weight")
    assert in_order(layers, []) == layers


# --- it reads only ---------------------------------------------------------------------------------------------------

MODELS = {
    "mlp": MLP,
    "conv": CONV,
    "gpt": GPT,
    "vit": VITConfig(patch_size=4, dim=16, depth=2, num_heads=2),
    "sigmoid": MLPConfig(hidden=(6, 6), activation="sigmoid"),
}


@pytest.mark.parametrize("method", [NOISY, replace(PLAIN, gradient=SAM())], ids=["noisy", "sam"])
@pytest.mark.parametrize("model", MODELS)
def test_weights_are_bit_identical_with_and_without(model: str, method: Any, tmp_path: Path) -> None:
    job, state = begin(ready(method, MODELS[model]), tmp_path / "without")
    assert fit(job, state, [], Request()) == "done"
    watched = fitted(ready(method, MODELS[model]), tmp_path / "with", every=2)
    plain, seen = ({name: raw(tensor) for name, tensor in all_tensors(s).items()} for s in (state, watched))
    assert plain == seen
    assert len(lines(tmp_path / "with")) > 4
    for module in watched.model.modules():
        assert not module._forward_hooks and not module._forward_pre_hooks


def test_micro_batches_are_looked_at_once(tmp_path: Path) -> None:
    """The activations are those of the first micro-batch: one entry a layer, however many there are."""
    fitted(ready(PLAIN, MLPConfig(hidden=(9,)), microbatch_size=2), tmp_path)
    assert all(line["outputs"]["name"] == ["hidden.0", "head"] and len(line["activations"]["name"]) == 1 for line in lines(tmp_path))


def test_a_compiled_model_is_never_hooked(tmp_path: Path) -> None:
    """Its flat weights are looked at all the same. (Nothing is compiled here: the tracker is told that it is.)"""
    job, state = begin(ready(PLAIN), tmp_path)
    tracker = Probes().open(tmp_path)
    tracker.inside(replace(inside(job, state), compiled=True))
    tracker.before(1, 0.0)
    assert not any(module._forward_hooks for module in state.model.modules())
    tracker.step(StepReport(1, 1.0, 1.0, {}, 8, 0.1))
    tracker.close()
    (line,) = lines(tmp_path)
    assert line["activations"]["name"] == [] and line["layers"]["weight"]


# --- the file --------------------------------------------------------------------------------------------------------

TRACKED = ("run.trackers=[{kind=probes,every=4}]",)


def test_a_repeated_run_writes_the_same_lines(tmp_path: Path) -> None:
    for name in "ab":
        train(tmp_path / name, *TRACKED)
    assert steady(tmp_path / "a") == steady(tmp_path / "b")
    assert [line["step"] for line in lines(tmp_path / "a")] == [1, 2, 4, 8, 12, 15]


def test_a_resumed_run_writes_the_lines_of_an_uninterrupted_one(tmp_path: Path) -> None:
    train(tmp_path / "whole", *TRACKED)
    train(tmp_path / "cut", *TRACKED)
    run = tmp_path / "cut"
    newest = checkpoint.by_age(run)[0]
    assert newest.name == "step-15"
    for path in newest.iterdir():  # as if the kill had come before it: the lines of its steps are cut back and written again
        path.unlink()
    newest.rmdir()
    (run / "metrics.json").unlink()
    with (run / "probes.jsonl").open("a") as file:
        file.write('{"step": 99, "lay')
    train(run, *TRACKED, resume=True)
    assert steady(run) == steady(tmp_path / "whole")


def test_they_are_on_by_default(tmp_path: Path) -> None:
    train_experiment(digits_mini(), *SHORT[:-1], out=tmp_path / "run")
    assert lines(tmp_path / "run")


def test_a_value_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Probes\.every must be >= 1, got 0"):
        Probes(every=0)


# --- where a number came from ----------------------------------------------------------------------------------------


class Log(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).sub(1e3).log()


def found_in(model: nn.Module, x: Tensor) -> dict[str, Any]:
    search = origin.Search(model)
    with search.watching():
        search.look_at_weights()
        search.look_at_inputs(x)
        out = model(x)
        search.look_at_loss(out)
        out.sum().backward()
    search.look_at_gradients()
    return search.origin or origin.UNKNOWN


def test_the_innermost_module_is_named() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Sequential(nn.ReLU(), Log(3, 3)), nn.Linear(3, 3))
    found = found_in(model, torch.ones(2, 3))
    assert (found["kind"], found["module"], found["type"]) == ("forward", "1.1", "Log")
    assert found["largest_weight"] == pytest.approx(float(max(p.detach().abs().max() for p in model[1][1].parameters())))


def test_a_weight_and_an_input_come_before_every_module() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    assert found_in(model, torch.tensor([[1.0, math.inf, 0.0]]))["kind"] == "input"
    with torch.no_grad():
        model[1].bias[0] = math.nan
    found = found_in(model, torch.ones(1, 3))
    assert (found["kind"], found["module"]) == ("weight", "1.bias")


def test_a_computation_between_modules_is_no_modules_fault() -> None:
    class Between(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.b((self.a(x) * 0).log())

    found = found_in(Between(), torch.ones(1, 3))
    assert (found["kind"], found["module"]) == ("between", "b")


def test_all_finite_is_said() -> None:
    assert found_in(nn.Sequential(nn.Linear(3, 3)), torch.ones(1, 3)) == origin.UNKNOWN
