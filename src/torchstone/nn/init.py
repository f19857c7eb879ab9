"""Initial weights: the rules, what they act on, and what models use by themselves.

A rule is a part that a model's `init` takes; without one a model starts as its own paper says. A rule draws the weight of every linear
layer and convolution (and sets their biases to 0); embeddings, norms and activations keep their values. n is the fan: a filter's inputs
(`in`), its outputs (`out`), each times the filter's positions, or the `mean` of the two.
"""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from torchstone.core.tree import choices
from torchstone.nn.about import About
from torchstone.nn.activation import gain as gain_of

WHY_NOT_NEUTRAL = "weights start somewhere; none is the model's own way"
Distribution = Literal["normal", "uniform", "truncated"]
Layer = nn.Linear | _ConvNd


def fan_in_normal_(weight: Tensor, gain: float = math.sqrt(2.0)) -> None:
    """Fills a linear [out, in] or convolution [out, in, ...] weight with N(0, gain^2 / fan_in); the default gain suits ReLU.

    He et al., "Delving Deep into Rectifiers", 2015, https://arxiv.org/abs/1502.01852, eq. 10.
    """
    nn.init.normal_(weight, std=gain / math.sqrt(max(weight[0].numel(), 1)))


def residual_scale(depth: int) -> float:
    """1 / sqrt(2 depth): the factor on the last weight of each of `depth` blocks' two branches, so their sum keeps a branch's variance.

    Radford et al., "Language Models are Unsupervised Multitask Learners", 2019, section 2.3.
    """
    return 1.0 / math.sqrt(2.0 * depth)


@dataclass(frozen=True, kw_only=True, slots=True)
class Normal:
    """N(0, std^2), whatever the layer's size.

    Krizhevsky et al., "ImageNet Classification with Deep Convolutional Neural Networks", 2012, section 5.
    """

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = WHY_NOT_NEUTRAL

    std: float = 0.01
    """Standard deviation."""

    def __post_init__(self) -> None:
        if not 0 <= self.std < math.inf:
            raise ValueError(f"Normal.std must be finite and >= 0, got {self.std}")

    def __call__(self, model: nn.Module, activation: str) -> None:
        for _, layer in layers_of(model):
            fill_(layer.weight, "normal", self.std)


@dataclass(frozen=True, kw_only=True, slots=True)
class Uniform:
    """Uniform on [-r, r], variance r^2 / 3, whatever the layer's size; without an r it is 1 / sqrt(fan in).

    LeCun et al., "Efficient BackProp", 1998, section 4.6; r = 1 / sqrt(fan in) is Torch's of old.
    """

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = WHY_NOT_NEUTRAL

    r: float | None = None
    """Half the width; none: 1 / sqrt(fan in) of each layer."""

    def __post_init__(self) -> None:
        if self.r is not None and not 0 <= self.r < math.inf:
            raise ValueError(f"Uniform.r must be finite and >= 0, or none, got {self.r}")

    def __call__(self, model: nn.Module, activation: str) -> None:
        for _, layer in layers_of(model):
            r = fan_of(layer, "in") ** -0.5 if self.r is None else self.r
            fill_(layer.weight, "uniform", r / math.sqrt(3))


@dataclass(frozen=True, kw_only=True, slots=True)
class Truncated:
    """N(0, std^2) without what lies beyond `cut` standard deviations: no weight starts far out. Its variance is smaller by the cut.

    As vision transformers start: Dosovitskiy et al., 2020, https://arxiv.org/abs/2010.11929 (their code), with 0.02 and 2.
    """

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = WHY_NOT_NEUTRAL

    std: float = 0.02
    """Standard deviation before the cut."""
    cut: float = 2.0
    """Where the tails end, in standard deviations."""

    def __post_init__(self) -> None:
        if not 0 <= self.std < math.inf:
            raise ValueError(f"Truncated.std must be finite and >= 0, got {self.std}")
        if not 0 < self.cut < math.inf:
            raise ValueError(f"Truncated.cut must be finite and > 0, got {self.cut}")

    def __call__(self, model: nn.Module, activation: str) -> None:
        for _, layer in layers_of(model):
            nn.init.trunc_normal_(layer.weight, 0.0, self.std, -self.cut * self.std, self.cut * self.std)


