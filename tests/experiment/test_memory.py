"""A step that does not fit is refused before the run, naming the micro-batch that does."""

import gc
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import torchstone
from torchstone.core.errors import UserError
from torchstone.experiment import memory, prepare
from torchstone.profile import training_memory
from train.small import ENVIRONMENT

MEASURE = """
import sys
from pathlib import Path
import torch, torchstone
from torchstone.experiment import memory, prepare
from torchstone.train.build import build_state
from torchstone.train.loop import updates
from torchstone.train.step import train_step
torch.set_num_threads(1)
def peak():  # of this program alone: what getrusage says is at least what the parent took when it forked
    return next(int(line.split()[1]) * 1024 for line in open('/proc/self/status') if line.startswith('VmHWM'))
prepared = prepare(torchstone.recipes.digits(), "model.widths=[128,128,128]", f"run.batch_size={sys.argv[1]}", "run.threads=1")
job = prepared.job(Path(), {})
state = build_state(prepared.model, job.method, job.run, job.device)
kept, each = memory.activation_bytes(prepared.model, prepared.inputs, job)
epoch, batch = next(updates(job, 0))
before = peak()
train_step(state, batch, job.method, job.setting, epoch)
print(each * int(sys.argv[1]), peak() - before)
"""


def test_what_a_step_takes_is_predicted() -> None:
    """Against the peak of the process: the prediction with its slack covers it, and is not twice as much."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, "1024"], env=ENVIRONMENT | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    predicted, taken = (float(number) for number in done.stdout.split())
    assert taken > 1.5e8  # otherwise this shows nothing
    assert 0.8 * predicted < taken < memory.SLACK * predicted + memory.SCRATCH


def test_the_micro_batch_that_fits() -> None:
    prepared = prepare(torchstone.recipes.digits(), "run.batch_size=512", "batch_transforms=[normalize,mixup]")
    job = prepared.job(Path(), {})
    assert memory.microbatch_that_fits(job, prepared.model, prepared.inputs, 10**12) is None
    kept, each = memory.activation_bytes(prepared.model, prepared.inputs, job)
    own = sum(t.numel() * t.element_size() for t in [*prepared.model.parameters(), *prepared.model.buffers()])
    fixed = 5 * own + kept + memory.SCRATCH
    fits = memory.microbatch_that_fits(job, prepared.model, prepared.inputs, int(fixed + 101.5 * memory.SLACK * each))
    assert fits == 100  # pairs stay together
    assert memory.microbatch_that_fits(job, prepared.model, prepared.inputs, int(fixed)) == 0


def test_what_was_measured_is_freed() -> None:
    """A ReLU keeps its own output for the way back; a copy of it in the measure must not keep the graph, and with it the model's copy."""
    prepared = prepare(torchstone.recipes.digits_mini(), "run.threads=1")
    job = prepared.job(Path(), {})

    def tensors() -> int:
        gc.collect()
        return sum(isinstance(each, torch.Tensor) for each in gc.get_objects())

    before = tensors()
    memory.activation_bytes(prepared.model, prepared.inputs, job)
    training_memory(prepared.model, prepared.inputs, microbatch_size=4, moments=1, averaging=False)
    assert tensors() == before


def test_weights_in_another_precision_do_not_count_as_samples() -> None:
    """Autocast keeps a bf16 copy of every weight, whatever the batch: a sample of bf16 takes less than one of fp32."""
    each = {}
    for precision in ("fp32", "bf16"):
        prepared = prepare(torchstone.recipes.digits(), "model.widths=[64,128,256]", f"run.precision={precision}")
        kept, each[precision] = memory.activation_bytes(prepared.model, prepared.inputs, prepared.job(Path(), {}))
        assert (kept > 1e6) == (precision == "bf16")
    assert each["bf16"] < 0.8 * each["fp32"]


def test_it_is_refused_before_the_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    prepared = prepare(torchstone.recipes.digits())
    _, each = memory.activation_bytes(prepared.model, prepared.inputs, prepared.job(Path(), {}))
    monkeypatch.setattr(memory, "free_memory", lambda: int(100 * each) + memory.SCRATCH + 20_000_000)
    fits = "run.microbatch_size="
    with pytest.raises(UserError, match=f"run.batch_size=1000: a step does not fit in .* {fits}") as error:
        torchstone.train(torchstone.recipes.digits(), "run.batch_size=1000", out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    size = int(str(error.value).split(fits)[1].split()[0])
    prepare(torchstone.recipes.digits(), "run.batch_size=1000", f"run.microbatch_size={size}")


def test_free_memory_is_a_number_of_this_machine() -> None:
    assert 1e8 < memory.free_memory() < 1e14


def test_the_measurement_changes_nothing() -> None:
    prepared = prepare(torchstone.recipes.digits())
    before = {name: tensor.clone() for name, tensor in prepared.model.state_dict().items()}
    generator = torch.random.get_rng_state()
    memory.activation_bytes(prepared.model, prepared.inputs, prepared.job(Path(), {}))
    assert all(torch.equal(tensor, before[name]) for name, tensor in prepared.model.state_dict().items())
    assert torch.equal(generator, torch.random.get_rng_state())
