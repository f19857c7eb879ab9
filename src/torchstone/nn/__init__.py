"""Layers the models are built of: activations, attention, drop path, initialization, batch norm over ranks, positions."""

from torchstone.nn.activation import ACTIVATIONS, Activation
from torchstone.nn.attention import CausalSelfAttention, KeyValueCache, causal_attention
from torchstone.nn.drop import DropPath, drop_path_shares
from torchstone.nn.init import fan_in_normal_, residual_scale
from torchstone.nn.norm import SyncBatchNorm, set_valid_rows, synchronize
from torchstone.nn.position import Rotation, rotary

__all__ = [
    "ACTIVATIONS",
    "Activation",
    "CausalSelfAttention",
    "DropPath",
    "KeyValueCache",
    "Rotation",
    "SyncBatchNorm",
    "causal_attention",
    "drop_path_shares",
    "fan_in_normal_",
    "residual_scale",
    "rotary",
    "set_valid_rows",
    "synchronize",
]
