"""Trap E6: micro-batches of unequal token counts. Dividing each by its own count is not the large batch; dividing once by all is."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from laws import cases
from laws.cases import STILL, TinyTokens, begin, ready
from torchstone.core.protocols import Batch
from torchstone.train.step import train_step


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_trap_e6(dtype: torch.dtype, tolerance: float, tmp_path: Path) -> None:
    """Three micro-batches with 1, 2 and 40 tokens that count, against autograd over all 43 in plain torch."""
    draw = torch.Generator().manual_seed(0)
    tokens, target = (torch.randint(0, 12, (12, 6), generator=draw) for _ in range(2))
    counted = torch.zeros(12, 6, dtype=torch.bool)
    counted[0, 0] = counted[4, 1] = counted[5, 2] = True
    counted[8:] = True
    counted.view(-1)[-8:] = True
    counted[8:].view(-1)[40:] = False
    sizes = [int(counted[rows].sum()) for rows in (slice(0, 4), slice(4, 8), slice(8, 12))]
    target = target.masked_fill(~counted, -100)
    job, state = begin(ready(STILL, replace(cases.GPT, dropout=0.0), TinyTokens()), tmp_path, dtype)
    whole = Batch(tokens, target, torch.arange(12), torch.ones(12))
    micro = [Batch(tokens[a : a + 4], target[a : a + 4], torch.arange(a, a + 4), torch.ones(4)) for a in (0, 4, 8)]

    def by_hand(batch: Batch) -> torch.Tensor:
        loss = F.cross_entropy(state.model(batch.inputs).flatten(0, 1), batch.target.flatten(), ignore_index=-100)
        state.parameters.zero_grad()
        loss.backward()
        return state.parameters.grad.clone()

    right, trap = by_hand(whole), sum(by_hand(batch) for batch in micro) / 3
    report = train_step(state, micro, job.method, job.setting, 0)
    away = lambda grad: float((grad - right).norm() / right.norm())
    assert sizes == [1, 2, 16] or min(sizes) * 5 < max(sizes)
    assert away(state.parameters.grad) < tolerance
    assert away(trap) > 0.3, "the mean of means points elsewhere"
    per_token = F.cross_entropy(state.model(tokens).flatten(0, 1), target.flatten(), ignore_index=-100)
    assert report.loss == pytest.approx(float(per_token), rel=10 * tolerance)
