"""Fixtures of the tests of core."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from core.small_store import example
from torchstone.core.store import write_store


@pytest.fixture(autouse=True)
def real_disk(quick_disk: Callable[[int], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Here, where files are written, the disk is waited for."""
    monkeypatch.setattr(os, "fsync", quick_disk)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    write_store(tmp_path / "step-7", *example(7))
    return tmp_path / "step-7"