@dataclass(frozen=True, kw_only=True, slots=True)
class Xavier:
    """Variance gain^2 / n with n = (fan in + fan out) / 2: a compromise that keeps both activations and gradients; made for tanh.

    Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural networks", 2010, eq. 12 and 16.
    """

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = WHY_NOT_NEUTRAL

    distribution: Distribution = "normal"
    """normal; uniform on +-sqrt(3) standard deviations; or truncated at two, its variance made up for."""
    gain: float | None = 1.0
    """Factor on the standard deviation: 1 is the paper's; none: by the model's activation."""

    def __post_init__(self) -> None:
        _check_distribution(self)

    def __call__(self, model: nn.Module, activation: str) -> None:
        for layer, gain in _with_gains(model, self.gain, activation):
            fill_(layer.weight, self.distribution, gain * fan_of(layer, "mean") ** -0.5)


@dataclass(frozen=True, kw_only=True, slots=True)
class Kaiming:
    """Variance gain^2 / n, which keeps the activations' second moment from layer to layer (or, by fan out, the gradients'): 2 / n for ReLU.

    He et al., "Delving Deep into Rectifiers", 2015, https://arxiv.org/abs/1502.01852, eq. 10 and 14. With gain 1 (SELU's own) it is
    LeCun et al.'s of 1998.
    """

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = WHY_NOT_NEUTRAL

    fan: Literal["in", "out", "mean"] = "in"
    """What n counts."""
    distribution: Distribution = "normal"
    """normal; uniform on +-sqrt(3) standard deviations; or truncated at two, its variance made up for."""
    gain: float | None = None
    """Factor on the standard deviation; none: by the activation (sqrt(2) for ReLU), and 1 for the first layer and the head."""

    def __post_init__(self) -> None:
        if self.fan not in ("in", "out", "mean"):
            raise ValueError(f"Kaiming.fan must be in, out or mean, got {self.fan}")
        _check_distribution(self)

    def __call__(self, model: nn.Module, activation: str) -> None:
        for layer, gain in _with_gains(model, self.gain, activation):
            fill_(layer.weight, self.distribution, gain * fan_of(layer, self.fan) ** -0.5)


@dataclass(frozen=True, kw_only=True, slots=True)
class Orthogonal:
    """Rows (or columns, the fewer of them) that are orthogonal and of length `gain`; filters laid flat.

    Saxe et al., "Exact solutions to the nonlinear dynamics of learning in deep linear neural networks", 2013,
    https://arxiv.org/abs/1312.6120, section 3.
    """

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = WHY_NOT_NEUTRAL

    gain: float | None = None
    """The length; none: by the model's activation, and 1 for the first layer and the head."""

    def __post_init__(self) -> None:
        _check_gain(self)

    def __call__(self, model: nn.Module, activation: str) -> None:
        for layer, gain in _with_gains(model, self.gain, activation):
            if layer.weight.numel():
                nn.init.orthogonal_(layer.weight, gain)


