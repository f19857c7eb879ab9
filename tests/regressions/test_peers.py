"""Bugs that other training systems had, pinned: one test or more a case of `notes/reliability.md`, section 2, by its number.

A case that a law covers whole still has its own short test here, so that a failure says which old mistake came back.
"""

import copy
import math
import shutil
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from laws import cases
from laws.cases import CONV, GPT, MLP, NOISY, PLAIN, STILL, TinyImages, all_tensors, begin, differing, ready, run_whole, steady, weights
from torchstone import data
from torchstone.core import fault, random, store
from torchstone.core.errors import Damaged, UserError
from torchstone.core.protocols import Batch, Evaluation, History
from torchstone.data import AddNoise, Flip, Mixup, PaddedCrop
from torchstone.experiment import resume_state, train_experiment
from torchstone.losses import CrossEntropy, Focal
from torchstone.metrics import Accuracy, BitsPerByte, Confusion, MeanLoss
from torchstone.models import MLPConfig
from torchstone.optim import EMA, SAM, SGD, AdamW, ClipByNorm, Cosine, FlatParameters, Patience
from torchstone.train import checkpoint
from torchstone.train.evaluate import evaluate, evaluating
from torchstone.train.loop import fit, look, save, updates
from torchstone.train.plan import Plan, evaluation_rows
from torchstone.train.signals import Request
from torchstone.train.step import train_step


def seen_by(job: Any, step: int = 0) -> list[list[int]]:
    """The sample positions of every update from `step` on."""
    return [[int(i) for batch in batches for i in batch.index] for _, batches in updates(job, step)]


def flat(updates: list[list[int]]) -> list[int]:
    return [index for update in updates for index in update]


def bits_seen_by(job: Any, step: int = 0) -> list[bytes]:
    """The inputs of every update after sample and batch transforms."""
    made = []
    for epoch, batches in updates(job, step):
        for stream, transform in zip(job.setting.streams, job.method.batch_transforms, strict=True):
            key = random.key(job.setting.seed, stream, epoch)
            batches = [transform(batch, random.sample_keys(key, batch.index)) for batch in batches]
        made.append(b"".join(cases.raw(batch.inputs) for batch in batches))
    return made


AUGMENTED = replace(NOISY, sample_transforms=(AddNoise(),), batch_transforms=(Flip(), PaddedCrop(padding=1), Mixup()))


# --- order and randomness after a resume -------------------------------------------------------------------------------


def test_01_mid_epoch_resume_does_not_replay_epoch_0(tmp_path: Path) -> None:
    job, _ = begin(ready(NOISY), tmp_path)
    whole = seen_by(job)
    assert len(whole) == 9
    for step in range(9):
        assert seen_by(job, step) == whole[step:]
    assert seen_by(job, 4)[0] != whole[1]


@pytest.mark.parametrize("workers", [0, 2])
def test_02_augmentation_after_a_resume_draws_the_same_numbers(workers: int, tmp_path: Path) -> None:
    whole = bits_seen_by(begin(ready(AUGMENTED), tmp_path)[0])
    job, _ = begin(ready(AUGMENTED, workers=workers), tmp_path)
    before = torch.get_rng_state()
    for step in (0, 2, 3, 7) if workers == 0 else (2, 7):
        assert bits_seen_by(job, step) == whole[step:]
    assert torch.equal(torch.get_rng_state(), before)
    assert len(set(whole)) == 9


def test_03_each_epoch_has_its_own_order(tmp_path: Path) -> None:
    job, _ = begin(ready(NOISY, epochs=4), tmp_path)
    whole = [flat(seen_by(job)[3 * epoch : 3 * epoch + 3]) for epoch in range(4)]
    assert len({tuple(order) for order in whole}) == 4
    assert all(sorted(order) == list(range(22)) for order in whole)
    for epoch in range(4):
        assert whole[epoch] == data.Uniform()(job.splits.train, random.key(0, "sampler", epoch)).tolist()
    # Resumed in the middle of epoch 1, epoch 2 is epoch 2.
    assert flat(seen_by(job, 4)[2:5]) == whole[2]


