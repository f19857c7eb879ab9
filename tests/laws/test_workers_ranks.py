"""Law: loader workers change no bit; two ranks train as one to 1e-5; one checkpoint scores the same by one or two ranks."""

import json
import math
import os
import socket
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from laws import cases, ranks_script
from laws.cases import NOISY, Part, all_tensors, begin, differing, parts_of, raw, ready, run_whole
from torchstone.data import AddNoise, Flip, Mixup, PaddedCrop, Resize
from torchstone.train.loop import fit, updates
from torchstone.train.signals import Request

TESTS = Path(__file__).resolve().parents[1]

# --- workers -----------------------------------------------------------------------------------------------------------

READ = replace(
    NOISY,
    sample_transforms=(AddNoise(), Resize(height=6, width=7), AddNoise(std=0.3)),
    batch_transforms=(Flip(), PaddedCrop(padding=1), Mixup()),
)


@pytest.mark.parametrize("microbatch_size", [None, 4])
def test_workers_change_nothing(microbatch_size: int | None, tmp_path: Path) -> None:
    ends = []
    for workers in (0, 2):
        status, state = run_whole(partial(ready, READ, workers=workers, microbatch_size=microbatch_size), tmp_path / str(workers))
        assert status == "done"
        ends.append((all_tensors(state), cases.steady(state)))
    assert differing(ends[0][0], ends[1][0]) == []
    assert ends[0][1] == ends[1][1]


@pytest.mark.parametrize("part", parts_of("sample_transforms"), ids=str)
def test_batches_of_every_sample_transform(part: Part, tmp_path: Path) -> None:
    def batches(workers: int) -> list[bytes]:
        job, _ = begin(ready(cases.put_in(NOISY, part, part.make(tmp_path)), workers=workers), tmp_path)
        made = [batch for _, micro in updates(job, 0) for batch in micro]
        return [raw(tensor) for batch in made for tensor in (batch.inputs, batch.target, batch.index, batch.weight)]

    alone = batches(0)
    assert alone == batches(2) and len(set(alone)) > 9
    assert alone == batches(3)


# --- ranks -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Any]]:
    """What one process and what two ranks saw."""
    folder = tmp_path_factory.mktemp("ranks")
    for name, model in ranks_script.EVALUATED.items():
        job, state = begin(ready(NOISY, model), folder / name)
        assert fit(job, state, [], Request()) == "done"
    alone = ranks_script.everything(folder)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = {
        **os.environ,
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "PYTHONPATH": os.pathsep.join([str(TESTS.parent / "src"), str(TESTS)]),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, str(TESTS / "laws" / "ranks_script.py"), str(folder)]
    running = [
        subprocess.Popen(
            command, env={**common, "RANK": str(r), "LOCAL_RANK": str(r)}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for r in range(2)
    ]
    outputs = [process.communicate(timeout=240)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0], outputs
    return alone, json.loads((folder / "seen.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("name", ranks_script.CASES)
def test_two_ranks_train_as_one(name: str, seen: tuple[dict[str, Any], dict[str, Any]]) -> None:
    one, two = (each["losses"][name] for each in seen)
    double = ranks_script.CASES[name].dtype == torch.float64
    tolerance = 1e-12 if double else 1e-5
    assert two["loss"] == pytest.approx(one["loss"], rel=tolerance)
    assert two["norm"] == pytest.approx(one["norm"], rel=10 * tolerance)
    assert two["skipped"] == one["skipped"]
    assert two["weights"] == pytest.approx(one["weights"], rel=10 * tolerance, abs=1e-9)
    assert two["score"] == pytest.approx(one["score"], rel=1e-4)
    assert all(math.isfinite(value) for value in two["loss"]) and len(set(two["loss"])) > 3


@pytest.mark.slow
def test_some_rank_had_no_target_and_some_step_none_at_all(seen: tuple[dict[str, Any], dict[str, Any]]) -> None:
    """So that the case above tests what it says: empty steps were skipped, and the others were not."""
    skipped = seen[1]["losses"]["a rank without targets, float64"]["skipped"]
    assert 0 < len(skipped) < 11


@pytest.mark.slow
@pytest.mark.parametrize("name", ranks_script.EVALUATED)
def test_two_ranks_score_as_one(name: str, seen: tuple[dict[str, Any], dict[str, Any]]) -> None:
    one, two = (each["sums"][name] for each in seen)
    assert one.keys() == two.keys() and len(one) > 8
    for key, (dtype, values) in one.items():
        assert two[key][0] == dtype
        if dtype == "torch.int64":
            assert two[key][1] == values, key
        else:
            assert dtype == "torch.float64", "sums are int64 or float64"
            assert two[key][1] == pytest.approx(values, rel=1e-12), key


@pytest.mark.slow
def test_counts_are_of_every_sample_once(seen: tuple[dict[str, Any], dict[str, Any]]) -> None:
    for counts in (each["sums"]["conv_net"] for each in seen):
        assert all(
            sum(counts[f"{size}.Confusion.confusion"][1]) == counts[f"{size}.Accuracy.count"][1][0] == 11 for size in (3, 4, 11, 100)
        )
