"""Scores, the best of them, and evaluation in between (cases 20 to 25).

Bugs that other training systems had, pinned: one test or more a case of `notes/reliability.md`, section 2, by its number. A case that a law
covers whole still has its own short test here, so that a failure says which old mistake came back.
"""

import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from laws.cases import CONV, GPT, NOISY, all_tensors, begin, differing, ready, run_whole, steady
from regressions.seen import AUGMENTED
from torchstone.core.protocols import Evaluation, History
from torchstone.metrics import Accuracy, BitsPerByte, Confusion, MeanLoss
from torchstone.optim import Patience
from torchstone.train import checkpoint
from torchstone.train.evaluate import evaluate, evaluating
from torchstone.train.loop import look, save
from torchstone.train.plan import evaluation_rows


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
