"""Peak memory of one unit in a process that trains many: the system's mark is set back before each.

Linux keeps the largest resident size a process ever had (VmHWM in /proc/self/status, proc(5)); writing 5 to /proc/self/clear_refs makes
it what is resident now. What earlier units left in the C library's free lists goes back to the system first, or it would count.
"""

import ctypes
import gc
import sys
from contextlib import suppress
from pathlib import Path

import torch

CLEAR = Path("/proc/self/clear_refs")


def reset_peak_memory() -> bool:
    """Whether the mark could be set back: elsewhere than on Linux a unit's peak is that of the process so far."""
    gc.collect()
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    if not sys.platform.startswith("linux"):
        return False
    with suppress(AttributeError, OSError):  # another C library than glibc
        ctypes.CDLL(None).malloc_trim(0)
    try:
        CLEAR.write_text("5", encoding="ascii")
    except OSError:
        return False
    return True
