"""Memory that is freed and asked for again is not fetched from the system again."""

import subprocess
import sys

import pytest

from train.small import ENVIRONMENT

FAULTS = """
import resource, sys
import torch
from torchstone.core.allocator import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
def use(): torch.ones(16 << 20)  # 64 MB
def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
use(); use()
before = faults()
for _ in range(5): use()
print(faults() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's setting")
def test_large_blocks_stay_with_the_process() -> None:
    faults = {}
    for how in ("keep", "return"):
        done = subprocess.run([sys.executable, "-c", FAULTS, how], env=ENVIRONMENT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        faults[how] = int(done.stdout)
    assert faults["keep"] < 100 < faults["return"]
