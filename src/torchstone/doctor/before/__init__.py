"""Checks before training, on samples of the data and copies of the model. Nothing is trained for good, and nothing is written.

check       what a check is: a name and a function of the patient
patient     the prepared experiment, samples of its splits, copies of its model
practice    small trainings of such copies
leaving_out samples to train without: the list, and the edit
start       the network before its first update: loss, variances, gradients, batch norm, memory
labels      class balance, label noise
duplicates  across splits and within the training split
inputs      scale, constants, train against test
learning    one batch by heart, baselines, shuffled labels
augment     augmentation that changes the class
"""

from torchstone.doctor.before import augment, duplicates, inputs, labels, learning, leaving_out, start
from torchstone.doctor.before.check import Check, Seen, Skip
from torchstone.doctor.before.patient import Patient

CHECKS: tuple[Check, ...] = (
    Check(name="memory", says="a step fits into memory", run=start.memory),
    Check(name="double_softmax", says="the loss gets logits, not probabilities", run=start.double_softmax),
    Check(name="untrained_parameters", says="every parameter has a gradient and a rate", run=start.untrained_parameters),
    Check(name="input_scale", says="inputs of about mean 0 and deviation 1", run=inputs.input_scale),
    Check(name="constant_inputs", says="no blank samples, no columns that never vary", run=inputs.constant_inputs),
    Check(name="init_variance", says="activations and gradients reach both ends of the network", run=start.init_variance),
    Check(name="loss_at_init", says="the first loss is that of equal probabilities (ln K)", run=start.loss_at_init),
    Check(name="class_balance", says="how often each class occurs", run=labels.class_balance),
    Check(name="duplicates_across", says="no sample in two splits", run=duplicates.duplicates_across),
    Check(name="duplicates_within", says="no training sample twice", run=duplicates.duplicates_within),
    Check(name="shift", says="train and test cannot be told apart", run=inputs.shift),
    Check(name="label_noise", says="labels that a cross-validated judge doubts", run=labels.label_noise),
    Check(name="overfit_one_batch", says="one batch is learnt by heart", run=learning.overfit_one_batch),
    Check(name="baselines", says="better than the most frequent class, zero inputs and a linear model", run=learning.baselines),
    Check(name="batch_norm", says="batch norm in its mode, on enough samples, caught up", run=start.batch_norm),
    Check(name="label_shuffle", says="shuffled labels cannot be guessed", run=learning.label_shuffle),
    Check(name="augmentation", says="augmented samples keep their class", run=augment.augmentation),
)
"""In the order in which they run: the cheap ones first."""

__all__ = ["CHECKS", "Check", "Patient", "Seen", "Skip", "leaving_out"]
