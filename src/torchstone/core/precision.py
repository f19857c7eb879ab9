"""Number formats a model computes in: fp32, or bf16 and fp16 by autocast."""

from contextlib import AbstractContextManager, nullcontext

import torch

FORMATS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(precision: str, device: torch.device) -> AbstractContextManager:
    """The context a forward pass runs in, in training, evaluation and prediction alike."""
    dtype = FORMATS[precision]
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)
