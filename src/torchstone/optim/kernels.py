"""The fused update kernels of torch, behind two functions: all of an optimizer's arithmetic in one pass over the buffers.

torch keeps these kernels private (`torch._fused_adamw_`, `torch._fused_adam_`, `torch._fused_sgd_`), so this file is the only one that
names them; where they are missing, the public functional form does the same in several passes. `found_inf` (0-d float32; 1.0 = change
nothing) is read inside the kernel, on the device; the fallback has to wait for it. Flat buffers are no autograd leaves: nothing here needs
`no_grad` (3 us a call).
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.optim.adam import adam
from torch.optim.adamw import adamw
from torch.optim.sgd import sgd

_FUSED = all(hasattr(torch, name) for name in ("_fused_adamw_", "_fused_adam_", "_fused_sgd_"))
_FUSED_DEVICES = frozenset({"cpu", "cuda", "mps", "xpu"})


def has_fused(tensor: Tensor) -> bool:
    return _FUSED and tensor.device.type in _FUSED_DEVICES


def adam_(
    data: Sequence[Tensor],
    grad: Sequence[Tensor],
    exp_avg: Sequence[Tensor],
    exp_avg_sq: Sequence[Tensor],
    step: Tensor,
    *,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
    decoupled: bool = True,
    found_inf: Tensor | None = None,
) -> None:
    """One AdamW update in place, or Adam's, whose decay is added to the gradient. `step` (0-d float32) counts this update already."""
    lists = (list(data), list(grad), list(exp_avg), list(exp_avg_sq), [], [step] * len(data))
    beta1, beta2 = betas
    if has_fused(step):
        (torch._fused_adamw_ if decoupled else torch._fused_adam_)(
            *lists,
            lr=lr,
            beta1=beta1,
            beta2=beta2,
            weight_decay=weight_decay,
            eps=eps,
            amsgrad=False,
            maximize=False,
            found_inf=found_inf,
        )
    elif found_inf is None or not found_inf.item():
        before = [step - 1 for _ in data]  # the functional form counts by itself
        functional = adamw if decoupled else adam
        functional(*lists[:5], before, amsgrad=False, beta1=beta1, beta2=beta2, lr=lr, weight_decay=weight_decay, eps=eps, maximize=False)


def sgd_(
    data: Sequence[Tensor],
    grad: Sequence[Tensor],
    momentum_buffer: Sequence[Tensor],
    *,
    lr: float,
    momentum: float,
    nesterov: bool,
    weight_decay: float,
    found_inf: Tensor | None = None,
) -> None:
    """One SGD update in place, decay added to the gradient. `momentum_buffer` starts at 0 and is empty where momentum is 0."""
    # torch 2.13 computes the weights of half precision on the CPU and forgets to store them: torch.optim.SGD(fused=True) stands still too.
    forgets = data[0].device.type == "cpu" and data[0].element_size() < 4
    if has_fused(data[0]) and not forgets:
        torch._fused_sgd_(
            list(data),
            list(grad),
            list(momentum_buffer),
            weight_decay=weight_decay,
            momentum=momentum,
            lr=lr,
            dampening=0.0,
            nesterov=nesterov,
            maximize=False,
            is_first_step=False,  # a buffer of zeros makes the first step what torch makes it: the gradient itself
            found_inf=found_inf,
        )
    elif found_inf is None or not found_inf.item():
        buffers: list[Tensor | None] = [*momentum_buffer] or [None] * len(data)
        sgd(
            list(data),
            list(grad),
            buffers,
            weight_decay=weight_decay,
            momentum=momentum,
            lr=lr,
            dampening=0.0,
            nesterov=nesterov,
            maximize=False,
        )
