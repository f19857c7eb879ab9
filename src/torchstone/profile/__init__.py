"""What a model costs, asked of it without training it.

count  parameters, multiply-accumulates, the memory a training needs
"""

from torchstone.profile.count import macs, parameters, training_memory

__all__ = ["macs", "parameters", "training_memory"]
