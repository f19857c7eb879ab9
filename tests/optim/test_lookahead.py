"""Lookahead against its paper in NumPy float64, around SGD and AdamW, with a group that is frozen half way."""

import numpy as np
import pytest
import torch

from optim.two_layers import by_part, by_rule, must_agree
from torchstone.core import tree
from torchstone.optim import SGD, AdamW, FlatParameters, Lookahead
from torchstone.train.method import Method, check

OF_SGD = Lookahead(inner=SGD(lr=0.2, momentum=0.8), lr=0.5, k=3, alpha=0.3)
OF_ADAMW = Lookahead(inner=AdamW(lr=0.03, betas=(0.8, 0.95), weight_decay=0.0), k=5, alpha=0.8)


def momentum(w, g, memory, t, lr):
    memory["v"] = 0.8 * memory.get("v", 0.0) + g
    return w - lr * memory["v"]


def adam(w, g, memory, t, lr):
    memory["m"] = 0.8 * memory.get("m", 0.0) + 0.2 * g
    memory["v"] = 0.95 * memory.get("v", 0.0) + 0.05 * g**2
    return w - lr * (memory["m"] / (1 - 0.8**t)) / (np.sqrt(memory["v"] / (1 - 0.95**t)) + 1e-8)


@pytest.mark.parametrize(("part", "fast"), [(OF_SGD, momentum), (OF_ADAMW, adam)], ids=["sgd", "adamw"])
def test_is_the_papers(part, fast):
    def lookahead(w, g, memory, t, lr, decay):
        slow = memory.setdefault("slow", w.copy())
        w = fast(w, g, memory, t, lr * part.inner.lr)
        if t % part.k == 0:
            w = memory["slow"] = slow + part.alpha * (w - slow)
        return w

    must_agree(by_part(part), by_rule(part, lookahead))
    must_agree(by_part(part, factor=lambda t: 1 / t), by_rule(part, lookahead, factor=lambda t: 1 / t))


def run(part, steps=12, flag=None, frozen_from=99, skipped=()):
    torch.manual_seed(0)
    flat = FlatParameters(torch.nn.Linear(4, 4))
    memory = part.init(flat)
    for step in range(steps):
        flat.groups[0].lr_scale = float(step < frozen_from)
        flat.grad.normal_(generator=torch.Generator().manual_seed(step))
        part.step(flat, memory, found_inf=flag if step not in skipped else torch.ones(()))
    return flat.data, memory


def test_on_a_device_is_on_the_host():
    """The branch for accelerators, taken here by the `number` of one: the count stays a tensor."""
    from torchstone.optim import lookahead

    host, _ = run(OF_SGD)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lookahead, "number", lambda tensor: tensor.double())
        for flag in (None, torch.zeros(())):
            torch.testing.assert_close(run(OF_SGD, flag=flag)[0], host, rtol=0, atol=1e-7)
        data, memory = run(OF_SGD, steps=4, flag=torch.zeros(()), skipped=(1, 3))
        assert memory["taken"] == 2
        torch.testing.assert_close(data, run(OF_SGD, steps=4, flag=torch.zeros(()), skipped=(1, 3))[0])


def test_frozen_weights_do_not_return():
    data, _ = run(OF_SGD, steps=4, frozen_from=4)
    later, _ = run(OF_SGD, steps=9, frozen_from=4)
    assert torch.equal(data, later)


def test_alpha_of_one_is_the_inner_optimizer():
    torch.testing.assert_close(run(Lookahead(inner=SGD(), alpha=1.0))[0], run(SGD())[0], rtol=0, atol=1e-7)


def test_both_rates_can_be_scheduled_and_edited():
    method = tree.edit(Method(), ["optimizer=lookahead", "optimizer.inner=sgd", "optimizer.inner.lr=0.3", "optimizer.k=7"])
    assert method.optimizer == Lookahead(inner=SGD(lr=0.3), k=7)
    for path in ("optimizer.lr", "optimizer.inner.lr"):
        check(tree.edit(method, ["schedules=[cosine]", f"schedules.cosine.path={path}"]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Lookahead(k=0), "Lookahead.k must be"),
        (lambda: Lookahead(alpha=1.5), "Lookahead.alpha must be"),
        (lambda: Lookahead(lr=-1.0), "Lookahead.lr must be"),
    ],
)
def test_fields_are_checked(make, message):
    with pytest.raises(ValueError, match=message):
        make()
