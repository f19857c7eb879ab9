"""The experiment and what becomes of it.

tree       Experiment: the frozen tree that says everything about one training; `load_experiment` reads one from a file
preparing  `prepare`: the data opened, and everything that depends on them or on the machine filled in; nothing on disk
running    `train_experiment`: a prepared experiment in its run folder, from 0 or from its newest checkpoint
saddle     `saddle_of_run`: gradient, extreme curvatures and a verdict on the weights of a run
keepsakes  what a finished run keeps for its report: outputs on the test split, mistakes, samples after augmentation
"""

from torchstone.experiment.preparing import Prepared, choose_device, prepare, reshaped, resolved, threads_restored
from torchstone.experiment.running import Trained, resume_state, train_experiment
from torchstone.experiment.saddle import saddle_of_run
from torchstone.experiment.tree import Experiment, load_experiment, load_without_own_parts

__all__ = [
    "Experiment",
    "Prepared",
    "Trained",
    "choose_device",
    "load_experiment",
    "load_without_own_parts",
    "prepare",
    "reshaped",
    "resolved",
    "resume_state",
    "saddle_of_run",
    "threads_restored",
    "train_experiment",
]
