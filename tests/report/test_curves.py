"""The log as curves: exact where it is short, bounded where it is long, and whatever its lines hold."""

import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from torchstone.report import curves
from torchstone.report.curves import MOST_POINTS, Curve, read_log


def written(path: Path, lines: list[Any]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@given(st.integers(1, 5000), st.integers(1, 30).map(lambda n: 2 * n), st.integers(0, 1000))
def test_a_thinned_curve_keeps_the_mean_and_the_extremes(n: int, most: int, seed: int) -> None:
    values = np.random.default_rng(seed).normal(size=n)
    curve = Curve(most=most)
    for step, value in enumerate(values.tolist()):
        curve.add(step, value)
    assert len(curve.points) <= most
    assert curve.last == values[-1]
    assert min(point.low for point in curve.points) == values.min() and max(point.high for point in curve.points) == values.max()
    assert all(a.step < b.step for a, b in zip(curve.points, curve.points[1:], strict=False))
    whole = n // curve.each
    cut = values[: whole * curve.each].reshape(whole, curve.each).mean(axis=1)
    assert [point.mean for point in curve.points[:whole]] == pytest.approx(cut.tolist(), abs=1e-9)


def test_a_short_log_is_kept_as_it_is(tmp_path: Path) -> None:
    path = written(
        tmp_path / "log.jsonl", [{"step": 1, "loss": 2.0, "lr": 0.1}, {"step": 10, "loss": 1.0}, {"step": 10, "eval": {"loss": 1.5}}]
    )
    log = read_log(path)
    assert [(point.step, point.mean) for point in log.updates["loss"].points] == [(1, 2.0), (10, 1.0)]
    assert [(point.step, point.mean) for point in log.evaluations["loss"].points] == [(10, 1.5)]
    assert log.problem == "" and log.not_finite is None and log.last_step == 10


def test_a_long_log_needs_little_memory_and_keeps_every_evaluation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curves, "FULLY_READ", 1 << 16)
    lines = [
        line
        for step in range(1, 60_001)
        for line in ([{"step": step, "loss": 1 / step}] + [{"step": step, "eval": {"loss": 0.5}}] * (step % 600 == 0))
    ]
    path = written(tmp_path / "log.jsonl", lines)
    del lines
    tracemalloc.start()
    log = read_log(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert path.stat().st_size > 2_000_000 and peak < 1_000_000
    assert MOST_POINTS // 2 <= len(log.updates["loss"].points) <= MOST_POINTS
    assert len(log.evaluations["loss"].points) == 100
    assert log.updates["loss"].points[-1].step > 59_000


@pytest.mark.parametrize("tail", [b'{"step": 30, "loss"', b'{"step": 30, "loss": 3.0}'])
def test_a_torn_last_line_is_no_problem(tmp_path: Path, tail: bytes) -> None:
    path = written(tmp_path / "log.jsonl", [{"step": 10, "loss": 2.0}, {"step": 20, "loss": 1.0}])
    path.write_bytes(path.read_bytes() + tail)
    log = read_log(path)
    assert log.last_step == 20 and log.problem == ""


@pytest.mark.parametrize("line", [b"garbage", b"[1]", b'"text"', b"\xff\xfe", b'{"step": 1, "step": 2}', b"[" * 100_000, b'{"loss": NaN}'])
def test_what_follows_a_bad_line_is_left_out_and_said(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"step": 10, "loss": 2.0}\n' + line + b'\n{"step": 20, "loss": 1.0}\n')
    log = read_log(path)
    assert log.last_step == 10 and "line 2" in log.problem


def test_a_loss_that_is_null_is_remembered(tmp_path: Path) -> None:
    log = read_log(written(tmp_path / "log.jsonl", [{"step": 10, "loss": 2.0}, {"step": 20, "loss": None}, {"step": 30, "loss": None}]))
    assert log.not_finite == 20 and len(log.updates["loss"].points) == 1


@pytest.mark.parametrize("step", [-1, 1.5, True, "3", None, 10**400, [1]])
def test_a_step_that_is_none_is_left_out(tmp_path: Path, step: Any) -> None:
    log = read_log(written(tmp_path / "log.jsonl", [{"step": step, "loss": 2.0}, {"step": 5, "loss": 1.0}]))
    assert log.last_step == 5 and len(log.updates["loss"].points) == 1


def test_a_curve_does_not_run_backwards(tmp_path: Path) -> None:
    log = read_log(written(tmp_path / "log.jsonl", [{"step": step, "loss": 1.0} for step in (1, 5, 3, 5, 6)]))
    assert [point.step for point in log.updates["loss"].points] == [1, 5, 6]


def test_no_log_and_no_plain_log(tmp_path: Path) -> None:
    assert read_log(tmp_path / "log.jsonl").problem == ""
    (tmp_path / "log.jsonl").symlink_to("/etc/hostname")
    assert "plain file" in read_log(tmp_path / "log.jsonl").problem


def test_a_thousand_metrics_are_not_followed(tmp_path: Path) -> None:
    log = read_log(written(tmp_path / "log.jsonl", [{"step": 1, "eval": {f"metric {i}": 1.0 for i in range(1000)}}]))
    assert len(log.evaluations) == curves.MOST_NAMES
