"""Losses (one number a term) and penalties (one number a model). The unions are the registry.

targets        what a classification target may be, and the expectation under it
class_weights  weights of the classes: given, or balanced from the data
cross_entropy  CrossEntropy, with smoothing, ignored terms and class weights
focal          Focal
regression     MSE, on outputs or on probabilities
penalties      L2
"""

from torchstone.losses.cross_entropy import CrossEntropy
from torchstone.losses.focal import Focal
from torchstone.losses.penalties import L2
from torchstone.losses.regression import MSE

Loss = CrossEntropy | Focal | MSE
Penalty = L2

__all__ = ["L2", "MSE", "CrossEntropy", "Focal", "Loss", "Penalty"]
