"""What every regression test gets."""

import os

import pytest


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds of checkpoints without waiting for the disk; that they are durable is tested in tests/core."""
    monkeypatch.setattr(os, "fsync", lambda fd: None)
