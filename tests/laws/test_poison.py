"""Law: randomness is an argument. Nothing reads or moves a global random generator but the step, which seeds torch's own for model noise.

Poisoned twice over: the global states are compared before and after, and whatever draws from them gives other numbers the second time.
"""

import ast
import random as python_random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import torchstone
from laws import cases
from laws.cases import NOISY, Part, all_tensors, begin, parts_of, put_in, raw, ready
from torchstone import data
from torchstone.data import AddNoise, Flip, Mixup
from torchstone.experiment import prepare, train_experiment
from torchstone.train import checkpoint
from torchstone.train.loop import fit, look, save, updates
from torchstone.train.signals import Request
from torchstone.train.step import train_step


def generators() -> dict[str, bytes]:
    """The state of every global generator but Python's own, from which beartype draws in the test run (see the last test)."""
    name, keys, *rest = np.random.get_state()
    return {"torch": raw(torch.get_rng_state()), "numpy": keys.tobytes() + repr((name, rest)).encode()}


@contextmanager
def untouched(*but: str) -> Iterator[None]:
    """Nothing inside moves a global generator, except those named."""
    before = generators()
    yield
    after = generators()
    assert [name for name in before if before[name] != after[name] and name not in but] == []


@pytest.mark.parametrize("workers", [0, 2])
def test_loading_and_building(workers: int, tmp_path: Path) -> None:
    method = replace(NOISY, sample_transforms=(AddNoise(),), batch_transforms=(Flip(), Mixup()))
    made = ready(method, workers=workers)
    with untouched():
        job, _ = begin(ready(method, workers=workers), tmp_path)
        assert len(list(updates(job, 0))) == 9
        assert made.experiment == job_experiment(made)


def job_experiment(made: Any) -> Any:
    """Prepared anew: opening data and building the model are pure as well."""
    return prepare(made.experiment).experiment


@pytest.mark.parametrize("part", cases.METHOD_PARTS + parts_of("model"), ids=str)
def test_a_step_moves_torch_alone(part: Part, tmp_path: Path) -> None:
    method = put_in(NOISY, part, part.make(tmp_path)) if part.seat in cases.SEATS else NOISY
    job, state = begin(ready(method, {"gpt": cases.GPT, "mlp": cases.MLP}.get(part.kind, cases.CONV)), tmp_path)
    for epoch, batches in updates(job, 0):
        with untouched("torch"):
            train_step(state, batches, job.method, job.setting, epoch)


@pytest.mark.parametrize("part", parts_of("data"), ids=str)
def test_opening(part: Part, tmp_path: Path) -> None:
    with untouched():
        part.make(tmp_path).open()


@pytest.mark.parametrize("model", [cases.CONV, cases.MLP, cases.GPT], ids=["conv_net", "mlp", "gpt"])
def test_evaluating_saving_and_tracking(model: Any, tmp_path: Path) -> None:
    job, state = begin(ready(replace(NOISY, sample_transforms=(AddNoise(),) if model is not cases.GPT else ()), model), tmp_path)
    reports = cases.advance(job, state, 2)
    (tmp_path / "run").mkdir()
    with untouched():
        trackers = [part.cls().open(tmp_path / "run") for part in parts_of("trackers")]
        for tracker in trackers:
            tracker.start({"total": 9, "step": 0, "folder": str(tmp_path)})
            tracker.step(reports[0])
        look(job, state, trackers)
        save(job, state)
        found = checkpoint.newest_good(tmp_path)
        assert found is not None
        checkpoint.restore(state, found[1], found[2], found[0])
        for tracker in trackers:
            tracker.close()


def test_generating_text(tmp_path: Path) -> None:
    job, state = begin(ready(NOISY, cases.GPT), tmp_path)
    state.model.eval()
    with untouched():
        state.model.generate(torch.tensor([[1, 2]]), 5, temperature=1.0, key=3)  # type: ignore[operator]


def test_other_global_states_give_the_same_run(tmp_path: Path) -> None:
    """Poison between all steps: the outcome does not depend on what the generators held."""

    class Poison(cases.StopAt):
        def step(self, report: Any) -> None:
            torch.manual_seed(report.step + 1000)
            np.random.seed(report.step)
            python_random.seed(report.step)

        evaluation = step

    ends = []
    before = torch.get_rng_state()
    try:
        for number, watchers in enumerate(([], [Poison(-1, Request())])):
            torch.manual_seed(number)
            job, state = begin(ready(replace(NOISY, batch_transforms=(Mixup(),)), workers=2 * number), tmp_path / str(number))
            fit(job, state, watchers, Request())
            ends.append({name: raw(tensor) for name, tensor in all_tensors(state).items()})
    finally:
        torch.set_rng_state(before)
    assert ends[0] == ends[1]


def test_the_verb_leaves_all_generators_as_they_were(tmp_path: Path) -> None:
    experiment = replace(ready(NOISY).experiment, data=data.Digits(), model=cases.MLP)
    with untouched():
        train_experiment(experiment, "run.steps=2", "run.batch_size=32", out=tmp_path / "run")


def test_a_draw_is_seen() -> None:
    with pytest.raises(AssertionError), untouched("torch"):
        np.random.rand()
    with pytest.raises(AssertionError), untouched():
        torch.rand(1)


def test_no_source_file_names_a_global_generator() -> None:
    """Python's `random` is imported nowhere; of `numpy.random` only what is seeded by its argument is used; torch's by the step."""
    found = []
    root = Path(torchstone.__file__).parent
    for path in sorted(root.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            where = f"{path.relative_to(root)}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Import) and any(name.name == "random" for name in node.names):
                found.append(f"{where} import random")
            if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module in ("random", "numpy.random"):
                found.append(f"{where} from {node.module}")
            if isinstance(node, ast.Attribute):
                text = ast.unparse(node)
                if text.startswith(("np.random.", "numpy.random.")) and node.attr not in ("Generator", "Philox"):
                    found.append(f"{where} {text}")
                if text in (
                    "torch.manual_seed",
                    "torch.seed",
                    "torch.set_rng_state",
                    "torch.cuda.manual_seed",
                    "torch.cuda.manual_seed_all",
                ):
                    found.append(f"{where} {text}")
                if node.attr == "default_generator" and path.relative_to(root).as_posix() not in ("train/step.py", "models/building.py"):
                    found.append(f"{where} {text}")
    assert found == []
