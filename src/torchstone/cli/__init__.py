"""The command line: a file a verb, which parses, calls and prints. `--help` of any verb imports no torch.

train    trains a recipe or a .toml file         eval     the metrics of a run's weights
predict  the answer for each input               runs     a table of the runs in a folder
list     what there is to choose from            explain  one part, from its own documentation
doctor   looks before a training: which rate     env      versions and machine
explained  what explain says, as data            curves   what a part looks like
parsing  options, and the one-line errors        pictures files that a verb draws
output   what goes to stdout, and errors to exit codes
"""

from torchstone.cli.main import main

__all__ = ["main"]
