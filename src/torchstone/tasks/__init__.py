"""Tasks: what a model's outputs mean. The union is the registry.

A task goes from the data's facts to the output size, the default loss, the metrics and the one to select by, from a trained
model to the outputs it is judged by, and from those to what a person reads.

classify  Classify
views     the several looks at a picture of which Classify may average the probabilities
language  Language
"""

from torchstone.tasks.classify import Classify
from torchstone.tasks.language import Language

Task = Classify | Language

__all__ = ["Classify", "Language", "Task"]
