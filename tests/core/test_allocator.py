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
x = torch.randn(12 << 20)  # 48 MB
def use(): return float(((x * 2).relu() + x).sum())
def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10): use()
before = faults()
for _ in range(20): use()
print(faults() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's setting")
def test_large_blocks_stay_with_the_process() -> None:
    faults = {}
    for how in ("keep", "return"):
        done = subprocess.run([sys.executable, "-c", FAULTS, how], env=ENVIRONMENT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        faults[how] = int(done.stdout)
    assert 5 * faults["keep"] < faults["return"]
