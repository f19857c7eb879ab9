"""Fixtures of the tests of core."""

from pathlib import Path

import pytest

from core.small_store import example
from torchstone.core.store import write_store


@pytest.fixture
def store(tmp_path: Path) -> Path:
    write_store(tmp_path / "step-7", *example(7))
    return tmp_path / "step-7"
