"""GPT: a decoder-only transformer over tokens, pre-norm, with rotary or learned positions.

Radford et al., "Language Models are Unsupervised Multitask Learners", 2019 (GPT-2, of which GPT2_SMALL is the published shape).
Shapes: N sequences, T tokens, V vocabulary.
"""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from torchstone.core import random
from torchstone.core.errors import UserError
from torchstone.core.protocols import InputShape, TokenShape
from torchstone.models.choices import check_choices
from torchstone.nn import (
    NORMS,
    OVER_TOKENS,
    AttentionScale,
    BlockActivation,
    CausalSelfAttention,
    DropPath,
    Init,
    KeyValueCache,
    Norm,
    Rotation,
    WordDropout,
    activation_layer,
    draw_weights,
    drop_path_shares,
    gated_width,
    residual_scale,
    rotary,
    token_norm,
    widened,
)

BRANCH_ENDS = ("attention.out.weight", "mlp.out.weight")
"""The last weight of each branch."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GPTConfig:
    """Decoder-only transformer; the data say its vocabulary and context."""

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = "a model is what is trained; no training is without one"

    depth: int = 4
    """Blocks of attention and MLP."""
    dim: int = 256
    """Channels of a token."""
    num_heads: int = 4
    """Attention heads; each has dim / num_heads channels."""
    attention_scale: AttentionScale = "rsqrt"
    """What queries times keys are divided by, with D channels a head: rsqrt the root of D (Vaswani et al. 2017, section 3.2.1), inverse D
    (muP: Yang et al. 2022, definition 4.1), none nothing."""
    mlp_ratio: float = 4.0
    """Width of the MLP's hidden layer over dim."""
    activation: BlockActivation = "gelu"
    """Between the MLP's two layers; with a gate (glu, swiglu, ...) the hidden layer has two thirds of its width, twice."""
    positions: Literal["rotary", "learned"] = "rotary"
    """How a token knows its place: queries and keys turned by it, or a learned vector added to the token's."""
    norm: Norm = "layer"
    """Before each branch, over one token's channels: layer, rms (in eager mode on a CPU four times the layer norm's time), group, none."""
    init: Init | None = None
    """Rule that draws the first weights (nn.init); none: as the source above has them."""
    qk_norm: bool = False
    """Normalize queries and keys to unit mean square, which keeps attention from saturating at high learning rates."""
    bias: bool = False
    """Biases in the linear layers and the layer norms."""
    dropout: float = 0.0
    """Share of the embedding and of each branch's output that training drops at random (attention weights are not dropped)."""
    drop_path: float = 0.0
    """Probability that training leaves out the last block's branches for a sequence; falls linearly to 0 at the first block."""
    word_dropout: float = 0.0
    """Share of the tokens whose embedding training replaces by 0."""
    tie: bool = False
    """Share one matrix between the token embedding and the head."""

    def __post_init__(self) -> None:
        for name, value in (("depth", self.depth), ("dim", self.dim), ("num_heads", self.num_heads)):
            if value < 1:
                raise ValueError(f"GPTConfig.{name} must be >= 1, got {value}")
        if self.dim % self.num_heads:
            raise ValueError(f"GPTConfig.num_heads must divide dim = {self.dim}, got {self.num_heads}")
        if self.positions not in ("rotary", "learned"):
            raise ValueError(f"GPTConfig.positions must be rotary or learned, got {self.positions}")
        if self.positions == "rotary" and self.dim // self.num_heads % 2:
            raise ValueError(
                f"GPTConfig.num_heads must leave an even dim / num_heads for rotary positions, got {self.dim} / {self.num_heads}"
            )
        if not (math.isfinite(self.mlp_ratio) and self.mlp_ratio * self.dim >= 1):
            raise ValueError(f"GPTConfig.mlp_ratio must leave the hidden layer at least one channel, got {self.mlp_ratio}")
        check_choices(self)
        if self.norm in OVER_TOKENS:
            fitting = ", ".join(norm for norm in NORMS if norm not in OVER_TOKENS)
            raise ValueError(
                f"GPTConfig.norm must be one of {fitting}: statistics over a text's tokens would show each what follows it, got {self.norm}"
            )

    def build(self, inputs: InputShape, outputs: int) -> "GPT":
        """`outputs` is the vocabulary that is predicted, as a rule that of the inputs."""
        if not isinstance(inputs, TokenShape):
            raise UserError(f"model gpt reads tokens, but the data give {inputs}; mlp reads vectors and images, conv_net reads images")
        if self.tie and outputs != inputs.vocabulary:
            raise UserError(f"model.tie needs as many outputs as the vocabulary has tokens, got {outputs} and {inputs.vocabulary}")
        return GPT(self, inputs.vocabulary, inputs.length, outputs)


