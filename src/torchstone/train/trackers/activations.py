"""What flows through a model in one forward pass: how large it is layer by layer, which units are dead, which are saturated.

The outputs of weight layers are seen by forward hooks; activations are functions here as often as modules, so they are seen where torch
calls them (a `TorchFunctionMode`). Both are there for one forward pass and gone after it.

Saturated as in Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural networks", 2010: so far out that the
slope is below a hundredth of its largest. Dead as in Lu et al., "Dying ReLU and Initialization", 2019, https://arxiv.org/abs/1903.06733:
zero for every sample looked at. Shapes: N samples, units in dimension 1 of maps [N, C, H, W] and [N, C], in the last of [N, T, D].
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

ROWS = 64
"""Samples of the micro-batch that are looked at."""
EDGE = 0.01
"""A sigmoid within it of 0 or 1 has a slope of at most 4 EDGE of its largest; a softmax row has one probability above 1 - EDGE."""
TANH_EDGE = 0.995
"""1 - tanh^2 is below a hundredth beyond it."""

DEAD = {"relu", "relu_", "relu6", "threshold", "threshold_"}
SATURATED = {"sigmoid", "sigmoid_", "tanh", "tanh_", "softmax", "hardtanh"}


class Activations:
    """The statistics of one forward pass of `model`, the next one after `arm`, in the order in which things were computed.

    Numbers stay on the device until `read`.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.outputs: list[tuple[str, Tensor]] = []
        self.activations: list[tuple[str, str, Tensor]] = []
        self._last = ""
        self._running = ""
        self._handles: list[RemovableHandle] = []
        self._mode: _Functions | None = None

    def arm(self) -> None:
        """Watches the next forward pass."""
        self.disarm()
        self.outputs, self.activations, self._last, self._running = [], [], "", ""
        for name, module in self.model.named_modules():
            if module is not self.model and not any(True for _ in module.children()):
                self._handles.append(module.register_forward_pre_hook(self._entering(name)))
                self._handles.append(module.register_forward_hook(self._leaving(name)))
        self._handles.append(self.model.register_forward_pre_hook(self._start))
        self._handles.append(self.model.register_forward_hook(self._end, always_call=True))

    def disarm(self) -> None:
        """Leaves the model as it was found."""
        self._end()
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _start(self, *_: Any) -> None:
        if self._mode is None and not self.outputs:
            self._mode = _Functions(self._function)
            self._mode.__enter__()

    def _end(self, *_: Any) -> None:
        """Only the first forward pass of a step is watched."""
        if self._mode is not None:
            mode, self._mode = self._mode, None
            mode.__exit__(None, None, None)

    def _entering(self, name: str) -> Callable[..., None]:
        def enter(*_: Any) -> None:
            self._running = name

        return enter

    def _leaving(self, name: str) -> Callable[..., None]:
        def leave(module: nn.Module, _: Any, output: Any) -> None:
            self._running = ""
            if any(True for _ in module.parameters()):
                self._last = name
            weight = getattr(module, "weight", None)
            if self._mode is not None and isinstance(weight, Tensor) and weight.ndim >= 2 and usable(output):
                with torch.no_grad():
                    self.outputs.append((name, moments(output)))

        return leave

    def _function(self, name: str, output: Any) -> None:
        if name not in DEAD | SATURATED or not usable(output):
            return
        with torch.no_grad():
            some = output.detach()[:ROWS]
            share = dead_share(some) if name in DEAD else saturated_share(name, some)
            self.activations.append((self._running or self._last, name.rstrip("_"), torch.stack([*moments(some), share])))


class _Functions(TorchFunctionMode):
    """Tells `seen` the name and the output of every torch function that is called."""

    def __init__(self, seen: Callable[[str, Any], None]) -> None:
        super().__init__()
        self._seen = seen

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        output = func(*args, **(kwargs or {}))
        self._seen(getattr(func, "__name__", ""), output)
        return output


def usable(output: Any) -> bool:
    return isinstance(output, Tensor) and output.is_floating_point() and output.ndim >= 2 and output.numel() > 0


def moments(output: Tensor) -> Tensor:
    """Mean and standard deviation, float32 [2]: from a sum and a norm, fifty times as fast as `std_mean` on a CPU."""
    some = output.detach()[:ROWS].float()
    mean = some.mean()
    return torch.stack([mean, (torch.linalg.vector_norm(some).square() / some.numel() - mean.square()).clamp(min=0).sqrt()])


def dead_share(output: Tensor) -> Tensor:
    """The share of units that are zero for every sample and place."""
    units = 1 if output.ndim != 3 else 2
    others = [d for d in range(output.ndim) if d != units]
    return (output.amax(dim=others) <= 0).float().mean()


def saturated_share(name: str, output: Tensor) -> Tensor:
    """The share of outputs (of rows, for a softmax) on the flat ends."""
    match name.rstrip("_"):
        case "sigmoid":
            return ((output - 0.5).abs() > 0.5 - EDGE).float().mean()
        case "softmax":
            return (output.amax(dim=-1) > 1 - EDGE).float().mean()
        case _:
            return (output.abs() > TANH_EDGE).float().mean()