@dataclass(frozen=True, kw_only=True, slots=True)
class LSUV:
    """Layer-sequential unit variance: orthogonal first, then every layer divided by the standard deviation of what it puts out.

    Mishkin and Matas, "All you need is a good init", 2015, https://arxiv.org/abs/1511.06422, algorithm 1. The layers without biases (which
    start at 0) are linear, so dividing once is exact and the paper's repetitions fall away. Needs training samples.
    """

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = WHY_NOT_NEUTRAL

    samples: int = 256
    """Training samples that are looked at."""

    def __post_init__(self) -> None:
        if self.samples < 2:
            raise ValueError(f"LSUV.samples must be >= 2, got {self.samples}")

    def __call__(self, model: nn.Module, activation: str) -> None:
        Orthogonal(gain=1.0)(model, activation)

    @torch.no_grad()
    def initialize_from(self, model: nn.Module, inputs: Tensor) -> None:
        """Scales the layers in the order in which the model runs them, in one pass in evaluation mode. A dead layer is left as it is."""
        seen: set[nn.Module] = set()

        def scale(layer: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> Tensor:
            weight = layer.weight
            std = output.float().std(correction=0)
            if layer in seen or not bool(std > 1e-8) or not bool(std.isfinite()):
                return output
            seen.add(layer)
            assert isinstance(weight, Tensor)
            weight.div_(std.to(weight.dtype))
            return output / std.to(output.dtype)

        was_training = model.training
        hooks = [layer.register_forward_hook(scale) for _, layer in layers_of(model)]
        try:
            model.eval()(inputs[: self.samples])
        finally:
            model.train(was_training)
            for hook in hooks:
                hook.remove()


@dataclass(frozen=True, kw_only=True, slots=True)
class MuP:
    """Maximal update parametrization, the weights' half: Kaiming by fan in, and a head smaller by the square root of the widening.

    Yang et al., "Tensor Programs V", 2022, https://arxiv.org/abs/2203.03466, table 3. With `method.groups=mup` at the same base the best
    rates of a narrow network are those of a wide one. At the base width it is `kaiming`. Where a transformer's heads grow with it, muP's
    attention is `model.attention_scale=inverse`.
    """

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = WHY_NOT_NEUTRAL

    base: int = 128
    """The width at which the rates were found: the inputs (channels) of the narrowest hidden layer."""

    def __post_init__(self) -> None:
        if self.base < 1:
            raise ValueError(f"MuP.base must be >= 1, got {self.base}")

    def __call__(self, model: nn.Module, activation: str) -> None:
        Kaiming()(model, activation)
        wider = widening(model, self.base)
        with torch.no_grad():
            for name, layer in layers_of(model):
                if in_head(name):
                    layer.weight.mul_(wider**-0.5)


Init = Normal | Uniform | Truncated | Xavier | Kaiming | Orthogonal | LSUV | MuP
INITS: dict[str, type] = choices(Init)
ABOUT: dict[str, About] = {
    "normal": About("Normal weights of one spread, whatever the layer.", "N(0, std^2)", "Krizhevsky et al., 2012, section 5"),
    "uniform": About("Uniform weights; variance r^2 / 3.", "U[-r, r], r = 1 / sqrt(fan in)", "LeCun et al., Efficient BackProp, 1998"),
    "truncated": About(
        "Normal weights without their tails.", "N(0, std^2), |w| <= cut std", "Dosovitskiy et al., 2020, https://arxiv.org/abs/2010.11929"
    ),
    "xavier": About(
        "Keeps activations and gradients about equally; made for tanh.",
        "Var w = gain^2 2 / (fan in + fan out)",
        "Glorot and Bengio, Understanding the difficulty of training deep feedforward neural networks, 2010",
    ),
    "kaiming": About(
        "Keeps the activations' second moment behind the model's activation: twice the variance for ReLU.",
        "Var w = gain^2 / n, gain^2 = 1 / E f(z)^2",
        "He et al., Delving Deep into Rectifiers, 2015, https://arxiv.org/abs/1502.01852",
    ),
    "orthogonal": About(
        "Filters at right angles, so that no direction is lost.", "W W^T = gain^2 I", "Saxe et al., 2013, https://arxiv.org/abs/1312.6120"
    ),
    "lsuv": About(
        "Orthogonal, then every layer scaled to unit variance on training samples.",
        "W / std(W x)",
        "Mishkin and Matas, All you need is a good init, 2015, https://arxiv.org/abs/1511.06422",
    ),
    "mup": About(
        "Widths that share their best learning rate; with method.groups=mup.",
        "hidden Var w = gain^2 / fan in, head Var w = base / fan in^2",
        "Yang et al., Tensor Programs V, 2022, https://arxiv.org/abs/2203.03466",
    ),
}
"""Every rule's meaning, by its kind."""


def draw_weights(model: nn.Module, init: Init | None, activation: str) -> None:
    """Lets the rule draw the weights of `model`, which already has its own; biases of linear layers and convolutions become 0."""
    if init is None:
        return
    with torch.no_grad():
        init(model, activation)
        for _, layer in layers_of(model):
            if layer.bias is not None:
                layer.bias.zero_()


def layers_of(model: nn.Module) -> list[tuple[str, Layer]]:
    """(name, layer) of the linear layers and convolutions in the order of the model, but those that share an embedding's weight."""
    tied = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    layers = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear | _ConvNd)]
    return [(name, layer) for name, layer in layers if id(layer.weight) not in tied]


