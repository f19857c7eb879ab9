"""What a batch is divided by, fp16, batch norm and losses (cases 8 to 16).

Bugs that other training systems had, pinned: one test or more a case of `notes/reliability.md`, section 2, by its number. A case that a law
covers whole still has its own short test here, so that a failure says which old mistake came back.
"""

import copy
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from laws import cases
from laws.cases import CONV, GPT, MLP, NOISY, PLAIN, STILL, TinyImages, all_tensors, begin, differing, ready, weights
from torchstone.core.protocols import Batch, History
from torchstone.losses import CrossEntropy, Focal
from torchstone.models import MLPConfig
from torchstone.optim import EMA, SAM, SGD, ClipByNorm, Cosine
from torchstone.train import checkpoint
from torchstone.train.loop import save, updates
from torchstone.train.plan import Plan
from torchstone.train.step import train_step


def token_batch(job: Any, rows: int = 11) -> Batch:
    inputs, target = job.splits.train.fetch(np.arange(rows, dtype=np.int64))
    return Batch(inputs, target, torch.arange(rows), torch.ones(rows))


def cut_batch(batch: Batch, sizes: list[int]) -> list[Batch]:
    parts = [tensor.split(sizes) for tensor in (batch.inputs, batch.target, batch.index, batch.weight)]
    return [Batch(*each) for each in zip(*parts, strict=True)]


def test_08_ragged_micro_batches_are_divided_by_all_their_tokens(tmp_path: Path) -> None:
    model = replace(GPT, dropout=0.0)
    found = []
    for sizes in ([11], [2, 9], [1, 7, 3], [4, 1, 1, 5], [1, 1, 1, 2, 1, 3, 1, 1]):
        job, state = begin(ready(STILL, model), tmp_path, torch.float64)
        batch = token_batch(job)
        counts = [int((part.target != -100).sum()) for part in cut_batch(batch, sizes)]
        assert len(sizes) < 3 or len(set(counts)) > 1
        report = train_step(state, cut_batch(batch, sizes), job.method, job.setting, 0)
        found.append((state.parameters.grad.clone(), report.loss))
    job, state = begin(ready(STILL, model), tmp_path, torch.float64)
    batch = token_batch(job)
    reference = F.cross_entropy(state.model(batch.inputs).flatten(0, 1), batch.target.flatten(), ignore_index=-100)
    for grad, loss in found:
        assert float((grad - found[0][0]).norm() / found[0][0].norm()) < 1e-12
        assert loss == pytest.approx(reference.item(), rel=1e-12)


