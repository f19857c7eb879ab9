"""Adam with coupled L2, and its kin: Nadam, Radam, Adamax. Adam with decoupled decay is `adamw`.

Shapes: P scalars of all parameters.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from torchstone.core.protocols import Memory
from torchstone.optim.adamw import adam_memory, adam_step
from torchstone.optim.checks import check_betas, check_finite, check_positive
from torchstone.optim.flat import FlatParameters
from torchstone.optim.pieces import counter, coupled, number, pieces, undone


@dataclass(frozen=True, kw_only=True, slots=True)
class Adam:
    """Adam: w -= lr m / (sqrt(v) + eps) over bias-corrected averages m of g and v of g^2. Memory as AdamW's.

    Kingma and Ba, "Adam: A Method for Stochastic Optimization", 2015, https://arxiv.org/abs/1412.6980, algorithm 1. Its weight decay is
    an L2 term in the gradient, so it is divided by sqrt(v) too: a weight with large gradients decays less. `adamw` decays all alike.
    """

    lr: float = 1e-3
    """Learning rate: roughly how far a weight moves in a step."""
    betas: tuple[float, ...] = (0.9, 0.999)
    """Decay of the averages of the gradient and of its square."""
    eps: float = 1e-8
    """Added to the root of the second average."""
    weight_decay: float = 0.0
    """Added to the gradient as weight_decay * w."""

    neutral: ClassVar["Adam | None"] = None
    neutral_reason: ClassVar[str] = "a method always has an optimizer"

    def __post_init__(self) -> None:
        _check("Adam", self)

    def init(self, parameters: FlatParameters) -> Memory:
        return adam_memory(parameters)

    def step(self, parameters: FlatParameters, memory: Memory, *, found_inf: Tensor | None = None) -> None:
        adam_step(self, parameters, memory, decoupled=False, found_inf=found_inf)


@dataclass(frozen=True, kw_only=True, slots=True)
class Nadam:
    """Adam with Nesterov's look ahead: the step is (mu' m / (1 - prod mu mu') + (1 - mu) g / (1 - prod mu)) / (sqrt(v) + eps).

    Memory as AdamW's, and "mu_product" 0-d: the product of the momenta so far. mu_t = beta1 (1 - 0.96^(t momentum_decay) / 2), mu' is the
    next step's. Dozat, "Incorporating Nesterov Momentum into Adam", 2016, https://openreview.net/forum?id=OM0jvwB8jIp57ZJjtNEZ,
    algorithm 2 with the warm-up of mu of its appendix; conventions as torch.optim.NAdam.
    """

    lr: float = 2e-3
    """Learning rate."""
    betas: tuple[float, ...] = (0.9, 0.999)
    """Decay of the averages of the gradient and of its square."""
    momentum_decay: float = 4e-3
    """How fast mu rises from beta1 / 2 to beta1; larger is faster."""
    eps: float = 1e-8
    """Added to the root of the second average."""
    weight_decay: float = 0.0
    """Share of a weight, times lr, taken away each step; or, coupled, added to the gradient as weight_decay * w."""
    decoupled: bool = True
    """Whether the decay acts on the weights alone, as in AdamW."""

    neutral: ClassVar["Nadam | None"] = None
    neutral_reason: ClassVar[str] = "a method always has an optimizer"

    def __post_init__(self) -> None:
        _check("Nadam", self)
        check_finite("Nadam.momentum_decay", self.momentum_decay)

    def init(self, parameters: FlatParameters) -> Memory:
        exact = torch.float32 if parameters.data.device.type == "mps" else torch.float64
        return adam_memory(parameters) | {"mu_product": counter(parameters, 1.0).to(exact)}

    def step(self, parameters: FlatParameters, memory: Memory, *, found_inf: Tensor | None = None) -> None:
        beta1, beta2 = self.betas
        with undone(found_inf, parameters.data, *memory.values()):
            t = number(memory["step"].add_(1))
            mu, mu_next = (beta1 * (1 - 0.5 * 0.96 ** (at * self.momentum_decay)) for at in (t, t + 1))
            product = number(memory["mu_product"].mul_(mu))
            share_of_grad, share_of_average = (1 - mu) / (1 - product), mu_next / (1 - product * mu_next)
            for span, (data, grad, average, square) in pieces(parameters, memory["exp_avg"], memory["exp_avg_sq"]):
                lr = self.lr * span.lr_scale
                grad = _decay(self, data, grad, lr, span.decay_scale)
                average.lerp_(grad, 1 - beta1)
                square.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
                root = square.div(1 - beta2**t).sqrt_().add_(self.eps)
                data.addcdiv_(grad.mul(share_of_grad).add_(average.mul(share_of_average)), root, value=-lr)


@dataclass(frozen=True, kw_only=True, slots=True)
class Radam:
    """Adam whose step is scaled by a rectification r_t, and momentum alone while the second average is of too few gradients to trust.

    Memory as AdamW's. rho_inf = 2 / (1 - beta2) - 1, rho_t = rho_inf - 2 t beta2^t / (1 - beta2^t), and where rho_t > 5
    r_t^2 = (rho_t - 4)(rho_t - 2) rho_inf / ((rho_inf - 4)(rho_inf - 2) rho_t). Liu et al., "On the Variance of the Adaptive Learning Rate
    and Beyond", 2020, https://arxiv.org/abs/1908.03265, algorithm 2; 5, as in its authors' code and torch.optim.RAdam, where the text
    has 4.
    """

    lr: float = 0.01
    """Learning rate. Ours: at the usual 1e-3 the five or six updates of momentum alone, and the small r_t after them, take a short run
    nowhere (digits: 63 %)."""
    betas: tuple[float, ...] = (0.9, 0.999)
    """Decay of the averages of the gradient and of its square."""
    eps: float = 1e-8
    """Added to the root of the second average."""
    weight_decay: float = 0.0
    """Share of a weight, times lr, taken away each step; or, coupled, added to the gradient as weight_decay * w."""
    decoupled: bool = True
    """Whether the decay acts on the weights alone, as in AdamW."""

    neutral: ClassVar["Radam | None"] = None
    neutral_reason: ClassVar[str] = "a method always has an optimizer"

    def __post_init__(self) -> None:
        _check("Radam", self)

    def init(self, parameters: FlatParameters) -> Memory:
        return adam_memory(parameters)

    def step(self, parameters: FlatParameters, memory: Memory, *, found_inf: Tensor | None = None) -> None:
        beta1, beta2 = self.betas
        with undone(found_inf, parameters.data, *memory.values()):
            t = number(memory["step"].add_(1))
            correction = 1 - beta2**t
            rectified = self._rectification(t) * correction**0.5
            for span, (data, grad, average, square) in pieces(parameters, memory["exp_avg"], memory["exp_avg_sq"]):
                lr = self.lr * span.lr_scale
                grad = _decay(self, data, grad, lr, span.decay_scale)
                average.lerp_(grad, 1 - beta1)
                square.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
                step = average.div(1 - beta1**t)
                if isinstance(rectified, Tensor):
                    step.mul_(torch.where(rectified > 0, rectified / square.sqrt().add_(self.eps), 1.0))
                elif rectified > 0:
                    step.div_(square.sqrt().add_(self.eps)).mul_(rectified)
                data.sub_(step, alpha=lr)

    def _rectification(self, t: float | Tensor) -> float | Tensor:
        """r_t, or 0 where it is too early for one."""
        beta2 = self.betas[1]
        last = 2 / (1 - beta2) - 1
        if last <= 5:
            return 0.0
        now = last - 2 * t * beta2**t / (1 - beta2**t)
        squared = (now - 4) * (now - 2) * last / ((last - 4) * (last - 2) * now)
        if isinstance(squared, Tensor):
            return torch.where(now > 5, squared, 0.0) ** 0.5
        return squared**0.5 if now > 5 else 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Adamax:
    """Adam under the largest norm: u = max(beta2 u, |g| + eps), w -= lr m / (u (1 - beta1^t)).

    Memory: "exp_avg" and "exp_inf" [P], "step" 0-d. Kingma and Ba, 2015, https://arxiv.org/abs/1412.6980, algorithm 2; eps as in
    torch.optim.Adamax, decay coupled.
    """

    lr: float = 2e-3
    """Learning rate."""
    betas: tuple[float, ...] = (0.9, 0.999)
    """Decay of the average of the gradient, and of its largest size so far."""
    eps: float = 1e-8
    """Added to the size of the gradient."""
    weight_decay: float = 0.0
    """Added to the gradient as weight_decay * w."""

    neutral: ClassVar["Adamax | None"] = None
    neutral_reason: ClassVar[str] = "a method always has an optimizer"

    def __post_init__(self) -> None:
        _check("Adamax", self)

    def init(self, parameters: FlatParameters) -> Memory:
        # eps is what the padding has for good; to a weight's first step it is the same as 0.
        largest = torch.full_like(parameters.data, self.eps)
        return {"exp_avg": torch.zeros_like(parameters.data), "exp_inf": largest, "step": counter(parameters)}

    def step(self, parameters: FlatParameters, memory: Memory, *, found_inf: Tensor | None = None) -> None:
        beta1, beta2 = self.betas
        with undone(found_inf, parameters.data, *memory.values()):
            correction = 1 - beta1 ** number(memory["step"].add_(1))
            for span, (data, grad, average, largest) in pieces(parameters, memory["exp_avg"], memory["exp_inf"]):
                grad = coupled(grad, data, self.weight_decay * span.decay_scale)
                average.lerp_(grad, 1 - beta1)
                torch.maximum(largest.mul_(beta2), grad.abs().add_(self.eps), out=largest)
                data.addcdiv_(average, largest.mul(correction), value=-self.lr * span.lr_scale)


def _check(kind: str, part: Adam | Nadam | Radam | Adamax) -> None:
    check_finite(f"{kind}.lr", part.lr)
    check_betas(f"{kind}.betas", part.betas)
    check_positive(f"{kind}.eps", part.eps)
    check_finite(f"{kind}.weight_decay", part.weight_decay)


def _decay(part: Nadam | Radam, data: Tensor, grad: Tensor, lr: float, scale: float) -> Tensor:
    """The gradient to go on with: the weights have decayed by now, or it carries the decay."""
    if not part.decoupled:
        return coupled(grad, data, part.weight_decay * scale)
    if part.weight_decay * scale:
        data.mul_(1 - lr * part.weight_decay * scale)
    return grad
