"""Run folders for the tests of the report."""

from pathlib import Path

import pytest

from report.sample_run import sample_run


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A whole run of pictures, a fresh copy for every test."""
    return sample_run(tmp_path / "runs" / "fashion" / "run")
