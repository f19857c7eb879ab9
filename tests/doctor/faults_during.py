"""Faults that show during a run, each alone in a real short training; `test_faults` trains and judges them."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from doctor.planted import FewDigits


class Broken(nn.Linear):
    """A layer that takes a logarithm of what may be negative, from one forward pass on."""

    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += self.training
        out = super().forward(x)
        return out.log() if self.calls > 20 else out


class Root(nn.Linear):
    """A layer whose value is finite and whose slope is not: the root of 0."""

    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += self.training
        out = super().forward(x)
        return out + (out * 0).sqrt() if self.calls > 20 else out


def replaced(kind: type[nn.Linear], at: int) -> Callable[[Any], None]:
    def mutate(model: Any) -> None:
        old = model.hidden[at]
        model.hidden[at] = kind(old.in_features, old.out_features)

    return mutate


def scaled(names: str, factor: float) -> Callable[[nn.Module], None]:
    def mutate(model: nn.Module) -> None:
        for name, p in model.named_parameters():
            if name.startswith(names) and p.ndim >= 2:
                p.mul_(factor)

    return mutate


def biased(value: float) -> Callable[[Any], None]:
    def mutate(model: Any) -> None:
        for layer in model.hidden:
            layer.bias.fill_(value)

    return mutate


def overflowing(model: Any) -> None:
    """Late layers so steep and the first so flat that the logits are ordinary and the first gradient is beyond fp16 at a scale of 1."""
    model.hidden[0].weight.mul_(1e-6)
    model.hidden[1].weight.mul_(1e2)
    model.head.weight.mul_(1e5).clamp_(-5e4, 5e4)


DEEP = "model.hidden=[" + ",".join(["32"] * 20) + "]"
FAULTS: dict[str, tuple[tuple[str, ...], tuple[str, ...], dict[str, Any]]] = {
    "twenty sigmoid layers": (("vanishing_gradient",), (DEEP, "activation=sigmoid", "run.steps=40"), {}),
    "first weights ten times too large": (
        ("exploding_gradient",),
        ("model.hidden=[64,64,64,64,64,64,64,64]", "run.steps=30"),
        {"mutate": scaled("hidden", 10.0)},
    ),
    "rate a hundred times too high": (("oscillation", "loss_spikes"), ("optimizer.lr=0.3", "schedules=[]", "run.steps=60"), {}),
    "rate of SGD beyond the edge": (("oscillation",), ("optimizer=sgd", "optimizer.lr=4", "schedules=[]", "run.steps=60"), {}),
    "rate a million times too high": (("non_finite",), ("optimizer=sgd", "optimizer.lr=1e6", "run.steps=40"), {}),
    "updates as large as the weights": (
        ("update_ratio",),
        ("optimizer.lr=0.03", "schedules=[]", "run.steps=20"),
        {"mutate": scaled("", 1e-3)},
    ),
    "rate a thousand times too low": (("update_ratio",), ("optimizer.lr=1e-6", "run.steps=40"), {}),
    "biases that kill every rectifier": (
        ("dead_units",),
        ("model.hidden=[64,64]", "run.steps=40"),
        {"mutate": biased(-20.0)},
    ),
    "tanh with weights thirty times too large": (
        ("saturated_units",),
        ("activation=tanh", "run.steps=40", "model.hidden=[64,64]"),
        {"mutate": scaled("hidden", 30.0)},
    ),
    "a hundred samples, a fifth of them mislabeled": (
        ("overfit",),
        ("model.hidden=[256]", "run.steps=150", "run.batch_size=50", "run.evaluate_every=10", "schedules=[]"),
        {"data": FewDigits(train=100, wrong=0.2)},
    ),
    "labels drawn at random": (
        ("plateau", "underfit"),
        ("run.steps=80", "model.hidden=[8]"),
        {"data": FewDigits(wrong=1.0)},
    ),
    "too few steps": (("not_converged",), ("optimizer.lr=1e-3", "run.steps=60", "run.evaluate_every=6", "schedules=[]"), {}),
    "a logarithm in the middle": (("non_finite",), ("model.hidden=[16,16,16]", "run.steps=40"), {"mutate": replaced(Broken, 1)}),
    "a root of zero in the middle": (("non_finite",), ("model.hidden=[16,16,16]", "run.steps=40"), {"mutate": replaced(Root, 1)}),
    "a pixel that is no number": (("non_finite",), ("run.steps=40",), {"data": FewDigits(broken=float("nan"))}),
    "a slow disk": (("data_bound",), ("run.steps=40",), {"data": FewDigits(slow=0.02)}),
    "gradients beyond fp16": (
        ("amp_scale",),
        ("run.precision=fp16", "optimizer.lr=1e-12", "run.steps=40", "model.hidden=[16,16]", "run.batch_size=32"),
        {"mutate": overflowing},
    ),
    "weights that only grow": (("weight_growth",), ("run.steps=80", "optimizer.lr=0.01"), {"mutate": scaled("", 0.03)}),
    "one batch in a few is a hundred times too loud": (
        ("loss_spikes",),
        ("run.steps=80", "run.batch_size=24", "schedules=[]", "optimizer.lr=1e-3"),
        {"data": FewDigits(loud=100.0)},
    ),
}


ORIGINS = {
    "a logarithm in the middle": ("forward", "hidden.1"),
    "a root of zero in the middle": ("backward", "hidden.1"),
    "a pixel that is no number": ("input", "the batch"),
    "rate a million times too high": ("forward", "head"),
}
SLOW = {
    "rate of SGD beyond the edge",
    "updates as large as the weights",
    "labels drawn at random",
    "a root of zero in the middle",
    "weights that only grow",
    "too few steps",
    "one batch in a few is a hundred times too loud",
}
"""Faults whose check another one plants too, or that are long."""