def test_04_what_is_built_before_a_restore_does_not_change_the_tail(tmp_path: Path) -> None:
    _, whole = run_whole(lambda: ready(AUGMENTED), tmp_path / "whole")
    run_whole(lambda: ready(AUGMENTED), tmp_path / "cut", until=4)

    job, state = begin(ready(AUGMENTED), tmp_path / "cut")
    next(updates(job, 0))  # the loader is touched, the data looked at, batches taken, another model built and trained
    next(updates(job, 5))
    run_whole(lambda: ready(AUGMENTED), tmp_path / "other", until=2)
    torch.rand(100)
    source, tensors, numbers = checkpoint.newest_good(tmp_path / "cut")  # type: ignore[misc]
    checkpoint.restore(state, tensors, numbers, source)
    assert fit(job, state, [], Request()) == "done"
    assert differing(all_tensors(state), all_tensors(whole)) == []


def test_05_other_data_under_a_resumed_run_are_refused(tmp_path: Path) -> None:
    run_whole(lambda: ready(NOISY), tmp_path, until=4)
    job, state = begin(ready(NOISY, source=TinyImages(shift=1e-6)), tmp_path)
    with pytest.raises(UserError, match="data") as caught:
        resume_state(state, job)
    for facts in (TinyImages().open().facts, job.splits.facts):
        assert facts.fingerprint[:12] in str(caught.value)
    assert state.step == 0


