"""What every test gets: checked shapes, one thread, fixed hypothesis draws, a quick disk, no network, no leftovers in the working tree."""

import os

# Before numpy and torch read them; subprocesses inherit them.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")
os.environ.setdefault("PYTHONHASHSEED", "0")

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

from jaxtyping import install_import_hook

# Every annotation of the package is checked at every call from here on, so nothing of it may be imported above this line.
import shape_check

shape_check.install()
install_import_hook("torchstone", "shape_check.check")

import hypothesis
import pytest
import torch

torch.set_num_threads(1)

hypothesis.settings.register_profile("torchstone", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("torchstone")

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
LOOPBACK = {"localhost", "127.0.0.1", "::1", "::ffff:127.0.0.1", ""}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks become skips with their reason: `gpu` where there is none."""
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="no accelerator on this machine")
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(skip)


@pytest.fixture(scope="session", autouse=True)
def no_network() -> Iterator[None]:
    """A test that talks to anything but this machine fails, and says so."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: object) -> None:
        host = address[0] if self.family in (socket.AF_INET, socket.AF_INET6) and isinstance(address, tuple) else ""
        own = {socket.gethostname()} | LOOPBACK
        if str(host) not in own and not str(host).startswith("127."):
            raise OSError(f"a test tried to connect to {address}; the suite runs without a network")
        connect(self, address)  # type: ignore[arg-type]

    socket.socket.connect = guarded  # type: ignore[method-assign]
    yield
    socket.socket.connect = connect  # type: ignore[method-assign]


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Decoded pictures of the tests do not land in the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCHSTONE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def quick_disk() -> Iterator[Callable[[int], None]]:
    """No run in this process waits for the disk (a hundred times, half of its time): that files are durable is tested in tests/core.

    What it yields is the real `os.fsync`.
    """
    fsync = os.fsync
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda fd: None)
        yield fsync


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder `../shared/data` beside the checkout; the test is skipped where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"{SHARED_DATA} is absent")
    return SHARED_DATA


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """An empty folder to be a run; made, so that a part's `open(folder)` can write there."""
    folder = tmp_path / "run"
    folder.mkdir()
    return folder


@pytest.fixture
def in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory is a fresh folder: what a verb writes under runs/ lands there."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
