"""Adam and its kin against their papers in NumPy float64 and against torch.optim; and the trap of L2 and weight decay."""

from dataclasses import replace
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch

from optim.two_layers import WIDTHS, backward, by_part, by_rule, by_torch, gradient, must_agree, network, weights_of
from torchstone.losses import L2
from torchstone.optim import SGD, Adam, Adamax, AdamW, FlatParameters, Nadam, NoDecay, Radam

O = torch.optim
BETAS = (0.8, 0.95)
SETTINGS = {"lr": 0.03, "betas": BETAS, "weight_decay": 0.3}


def averages(g, memory):
    memory["m"] = BETAS[0] * memory.get("m", 0.0) + (1 - BETAS[0]) * g
    memory["v"] = BETAS[1] * memory.get("v", 0.0) + (1 - BETAS[1]) * g**2
    return memory["m"], memory["v"]


def decayed(w, g, lr, decay, decoupled):
    return (w - lr * decay * w, g) if decoupled else (w, g + decay * w)


def adam(w, g, memory, t, lr, decay, *, decoupled=False):
    w, g = decayed(w, g, lr, decay, decoupled)
    m, v = averages(g, memory)
    return w - lr * (m / (1 - BETAS[0] ** t)) / (np.sqrt(v / (1 - BETAS[1] ** t)) + 1e-8)


def nadam(w, g, memory, t, lr, decay, *, decoupled=True):
    w, g = decayed(w, g, lr, decay, decoupled)
    mu = lambda at: BETAS[0] * (1 - 0.5 * 0.96 ** (at * 4e-3))
    m, v = averages(g, memory)
    memory["product"] = memory.get("product", 1.0) * mu(t)
    g_hat, m_hat = g / (1 - memory["product"]), m / (1 - memory["product"] * mu(t + 1))
    return w - lr * ((1 - mu(t)) * g_hat + mu(t + 1) * m_hat) / (np.sqrt(v / (1 - BETAS[1] ** t)) + 1e-8)


def radam(w, g, memory, t, lr, decay, *, decoupled=True):
    w, g = decayed(w, g, lr, decay, decoupled)
    m, v = averages(g, memory)
    m_hat, b = m / (1 - BETAS[0] ** t), BETAS[1]
    last = 2 / (1 - b) - 1
    rho = last - 2 * t * b**t / (1 - b**t)
    if rho <= 5:
        return w - lr * m_hat
    r = np.sqrt((rho - 4) * (rho - 2) * last / ((last - 4) * (last - 2) * rho))
    return w - lr * r * m_hat * np.sqrt(1 - b**t) / (np.sqrt(v) + 1e-8)


def adamax(w, g, memory, t, lr, decay):
    g = g + decay * w
    m, _ = averages(g, memory)
    memory["u"] = np.maximum(BETAS[1] * memory.get("u", 0.0), np.abs(g) + 1e-8)
    return w - lr / (1 - BETAS[0] ** t) * m / memory["u"]


CASES = [
    (Adam(**SETTINGS), adam, partial(O.Adam, betas=BETAS)),
    (AdamW(**SETTINGS), partial(adam, decoupled=True), partial(O.AdamW, betas=BETAS)),
    (Nadam(**SETTINGS), nadam, partial(O.NAdam, betas=BETAS, decoupled_weight_decay=True)),
    (Nadam(**SETTINGS, decoupled=False), partial(nadam, decoupled=False), partial(O.NAdam, betas=BETAS)),
    (Radam(**SETTINGS), radam, partial(O.RAdam, betas=BETAS, decoupled_weight_decay=True)),
    (Radam(**SETTINGS, decoupled=False), partial(radam, decoupled=False), partial(O.RAdam, betas=BETAS)),
    (Adamax(**SETTINGS), adamax, partial(O.Adamax, betas=BETAS)),
]
IDS = [f"{type(part).__name__}-{getattr(part, 'decoupled', '')}" for part, _, _ in CASES]


def test_the_gradient_by_hand_is_autograds() -> None:
    for widths in (WIDTHS, (4, 8, 8, 8)):
        model = network(widths)
        backward(model, widths, 1)
        by_hand = gradient(weights_of(model), widths, 1)
        for name, p in model.named_parameters():
            assert p.grad is not None
            np.testing.assert_allclose(p.grad.numpy(), by_hand[name], rtol=0, atol=1e-14)


@pytest.mark.parametrize(("part", "rule", "make"), CASES, ids=IDS)
def test_is_the_papers(part, rule, make):
    must_agree(by_part(part), by_rule(part, rule))
    must_agree(by_part(part, factor=lambda t: 1 / t), by_rule(part, rule, factor=lambda t: 1 / t))


