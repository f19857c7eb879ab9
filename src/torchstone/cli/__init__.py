"""The command line: a file a verb, which parses, calls and prints. `--help` of any verb imports no torch.

train    trains a recipe or a .toml file         eval     the metrics of a run's weights
predict  the answer for each input               runs     a table of the runs in a folder
list     what there is to choose from            explain  one part, from its own documentation
env      versions and machine                    parsing  options, and the one-line errors of a wrong one
output   what goes to stdout, and errors to exit codes
"""

from torchstone.cli.main import main

__all__ = ["main"]