def test_05_the_fingerprint_sees_one_changed_number(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    x, y = draw.normal(size=(40, 3)).astype(np.float32), np.arange(40) % 2
    prints = set()
    for change in ("none", "a pixel", "two labels", "two rows"):
        if change == "a pixel":
            x[7, 1] += 1e-3
        if change == "two labels":
            y[[0, 1]] = y[[1, 0]]
        if change == "two rows":
            x[[2, 3]] = x[[3, 2]]
        np.savez(tmp_path / "a.npz", x=x, y=y)
        prints.add(data.Arrays(path=str(tmp_path / "a.npz")).open().facts.fingerprint)
    assert len(prints) == 4


def test_06_seed_and_epoch_do_not_add_up() -> None:
    orders = {tuple(random.permutation(random.key(seed, "sampler", epoch), 30)) for seed in range(20) for epoch in range(20)}
    assert len(orders) == 400
    keys = {
        random.key(seed, stream, epoch)
        for seed in range(100)
        for stream in ("sampler", "samples", "model", "batch/flip/0")
        for epoch in range(250)
    }
    assert len(keys) == 100_000
    assert random.key(1, "a", 1) != random.key(1, "a1") and random.key(1, 2) != random.key(12)
    samples = torch.cat(
        [random.sample_keys(random.key(seed, "batch/flip/0", epoch), torch.arange(10_000)) for seed in (0, 1) for epoch in range(50)]
    )
    assert len(samples.unique()) == 1_000_000


@pytest.mark.parametrize("world", [1, 2, 3])
def test_07_shares_of_the_ranks_are_disjoint_and_complete(world: int) -> None:
    order = np.random.default_rng(0).permutation(29).astype(np.int64)
    for group in (1, 2, 4):
        plan = Plan(samples=29, batch_size=8, microbatch_size=4, world=world, group=group)
        counted: Counter[int] = Counter()
        for number in range(plan.updates):
            for rank in plan.update(order, number):
                counted.update(int(i) for rows, weight in rank for i, w in zip(rows, weight, strict=True) if w)
        assert counted == Counter(range(29))


def test_07_augmentation_is_the_samples_not_the_rows_or_the_workers(tmp_path: Path) -> None:
    """Cut as two ranks would have it, each sample gets the augmentation that it gets alone; and samples differ from each other."""
    job, _ = begin(ready(replace(AUGMENTED, batch_transforms=(Flip(), PaddedCrop(padding=1)))), tmp_path)
    order = np.arange(22, dtype=np.int64)
    by_cut = []
    for cut in ([order], np.split(order, [11]), np.split(order[::-1].copy(), [3, 9, 10])):
        found = {}
        rows = [[(part, np.ones(len(part), dtype=np.float32)) for part in cut]]
        for batch in next(iter(data.load(job.splits.train, rows, sample_transforms=job.method.sample_transforms, key=5))):
            for transform in job.method.batch_transforms:
                batch = transform(batch, random.sample_keys(9, batch.index))
            found |= {int(index): cases.raw(image) for index, image in zip(batch.index, batch.inputs, strict=True)}
        by_cut.append(found)
    assert by_cut[0] == by_cut[1] == by_cut[2]
    noise = AddNoise()
    zeros = torch.zeros(1, 4, 4)
    drawn = {cases.raw(noise((zeros, torch.tensor(0)), int(key))[0]) for key in random.sample_keys(3, torch.arange(50))}
    assert len(drawn) == 50


# --- what a batch is divided by ------------------------------------------------------------------------------------------


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


# --- scores --------------------------------------------------------------------------------------------------------------


def test_20_every_sample_is_scored_once() -> None:
    for samples in (1, 4, 5, 17):
        for batch_size in (1, 3, 4, 17, 30):
            for world in (1, 2, 3, 7):
                rows = [list(evaluation_rows(samples, batch_size, rank, world)) for rank in range(world)]
                seen = [int(i) for rank in rows for ((indices, weight),) in rank for i in indices if weight.all()]
                assert sorted(seen) == list(range(samples))


def test_20_the_report_counts_the_split(tmp_path: Path) -> None:
    job, state = begin(ready(NOISY), tmp_path)
    for batch_size in (1, 4, 5, 100):
        keep: list[Any] = []
        result = evaluate(
            state.evaluated,
            job.splits.validation,
            loss=job.method.loss,  # type: ignore[arg-type]
            metrics=[Confusion()],
            device=job.device,
            batch_size=batch_size,
            keep=keep,
        )
        assert sum(sum(row) for row in result["confusion"]) == 13
        assert sorted(torch.cat([index for index, _, _ in keep]).tolist()) == list(range(13))


@pytest.mark.parametrize("model", [CONV, GPT], ids=["classify", "language"])
def test_21_metrics_do_not_depend_on_the_batch_size(model: Any, tmp_path: Path) -> None:
    results = []
    for batch_size in (1, 4, 7, 13):
        job, state = begin(ready(NOISY, model, evaluation_batch_size=batch_size), tmp_path)
        look(job, state, [])
        results.append(state.history.evaluations[-1].metrics)
    for result in results:
        assert result == pytest.approx(results[0], rel=1e-6)
        assert result["accuracy"] == results[0]["accuracy"], "counts are integers"


def test_22_only_sums_cross_ranks_and_counts_stay_integers() -> None:
    draw = torch.Generator().manual_seed(1)
    outputs, target = torch.randn(30, 4, generator=draw), torch.randint(0, 4, (30,), generator=draw)
    weight, terms = torch.ones(30), torch.rand(30, generator=draw)
    weight[3] = 0
    for metric in (Accuracy(), Confusion(), MeanLoss(), BitsPerByte()):
        whole = metric.measure(outputs, target, weight, terms)
        assert all(value.dtype in (torch.int64, torch.float64) for value in whole.values())
        parts: dict[str, Tensor] = {}
        for a, b in ((0, 16), (16, 17), (17, 17), (17, 30)):  # 16 "ranks" of other sizes, one of them empty
            for name, value in metric.measure(outputs[a:b], target[a:b], weight[a:b], terms[a:b]).items():
                parts[name] = parts.get(name, torch.zeros_like(value)) + value
        for name, value in whole.items():
            if value.dtype == torch.int64:
                assert torch.equal(parts[name], value)
            else:
                torch.testing.assert_close(parts[name], value, rtol=1e-12, atol=0)
    assert Accuracy().result({"correct": torch.tensor(2**53 + 1), "count": torch.tensor(2**53 + 3)})["accuracy"] < 1


# --- best, NaN, evaluation in between ------------------------------------------------------------------------------------


def test_24_nan_is_never_best_and_never_blocks_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchstone.train import loop

    job, state = begin(ready(NOISY), tmp_path)
    values = iter([float("nan"), 0.4, float("nan"), 0.6, float("nan"), 0.5])
    monkeypatch.setattr(loop, "score", lambda *a: {"accuracy": next(values), "loss": 1.0})
    found = []
    for step in range(1, 7):
        state.step = step
        look(job, state, [])
        found.append(None if state.best is None else (state.best.step, state.best.value))
        save(job, state)
    assert found == [None, (2, 0.4), (2, 0.4), (4, 0.6), (4, 0.6), (4, 0.6)]
    assert checkpoint.named(tmp_path, "best").name == "step-4"
    assert [math.isnan(e.metrics["accuracy"]) for e in state.history.evaluations] == [True, False, True, False, True, False], (
        "and it is reported"
    )
    _, fresh = begin(ready(NOISY), tmp_path)
    source, tensors, numbers = checkpoint.newest_good(tmp_path)  # type: ignore[misc]
    checkpoint.restore(fresh, tensors, numbers, source)
    assert steady(fresh) == steady(state)


def test_24_nan_does_not_stop_patience_nor_feed_it() -> None:
    stop = Patience(patience=2)
    nan = float("nan")

    def after(*values: float) -> str | None:
        return stop(History([Evaluation(i, {"accuracy": value}) for i, value in enumerate(values)]))

    assert after(nan, nan, nan, nan) is None
    assert after(0.5, nan, nan, nan) is None
    assert after(nan, 0.5, 0.6, nan, 0.7) is None
    assert after(0.5, nan, 0.4, nan, 0.4) is not None


def test_25_evaluating_changes_nothing(tmp_path: Path) -> None:
    states = []
    for every in (1, 9):
        states.append(run_whole(partial(ready, AUGMENTED, evaluate_every=every, keep=1), tmp_path / str(every))[1])
    assert (len(states[0].history.evaluations), len(states[1].history.evaluations)) == (9, 1)
    assert differing(all_tensors(states[0]), all_tensors(states[1])) == []


def failing(model: nn.Module) -> None:
    assert not any(module.training for module in model.modules())
    raise ZeroDivisionError


def test_25_modes_come_back_one_by_one(tmp_path: Path) -> None:
    """A batch norm that was frozen by hand stays frozen, also when the evaluation fails."""
    job, state = begin(ready(replace(NOISY, averaging=None)), tmp_path)
    state.model.stem_norm.eval()
    before = {name: module.training for name, module in state.model.named_modules()}
    assert len(set(before.values())) == 2
    look(job, state, [])
    assert {name: module.training for name, module in state.model.named_modules()} == before
    with pytest.raises(ZeroDivisionError), evaluating(state.model):
        failing(state.model)
    assert {name: module.training for name, module in state.model.named_modules()} == before


# --- checkpoints -----------------------------------------------------------------------------------------------------------


def test_26_tied_weights_are_tied_after_a_resume(tmp_path: Path) -> None:
    tied = replace(GPT, tie=True)
    run_whole(lambda: ready(NOISY, tied), tmp_path, until=4)
    source, tensors, numbers = checkpoint.newest_good(tmp_path)  # type: ignore[misc]
    job, state = begin(ready(NOISY, tied), tmp_path)
    checkpoint.restore(state, tensors, numbers, source)
    for model in (state.model, state.evaluated):
        assert model.head.weight is model.embedding.weight
        assert model.head.weight.data_ptr() == model.embedding.weight.data_ptr()
    assert tensors["model"]["head.weight"].equal(tensors["model"]["embedding.weight"])
    stored = (source / "model.safetensors").stat().st_size
    untied = begin(ready(NOISY, GPT), tmp_path / "untied")
    save(*untied)
    assert stored < (tmp_path / "untied/checkpoints/step-0/model.safetensors").stat().st_size, "stored once"
    cases.advance(job, state, 2)
    assert state.model.head.weight.equal(state.model.embedding.weight)
    assert "head.weight" not in {name.split("/")[-1] for name in state.tensors()["optimizer"]}


def test_26_aliases_come_from_storage(tmp_path: Path) -> None:
    """A model that ties without any setting that says so."""
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    store.write_store(tmp_path / "s", {"model": {k: v.detach() for k, v in model.state_dict(keep_vars=True).items()}}, {})
    tensors, _ = store.read_store(tmp_path / "s")
    assert tensors["model"]["1.weight"].data_ptr() == tensors["model"]["0.weight"].data_ptr()
    assert tensors["model"]["1.bias"].data_ptr() != tensors["model"]["0.bias"].data_ptr()


class Named(nn.Module):
    """Two layers of one shape under names given in an order."""

    def __init__(self, *names: str) -> None:
        super().__init__()
        for name in names:
            setattr(self, name, nn.Linear(3, 3))


def test_27_moments_follow_names_not_positions() -> None:
    torch.manual_seed(0)
    flats = [FlatParameters(Named(*names)) for names in (("a", "b"), ("b", "a"))]
    memory = AdamW().init(flats[0])
    memory["exp_avg"].copy_(torch.arange(len(memory["exp_avg"])))
    saved = flats[0].named(memory["exp_avg"])
    other = AdamW().init(flats[1])
    flats[1].load(other["exp_avg"], saved)
    for name in flats[0].names:
        assert torch.equal(flats[1].view(other["exp_avg"], name), saved[name])
    assert not torch.equal(other["exp_avg"], memory["exp_avg"])


def test_27_another_name_or_shape_is_an_error(tmp_path: Path) -> None:
    run_whole(lambda: ready(NOISY, MLP), tmp_path, until=4)
    source, tensors, numbers = checkpoint.newest_good(tmp_path)  # type: ignore[misc]
    for model, words in ((MLPConfig(hidden=(10,)), "shape"), (MLPConfig(hidden=(9, 9)), "missing")):
        _, state = begin(ready(NOISY, model), tmp_path / "other")
        before = {name: tensor.clone() for name, tensor in all_tensors(state).items()}
        with pytest.raises(UserError, match=words) as caught:
            checkpoint.restore(state, tensors, numbers, source)
        assert "hidden" in str(caught.value)
        assert state.step == 0 and differing(all_tensors(state), before) == [], "refused before anything is written"
    renamed = {**tensors, "optimizer": {name.replace("hidden.0", "hidden.9"): tensor for name, tensor in tensors["optimizer"].items()}}
    _, state = begin(ready(NOISY, MLP), tmp_path / "other")
    with pytest.raises(UserError, match="hidden"):
        checkpoint.restore(state, renamed, numbers, source)


def test_30_old_checkpoints_go_only_after_the_new_one_stands(tmp_path: Path) -> None:
    """At every file operation of a save: dying there leaves a checkpoint that verifies, and `last` names one."""
    job, state = begin(ready(NOISY, MLP, keep=1), tmp_path / "run")
    cases.advance(job, state, 1)
    save(job, state)
    cases.advance(job, state, 1)
    number = 0
    while True:
        number += 1
        there = tmp_path / f"at-{number}"
        shutil.copytree(tmp_path / "run", there)
        fault.arm("eio", number)
        try:
            checkpoint.save(state, there, keep=1, facts=job.facts)
        except OSError:
            pass
        else:
            break
        finally:
            fault.disarm()
        source, _, numbers = checkpoint.newest_good(there)  # type: ignore[misc]
        assert numbers["step"] in (1, 2)
        store.verify_store(checkpoint.named(there, "last"))
    assert number > 10
    assert [folder.name for folder in checkpoint.by_age(there)] == ["step-2"]


def test_30_a_damaged_newest_is_passed_over_and_none_left_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_whole(lambda: ready(NOISY, MLP, keep=3), tmp_path)
    newest, second, third = checkpoint.by_age(tmp_path)
    for folder, name in ((newest, "model.safetensors"), (second, "state.json")):
        path = folder / name
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    found = checkpoint.newest_good(tmp_path)
    assert found is not None and found[0] == third
    assert "falling back" in capsys.readouterr().err
    (third / "optimizer.safetensors").unlink()
    with pytest.raises(Damaged):
        checkpoint.newest_good(tmp_path)


def test_30_best_is_kept_however_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchstone.train import loop

    values = iter([0.1, 0.9, 0.2, 0.3, 0.4, 0.5])
    monkeypatch.setattr(loop, "score", lambda *a: {"accuracy": next(values)})
    job, state = begin(ready(NOISY, MLP, keep=2), tmp_path)
    for step in range(1, 7):
        state.step = step
        look(job, state, [])
        save(job, state)
    assert sorted(folder.name for folder in checkpoint.by_age(tmp_path)) == ["step-2", "step-5", "step-6"]
    assert checkpoint.named(tmp_path, "best").name == "step-2" and checkpoint.named(tmp_path, "last").name == "step-6"
    store.verify_store(checkpoint.named(tmp_path, "best"))


def test_the_verb_repeats_and_resumes_itself(tmp_path: Path) -> None:
    """Cases 1 to 4 through the front door: `train` twice, and once with more steps of the same run after an end."""
    experiment = replace(ready(NOISY).experiment, data=data.Digits(), model=MLP, method=AUGMENTED)
    edits = ("run.steps=6", "run.batch_size=64", "run.evaluate_every=2")
    first = train_experiment(experiment, *edits, out=tmp_path / "a")
    second = train_experiment(experiment, *edits, out=tmp_path / "b")
    assert first.metrics["final"] == second.metrics["final"]
    for name in ("model.safetensors", "average.safetensors", "optimizer.safetensors"):
        assert (tmp_path / "a/checkpoints/step-6" / name).read_bytes() == (tmp_path / "b/checkpoints/step-6" / name).read_bytes()
    for folder in checkpoint.by_age(tmp_path / "b")[:1]:
        shutil.rmtree(folder)
    (tmp_path / "b/metrics.json").unlink()
    train_experiment(experiment, *edits, out=tmp_path / "b", resume=True)
    for name in ("model.safetensors", "average.safetensors", "optimizer.safetensors"):
        assert (tmp_path / "a/checkpoints/step-6" / name).read_bytes() == (tmp_path / "b/checkpoints/step-6" / name).read_bytes()