@pytest.mark.parametrize(("part", "rule", "make"), CASES, ids=IDS)
def test_is_torchs(part, rule, make):
    # torch.optim.NAdam keeps the product of the momenta in float32; ours is float64.
    must_agree(by_part(part), by_torch(make, part), 1e-7 if isinstance(part, Nadam) else 1e-12)


def test_radam_trusts_the_second_average_late():
    """As in the paper's text for beta2 = 0.999: no rectification for five steps, then one that rises towards 1."""
    part = Radam()
    factors = [part._rectification(float(t)) for t in (1, 2, 3, 4, 5, 6, 50, 1000, 100_000)]
    assert factors[:5] == [0.0] * 5 and all(a < b for a, b in pairwise(factors[4:]))
    assert factors[-1] == pytest.approx(1.0, abs=1e-6)
    for t in (1.0, 6.0, 50.0):
        on_device = part._rectification(torch.tensor(t, dtype=torch.float64))
        assert float(on_device) == pytest.approx(part._rectification(t), rel=1e-12)
    assert Radam(betas=(0.9, 0.6))._rectification(9.0) == 0.0  # an average of so few gradients is never trusted


def one_step(part, penalty: float = 0.0) -> dict[str, np.ndarray]:
    """The weights after four updates, the loss with penalty / 2 |w|^2 of its own."""
    model = network()
    flat = FlatParameters(model, NoDecay()(model))  # what the penalty sees: matrices
    memory = part.init(flat)
    for t in range(1, 5):
        flat.zero_grad()
        backward(flat.module, WIDTHS, t)
        if penalty:
            L2(strength=penalty)(flat.module).backward()
        part.step(flat, memory)
    return weights_of(flat.module)


def apart(a, b) -> float:
    return max(np.abs(a[name] - b[name]).max() for name in a)


def test_trap_e2():
    """L2 and weight decay are one thing under SGD, and two under Adam: there the penalty's gradient is divided by sqrt(v) as well.

    Loshchilov and Hutter, 2019, propositions 1 and 2.
    """
    decay = 0.1
    assert apart(one_step(SGD(lr=0.1, momentum=0.0, weight_decay=decay)), one_step(SGD(lr=0.1, momentum=0.0), decay)) < 1e-14
    assert apart(one_step(SGD(lr=0.1, weight_decay=decay)), one_step(SGD(lr=0.1), decay)) < 1e-14  # with momentum too

    def decoupled_sgd(w, g, memory, t, lr, decay):
        return w * (1 - lr * decay) - lr * g

    coupled = SGD(lr=0.1, momentum=0.0, weight_decay=decay)
    must_agree(by_part(coupled), by_rule(coupled, decoupled_sgd))

    free = dict(lr=0.01, betas=BETAS, weight_decay=0.0)
    assert apart(one_step(replace(Adam(**free), weight_decay=decay)), one_step(Adam(**free), decay)) < 1e-14  # coupled is L2
    assert apart(one_step(replace(AdamW(**free), weight_decay=decay)), one_step(AdamW(**free), decay)) > 1e-3  # decoupled is not


def test_trap_e2_without_gradient():
    """Where the loss is flat, AdamW takes the share lr * decay away; Adam takes lr away, whatever the decay."""
    ends = {}
    for part in (Adam(lr=0.01, weight_decay=0.5), Adam(lr=0.01, weight_decay=0.05), AdamW(lr=0.01, weight_decay=0.5)):
        flat = FlatParameters(torch.nn.Linear(1, 1, bias=False, dtype=torch.float64))
        flat.module.weight.data.fill_(3.0)
        memory = part.init(flat)
        for _ in range(10):
            part.step(flat, memory)
        ends[type(part).__name__, part.weight_decay] = float(flat.data[0])
    assert ends["AdamW", 0.5] == pytest.approx(3 * (1 - 0.005) ** 10, rel=1e-12)
    assert ends["Adam", 0.5] == pytest.approx(2.9, abs=1e-3)
    assert ends["Adam", 0.05] == pytest.approx(ends["Adam", 0.5], abs=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Adam(lr=-1.0), "Adam.lr must be"),
        (lambda: Nadam(betas=(0.9,)), "Nadam.betas must be"),
        (lambda: Nadam(momentum_decay=-1.0), "Nadam.momentum_decay must be"),
        (lambda: Radam(eps=0.0), "Radam.eps must be"),
        (lambda: Adamax(weight_decay=-0.1), "Adamax.weight_decay must be"),
    ],
)
def test_fields_are_checked(make, message):
    with pytest.raises(ValueError, match=message):
        make()
