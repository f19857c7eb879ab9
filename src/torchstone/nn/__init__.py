"""Layers the models are built of: activations, norms, initial weights, dropout and its kin, attention, positions.

`activation`, `norm` and `init` each have a table ABOUT: what every name means, its formula and its paper.
"""

from torchstone.nn.about import About
from torchstone.nn.activation import (
    ACTIVATIONS,
    GATES,
    Activation,
    BlockActivation,
    activation_layer,
    activation_layers,
    gain,
    gated_width,
    widened,
)
from torchstone.nn.attention import AttentionScale, CausalSelfAttention, KeyValueCache, causal_attention, score_scale
from torchstone.nn.drop import DropBlock, DropPath, WordDropout, drop_path_shares
from torchstone.nn.init import INITS, LSUV, Init, draw_weights, fan_in_normal_, residual_scale
from torchstone.nn.norm import (
    NORMS,
    OVER_TOKENS,
    FrozenBatchNorm,
    Norm,
    SyncBatchNorm,
    freeze_batch_norm,
    has_shift,
    norm_layer,
    set_valid_rows,
    synchronize,
    token_norm,
    zero_branch,
)
from torchstone.nn.position import Rotation, rotary
from torchstone.nn.switchable import SwitchableNorm

__all__ = [
    "ACTIVATIONS",
    "GATES",
    "INITS",
    "LSUV",
    "NORMS",
    "OVER_TOKENS",
    "About",
    "Activation",
    "AttentionScale",
    "BlockActivation",
    "CausalSelfAttention",
    "DropBlock",
    "DropPath",
    "FrozenBatchNorm",
    "Init",
    "KeyValueCache",
    "Norm",
    "Rotation",
    "SwitchableNorm",
    "SyncBatchNorm",
    "WordDropout",
    "activation_layer",
    "activation_layers",
    "causal_attention",
    "draw_weights",
    "drop_path_shares",
    "fan_in_normal_",
    "freeze_batch_norm",
    "gain",
    "gated_width",
    "has_shift",
    "norm_layer",
    "residual_scale",
    "rotary",
    "score_scale",
    "set_valid_rows",
    "synchronize",
    "token_norm",
    "widened",
    "zero_branch",
]
