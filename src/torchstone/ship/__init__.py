"""Shipping: a trained model in use, built from a run's artifact.json and weights alone; no part of the training is imported.

artifact   what artifact.json says, read strictly, and the verified weights it names
arrays     samples handed over as arrays, .npy and .npz files
pictures   samples that are picture files
predictor  Predictor: samples in, labels and probabilities (or text) out, with the numbers of an evaluation
"""

from torchstone.ship.predictor import Predictor, load

__all__ = ["Predictor", "load"]
