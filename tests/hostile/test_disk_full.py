"""A disk that fills up or fails: exit 1, the checkpoint before is whole, and a resumed run ends as if nothing had been."""

import os
import re
import resource
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.faults import armed, operations
from torchstone.core import store
from torchstone.core.errors import WorkError
from torchstone.experiment import keepsakes
from torchstone.train import checkpoint
from train.small import MLP, ending, train


@pytest.fixture(scope="module", autouse=True)
def few_pictures() -> Iterator[None]:
    """Every further picture of a run is written as the first one is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keepsakes, "MISTAKES", 1)
        patch.setattr(keepsakes, "SAMPLES", 1)
        yield


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """An uninterrupted run, and how many operations on the disk it makes."""
    out = tmp_path_factory.mktemp("reference") / "run"
    return out, operations(lambda: train(out))


@pytest.mark.parametrize("kind", ["enospc", "eio"])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.7, 0.99])
def test_an_operation_that_fails(kind, share: float, reference: tuple[Path, int], tmp_path: Path) -> None:
    whole, count = reference
    out, number = tmp_path / "run", max(1, round(share * count))
    with armed(kind, number), pytest.raises(WorkError) as failed:
        train(out)
    message = str(failed.value)
    assert "\n" not in message and "run" in message
    assert re.search("No space left|Input/output error", message)
    for folder in checkpoint.by_age(out):
        store.verify_store(folder)
    train(out, resume=True)
    assert ending(out) == ending(whole)


@pytest.mark.slow
def test_every_operation_that_fails(reference: tuple[Path, int], tmp_path: Path) -> None:
    """Before the run folder is there, nothing is left; afterwards a resumed run ends as the reference."""
    whole, count = reference
    for number in range(1, count + 1):
        out = tmp_path / f"run-{number}"
        with armed("enospc", number), pytest.raises((WorkError, OSError)):
            train(out)
        train(out, resume=True)
        assert ending(out) == ending(whole), number
        shutil.rmtree(out)


def test_a_real_limit_on_the_size_of_files(tmp_path: Path) -> None:
    """In a child whose files may not grow beyond what a checkpoint of this model takes."""
    out = tmp_path / "run"
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        code = 1
        try:
            train(out, "model.hidden=[512]", base=(*MLP[1:],))
        except WorkError as error:
            code = 7 if "checkpoint of step 5 could not be written" in str(error) else 3
        except BaseException:
            code = 2
        os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    assert not list((out / "checkpoints").iterdir())
    train(out, "model.hidden=[512]", base=(*MLP[1:],), resume=True)
    train(tmp_path / "whole", "model.hidden=[512]", base=(*MLP[1:],))
    assert ending(out) == ending(tmp_path / "whole")
