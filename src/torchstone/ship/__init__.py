"""Shipping: a trained model in use, built from a run's artifact.json and weights alone; no part of the training is imported.

artifact   what artifact.json says, read strictly, and the verified weights it names
inputs     what a model is given: picture files, folders of them, files of arrays
arrays     samples handed over as arrays, .npy and .npz files
labeled    labeled samples from elsewhere, their classes matched to the model's
predictor  Predictor: samples in, labels and probabilities (or text) out, with the numbers of an evaluation
ensemble   several of them that answer together: the mean of their probabilities
answers    those as lines, JSON and CSV
captions   pictures with their answer written below
"""

from torchstone.ship.ensemble import load
from torchstone.ship.predictor import Predictor

__all__ = ["Predictor", "load"]