def fan_of(layer: Layer, fan: Literal["in", "out", "mean"]) -> float:
    """n: what one output number reads, what one input number feeds (without strides), or the mean of both; at least 1."""
    weight = layer.weight
    reads = weight[0].numel() if len(weight) else 1
    groups = layer.groups if isinstance(layer, _ConvNd) else 1
    feeds = weight.shape[0] // groups * math.prod(weight.shape[2:])
    return max(1.0, {"in": reads, "out": feeds, "mean": (reads + feeds) / 2}[fan])


def fill_(weight: Float[Tensor, "..."], distribution: Distribution, std: float) -> None:
    """Fills with mean 0 and standard deviation `std`."""
    match distribution:
        case "normal":
            nn.init.normal_(weight, std=std)
        case "uniform":
            nn.init.uniform_(weight, -math.sqrt(3) * std, math.sqrt(3) * std)
        case "truncated":
            # The standard deviation of N(0, 1) cut at two is 0.8796: the density at the cut over the mass inside says so.
            inside = math.erf(math.sqrt(2))
            std = std / math.sqrt(1 - 4 * math.exp(-2) / math.sqrt(2 * math.pi) / inside)
            nn.init.trunc_normal_(weight, 0.0, std, -2 * std, 2 * std)


def input_layer(model: nn.Module) -> nn.Module | None:
    """The layer that reads the data, whose inputs do not grow with the network: none where an embedding does."""
    if any(isinstance(module, nn.Embedding) for module in model.modules()):
        return None
    return next((layer for _, layer in layers_of(model)), None)


def widening(model: nn.Module, base: int) -> float:
    """The width over `base`: the width is the inputs of the narrowest layer behind the first (a depthwise convolution has none)."""
    first = input_layer(model)
    widths = [
        layer.weight.shape[1]
        for _, layer in layers_of(model)
        if layer is not first and not (isinstance(layer, _ConvNd) and layer.groups > 1)
    ]
    return min(widths, default=base) / base


def in_head(name: str) -> bool:
    """Whether a layer of this name is (in) the output layer."""
    return "head" in name.split(".")


def _with_gains(model: nn.Module, gain: float | None, activation: str) -> list[tuple[Layer, float]]:
    """Each layer with its gain: the one given, else that of the activation; 1 for the layer that reads the data, and for the head."""
    first = input_layer(model)
    plain = [layer is first or in_head(name) for name, layer in layers_of(model)]
    behind = gain_of(activation)
    return [
        (layer, gain if gain is not None else 1.0 if alone else behind) for (_, layer), alone in zip(layers_of(model), plain, strict=True)
    ]


def _check_distribution(part: Xavier | Kaiming) -> None:
    if part.distribution not in ("normal", "uniform", "truncated"):
        raise ValueError(f"{type(part).__name__}.distribution must be normal, uniform or truncated, got {part.distribution}")
    _check_gain(part)


def _check_gain(part: Xavier | Kaiming | Orthogonal) -> None:
    if part.gain is not None and not 0 < part.gain < math.inf:
        raise ValueError(f"{type(part).__name__}.gain must be finite and > 0, or none, got {part.gain}")