GPT2_SMALL = GPTConfig(depth=12, dim=768, num_heads=12, activation="gelu_tanh", positions="learned", bias=True, dropout=0.1, tie=True)
"""124,439,808 parameters with GPT-2's 50,257 tokens and context of 1,024, as published."""


class GPT(nn.Module):
    """tokens [N T] -> the next token's logits [N T V] at each position, T up to `context`."""

    def __init__(self, config: GPTConfig, vocabulary: int, context: int, outputs: int) -> None:
        super().__init__()
        self.config = config
        self.context = context
        self.embedding = nn.Embedding(vocabulary, config.dim)
        self.position = nn.Embedding(context, config.dim) if config.positions == "learned" else None
        self.blocks = nn.ModuleList(Block(config, share) for share in drop_path_shares(config.depth))
        self.norm = norm_layer(config)
        self.head = nn.Linear(config.dim, outputs, bias=False)
        if config.tie:
            self.head.weight = self.embedding.weight
        self.word_dropout = WordDropout(config.word_dropout)
        self._initialize()

    @torch.no_grad()
    def _initialize(self) -> None:
        """GPT-2's: N(0, 0.02^2) everywhere, biases 0, the last weight of each branch scaled down by the number of branches."""
        for name, parameter in self.named_parameters():
            if parameter.ndim >= 2:
                branch_end = name.endswith(BRANCH_ENDS)
                nn.init.normal_(parameter, std=0.02 * (residual_scale(self.config.depth) if branch_end else 1.0))
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)
        if self.config.init is not None:
            draw_weights(self, self.config.init, self.config.activation)
            for name, parameter in self.named_parameters():
                if name.endswith(BRANCH_ENDS):
                    parameter.mul_(residual_scale(self.config.depth))

    def forward(self, tokens: Int[Tensor, "N T"]) -> Float[Tensor, "N T V"]:
        """Raises ValueError when T exceeds the context."""
        return self.head(self._encode(tokens))

    def _encode(self, tokens: Tensor, caches: list[KeyValueCache] | None = None) -> Float[Tensor, "N T dim"]:
        start = caches[0].length if caches else 0
        length = tokens.shape[1]
        if start + length > self.context:
            raise ValueError(f"gpt reads at most {self.context} tokens at once (the data's context), got {start + length}")
        x = self.word_dropout(self.embedding(tokens))
        rotation = None
        if self.position is not None:
            x = x + self.position.weight[start : start + length]
        else:
            rotation = rotary(start, length, self.config.dim // self.config.num_heads, like=x)
        if self.config.dropout:
            x = F.dropout(x, self.config.dropout, self.training)
        for i, block in enumerate(self.blocks):
            x = block(x, rotation, caches[i] if caches else None)
        return self.norm(x)

    @torch.no_grad()
    def generate(
        self, prompt: Int[Tensor, "1 T"], count: int, *, temperature: float = 0.0, top_k: int = 0, key: int = 0, cached: bool = True
    ) -> Int[Tensor, "1 length"]:
        """The prompt followed by `count` tokens more.

        At `temperature` 0 each is the likeliest; otherwise they are drawn, among the `top_k` likeliest if that is not 0, as a pure function
        of `key`. `cached` = False encodes everything anew for each token: slow, the same tokens, for checks.
        Only the end of a prompt longer than the context is read. Where the text outgrows the context, its newest context // 2 tokens (at
        least 1) are encoded anew from position 0; every other token costs one cached step.
        Raises ValueError in training mode and for an empty prompt.
        """
        if self.training:
            raise ValueError("GPT.generate needs the model in evaluation mode: call model.eval() first")
        if prompt.shape[1] == 0:
            raise ValueError("GPT.generate needs a prompt of at least one token")
        if temperature < 0 or top_k < 0:
            raise ValueError(f"GPT.generate needs temperature >= 0 and top_k >= 0, got {temperature} and {top_k}")
        draws = random.uniform(random.sample_keys(key, torch.arange(count)), 1)[:, 0].tolist() if temperature > 0 else [0.0] * count
        tokens = prompt
        window = max(0, tokens.shape[1] - self.context)
        caches: list[KeyValueCache] = []
        for draw in draws:
            if tokens.shape[1] - window > self.context:
                window = tokens.shape[1] - max(1, self.context // 2)
                caches = []
            if cached and caches:
                encoded = self._encode(tokens[:, -1:], caches)
            else:
                caches = [KeyValueCache(self.context) for _ in self.blocks] if cached else []
                encoded = self._encode(tokens[:, window:], caches)
            chosen = choose(self.head(encoded[0, -1]), temperature, top_k, draw)
            tokens = torch.cat([tokens, chosen.view(1, 1)], dim=1)
        return tokens


def choose(logits: Float[Tensor, " V"], temperature: float, top_k: int, draw: float) -> Int[Tensor, ""]:
    """The index of the largest logit, or, at a temperature, the one where the cumulative probability passes `draw` in [0, 1)."""
    if temperature == 0:
        return logits.argmax()
    kept, index = logits.double().sort(descending=True, stable=True)
    kept = kept[: top_k or None]
    cumulative = ((kept - kept[0]) / temperature).softmax(dim=0).cumsum(dim=0)
    return index[(cumulative <= draw * cumulative[-1]).sum()]


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)); each branch through dropout and drop path."""

    def __init__(self, config: GPTConfig, drop_path_share: float) -> None:
        super().__init__()
        self.dropout = config.dropout
        self.attention_norm = norm_layer(config)
        self.attention = CausalSelfAttention(
            config.dim, config.num_heads, qk_norm=config.qk_norm, bias=config.bias, scale=config.attention_scale
        )
        self.mlp_norm = norm_layer(config)
        self.mlp = FeedForward(config)
        self.drop_path = DropPath(config.drop_path, drop_path_share)

    def forward(
        self, x: Float[Tensor, "N T dim"], rotation: Rotation | None = None, cache: KeyValueCache | None = None
    ) -> Float[Tensor, "N T dim"]:
        x = x + self._dropped(self.attention(self.attention_norm(x), rotation, cache))
        return x + self._dropped(self.mlp(self.mlp_norm(x)))

    def _dropped(self, branch: Tensor) -> Tensor:
        if self.dropout:
            branch = F.dropout(branch, self.dropout, self.training)
        return self.drop_path(branch)


class FeedForward(nn.Module):
    """Two linear layers, each token by itself."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        hidden = gated_width(config.activation, round(config.mlp_ratio * config.dim))
        self.activation = activation_layer(config.activation, hidden, dim=-1)
        self.hidden = nn.Linear(config.dim, widened(config.activation) * hidden, bias=config.bias)
        self.out = nn.Linear(hidden, config.dim, bias=config.bias)

    def forward(self, x: Float[Tensor, "N T dim"]) -> Float[Tensor, "N T dim"]:
        return self.out(self.activation(self.hidden(x)))


def norm_layer(config: GPTConfig) -> nn.Module:
    return token_norm(config.norm, config.dim, eps=1e-6 if config.norm == "rms" else 1e-5, bias=config.bias)
