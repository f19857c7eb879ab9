"""Tasks: what a model's outputs mean. The union is the registry.

A task goes from the data's facts to the output size, the default loss, the metrics and the one to select by, and from
outputs to what a person reads.

classify  Classify
language  Language
"""

from torchstone.tasks.classify import Classify
from torchstone.tasks.language import Language

Task = Classify | Language

__all__ = ["Classify", "Language", "Task"]
