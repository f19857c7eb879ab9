"""Order and randomness after a resume (cases 1 to 7).

Bugs that other training systems had, pinned: one test or more a case of `notes/reliability.md`, section 2, by its number. A case that a law
covers whole still has its own short test here, so that a failure says which old mistake came back.
"""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from laws import cases
from laws.cases import NOISY, TinyImages, all_tensors, begin, differing, ready, run_whole
from regressions.seen import AUGMENTED, bits_seen_by, flat, seen_by
from torchstone import data
from torchstone.core import random
from torchstone.core.errors import UserError
from torchstone.data import AddNoise, Flip, PaddedCrop
from torchstone.experiment import resume_state
from torchstone.train import checkpoint
from torchstone.train.loop import fit, updates
from torchstone.train.plan import Plan
from torchstone.train.signals import Request


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