def test_09_the_divisor_counts_the_terms_of_all_ranks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One rank of two with 4 valid targets, its peer with 1: gradients are added, so each rank divides by 5. (Real ranks: laws, slow.)"""
    from torchstone.train import step

    job, state = begin(ready(STILL, MLPConfig(hidden=(5,))), tmp_path, torch.float64)
    inputs = torch.randn(5, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    whole = Batch(inputs, torch.tensor([0, 1, 2, 0, 1]), torch.arange(5), torch.ones(5))
    train_step(state, [whole], job.method, job.setting, 0)
    joint = state.parameters.grad.clone()
    shares = cut_batch(whole, [4, 1])
    total = torch.zeros_like(joint)
    for mine, other in (shares, shares[::-1]):
        with monkeypatch.context() as patch:
            patch.setattr(
                step.ranks,
                "sum_",
                lambda t, mine=mine, other=other: t + len(other.index) if t.dtype == torch.float64 and t.item() == len(mine.index) else t,
            )
            train_step(state, [mine], job.method, job.setting, 0)
        total += state.parameters.grad
    assert float((total - joint).norm() / joint.norm()) < 1e-12


def test_10_a_short_last_window_is_an_update_of_its_own(tmp_path: Path) -> None:
    """7 micro-batches of 1, 4 an update: 2 updates, the second divided by its own 3, nothing left over for the next epoch."""
    method = replace(PLAIN, optimizer=SGD(lr=0.1, momentum=0.0))
    job, state = begin(ready(method, MLPConfig(hidden=(5,)), TinyImages(train=7), batch_size=4, microbatch_size=1, epochs=2), tmp_path)
    assert job.plan.updates == 2 and job.total == 4
    reference = copy.deepcopy(state.model)
    shapes = []
    for _, batches in updates(job, 0):
        shapes.append([len(batch.index) for batch in batches])
        rows = torch.cat([batch.inputs for batch in batches]), torch.cat([batch.target for batch in batches])
        reference.zero_grad()
        F.cross_entropy(reference(rows[0]), rows[1]).backward()
        train_step(state, batches, job.method, job.setting, 0)
        with torch.no_grad():
            for p in reference.parameters():
                p -= 0.1 * p.grad
    assert shapes == [[1] * 4, [1] * 3] * 2
    for a, b in zip(state.model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("microbatch_size", [None, 1, 3])
def test_11_the_schedule_reads_updates(microbatch_size: int | None, tmp_path: Path) -> None:
    schedule = Cosine(warmup=0.3)
    method = replace(NOISY, schedules=(schedule,))
    job, state = begin(ready(method, MLP, microbatch_size=microbatch_size), tmp_path)
    rates = [report.numbers["optimizer.lr"] for report in cases.advance(job, state, job.total)]
    assert rates == [0.01 * schedule(update, 9, History()) for update in range(9)]
    for world in (1, 2, 3, 8):
        assert Plan(samples=22, batch_size=8, microbatch_size=microbatch_size, world=world).updates == 3


@pytest.mark.parametrize("microbatch_size", [None, 2])
def test_12_the_average_is_the_closed_form_once_an_update(microbatch_size: int | None, tmp_path: Path) -> None:
    decay = 0.7
    method = replace(NOISY, averaging=EMA(decay=decay))
    job, state = begin(ready(method, CONV, microbatch_size=microbatch_size), tmp_path)
    after = []
    for _ in range(6):
        cases.advance(job, state, 1)
        after.append({name: tensor.double().clone() for name, tensor in weights(state).items()})
    shares = [decay ** (5 - i) for i in range(6)]
    average = state.tensors()["average"]
    assert any("running_var" in name for name in average)
    for name, tensor in average.items():
        if tensor.is_floating_point():
            wanted = sum(share * each[name] for share, each in zip(shares, after, strict=True)) / sum(shares)
            torch.testing.assert_close(tensor.double(), wanted, rtol=2e-5, atol=1e-6)
        else:
            assert torch.equal(tensor, weights(state)[name]), "integer buffers are copied"
    assert job.method.averaging == EMA(decay=decay)


# --- fp16 ----------------------------------------------------------------------------------------------------------------

FP16 = replace(NOISY, gradient_transforms=(ClipByNorm(max_norm=0.05),), schedules=(Cosine(warmup=0.0),))
NO_DROPOUT = replace(MLP, dropout=0.0)


def test_13_an_overflow_moves_the_scale_alone(tmp_path: Path) -> None:
    job, state = begin(ready(FP16, MLP, precision="fp16"), tmp_path)
    assert state.scale is not None
    state.scale.scale = 2.0**8
    cases.advance(job, state, 2)
    assert state.updates == 2
    before = {name: tensor.clone() for name, tensor in all_tensors(state).items()}
    state.scale.scale, state.scale.good = 2.0**40, 7
    (report,) = cases.advance(job, state, 1)
    assert math.isfinite(report.loss) and not math.isfinite(report.norm)
    assert differing(all_tensors(state), before) == []
    assert (state.updates, state.step, state.skipped) == (2, 3, [2])
    assert (state.scale.scale, state.scale.good) == (2.0**39, 0)
    assert state.guard.tripped_at is None
    state.scale.scale = 2.0**10
    (after,) = cases.advance(job, state, 1)
    assert after.numbers["optimizer.lr"] == 0.01 * Cosine(warmup=0.0)(2, 9, History()), "the schedule did not see the skipped step"
    assert state.updates == 3


def test_13_clipping_sees_the_true_norm(tmp_path: Path) -> None:
    found = []
    for scale in (2.0**4, 2.0**12, 2.0**15):
        job, state = begin(ready(FP16, NO_DROPOUT, precision="fp16"), tmp_path)
        assert state.scale is not None
        state.scale.scale = scale
        (report,) = cases.advance(job, state, 1)
        found.append((report.norm, report.numbers["clip"], float(state.parameters.norm())))
    for norm, clip, after in found:
        assert norm == pytest.approx(found[0][0], rel=2e-2) and norm > 0.1
        assert clip == pytest.approx(0.05 / norm, rel=1e-5)
        assert after == pytest.approx(0.05, rel=1e-3)


def test_13_the_scale_is_in_the_checkpoint(tmp_path: Path) -> None:
    job, state = begin(ready(FP16, MLP, precision="fp16"), tmp_path)
    assert state.scale is not None
    state.scale.scale, state.scale.good = 2.0**9, 1234
    save(job, state)
    _, fresh = begin(ready(FP16, MLP, precision="fp16"), tmp_path)
    source, tensors, numbers = checkpoint.newest_good(tmp_path)  # type: ignore[misc]
    checkpoint.restore(fresh, tensors, numbers, source)
    assert fresh.scale is not None and (fresh.scale.scale, fresh.scale.good) == (2.0**9, 1234)


def test_13_an_empty_step_is_no_overflow(tmp_path: Path) -> None:
    job, state = begin(ready(FP16, MLP, precision="fp16"), tmp_path)
    batch = Batch(torch.randn(4, 1, 8, 8), torch.full((4,), -100), torch.arange(4), torch.ones(4))
    assert state.scale is not None
    scale = state.scale.scale
    report = train_step(state, [batch], job.method, job.setting, 0)
    assert (report.loss, report.norm) == (0.0, 0.0)
    assert state.scale.scale == scale and state.skipped == [0]


# --- batch norm, losses --------------------------------------------------------------------------------------------------


def test_14_accumulation_with_batch_norm_is_not_claimed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is another computation, and whoever asks for it is told."""
    capsys.readouterr()
    ends = []
    for size in (None, 3):
        prepared = ready(replace(STILL, optimizer=SGD(lr=0.01)), CONV, TinyImages(train=23), microbatch_size=size)
        job, state = begin(prepared, tmp_path)
        cases.advance(job, state, 2)
        ends.append(state.model.stem_norm.running_mean.clone())
    assert not torch.allclose(ends[0], ends[1], rtol=1e-3)
    said = capsys.readouterr().err
    assert "warning" in said and "batch norm" in said.lower().replace("-", " ") and "microbatch_size" in said


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("ignored", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_15_smoothing_and_ignored_and_weights_together(smoothing: float, ignored: bool, weighted: bool) -> None:
    draw = torch.Generator().manual_seed(4)
    logits = torch.randn(40, 5, dtype=torch.float64, generator=draw)
    target = torch.randint(0, 5, (40,), generator=draw)
    if ignored:
        target[::3] = -100
    class_weights = (0.5, 2.0, 1.0, 0.1, 3.0) if weighted else ()
    loss = CrossEntropy(smoothing=smoothing, class_weights=class_weights)
    terms, weight = loss(logits, target), loss.weight(target)
    ours = float((terms * weight).sum() / weight.sum())
    # By hand, row by row.
    rows, total = 0.0, 0.0
    w = class_weights or (1.0,) * 5
    for row, label in zip(logits.tolist(), target.tolist(), strict=True):
        if label == -100:
            continue
        norm = math.log(sum(math.exp(value) for value in row))
        log_p = [value - norm for value in row]
        rows += -(1 - smoothing) * w[label] * log_p[label] - smoothing / 5 * sum(a * b for a, b in zip(w, log_p, strict=True))
        total += w[label]
    assert ours == pytest.approx(rows / total, rel=1e-12)
    torchs = F.cross_entropy(logits, target, weight=torch.tensor(w, dtype=torch.float64), label_smoothing=smoothing)
    assert ours == pytest.approx(float(torchs), rel=1e-12)


@pytest.mark.parametrize(
    "loss", [CrossEntropy(), CrossEntropy(smoothing=0.1, class_weights=(1.0, 2.0, 3.0)), Focal(), Focal(gamma=0.5)], ids=str
)
@pytest.mark.parametrize("gradient", [NOISY.gradient, SAM()], ids=["backprop", "sam"])
def test_16_all_ignored_is_an_empty_step(loss: Any, gradient: Any, tmp_path: Path) -> None:
    job, state = begin(ready(replace(NOISY, loss=loss, gradient=gradient), MLP), tmp_path)
    cases.advance(job, state, 1)
    before = {name: tensor.clone() for name, tensor in all_tensors(state).items()}
    batches = [Batch(torch.randn(3, 1, 8, 8), torch.full((3,), -100), torch.arange(3), torch.ones(3)) for _ in range(2)]
    report = train_step(state, batches, job.method, job.setting, 0)
    assert (report.loss, report.norm) == (0.0, 0.0)
    assert differing(all_tensors(state), before) == []
    assert (state.skipped, state.step, state.updates) == ([1], 2, 1)
    assert state.guard.tripped_at is None


class Unmasked:
    """A loss of one's own that leaves an ignored term (a negative target) to its weight of 0."""

    couples = False

    def __call__(self, outputs: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(outputs, target.clamp(min=0), reduction="none")

    def weight(self, target: Tensor) -> Tensor:
        return (target >= 0).float()


@pytest.mark.parametrize("loss", [CrossEntropy(), Unmasked()], ids=["cross_entropy", "unmasked"])
def test_16_all_ignored_under_many_ranks_is_finite(loss: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each rank's part is multiplied by the number of ranks (and by the loss scale), which must not overflow over a 0."""
    from torchstone.train import step

    job, state = begin(ready(replace(NOISY, loss=loss), MLP), tmp_path)
    many = SimpleNamespace(**{name: getattr(step.ranks, name) for name in dir(step.ranks) if not name.startswith("__")})
    many.world = lambda: 1024
    monkeypatch.setattr(step, "ranks", many)
    batch = Batch(torch.randn(3, 1, 8, 8), torch.full((3,), -100), torch.arange(3), torch.ones(3))
    report = train_step(state, [batch], job.method, job.setting, 0)
    assert (report.loss, report.norm, state.skipped, state.guard.tripped_at) == (0.0, 0.0, [0], None)
