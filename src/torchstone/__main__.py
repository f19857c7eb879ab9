"""`python -m torchstone` is the command line; `torchrun -m torchstone` starts the same on every rank."""

import sys

from torchstone.cli import main

if __name__ == "__main__":
    sys.exit(main())
