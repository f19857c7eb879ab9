"""Recipes: functions that return an experiment with good defaults. Each is a place to start from; every choice in it is one edit away.

digits        8x8 handwritten digits, a small residual ConvNet (the default of `make run`)
digits_mini   the same digits, a small MLP: about two seconds, for studies and tests
gpt_bytes     a byte-level GPT on text
"""

from collections.abc import Callable

from torchstone.experiment import Experiment
from torchstone.recipes.digits import digits, digits_mini
from torchstone.recipes.gpt import gpt_bytes

RECIPES: dict[str, Callable[[], Experiment]] = {"digits": digits, "digits-mini": digits_mini, "gpt-bytes": gpt_bytes}
"""By the name the command line uses."""

__all__ = ["RECIPES", "digits", "digits_mini", "gpt_bytes"]
