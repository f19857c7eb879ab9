"""The doctor's own page: what stands on it, in which order, and that nothing of the findings becomes markup."""

import io
import re
from pathlib import Path

import numpy as np
from PIL import Image

from torchstone.doctor.finding import Checked, Examination, Finding, bars, curve, images, table, write_findings
from torchstone.report.examination import Asked, page

EVIL = '<script>alert("x")</script>'


def looked(folder: Path) -> Examination:
    (folder / "pictures").mkdir()
    for number in range(3):
        out = io.BytesIO()
        Image.fromarray(np.full((8, 8), 40 * number, dtype=np.uint8)).save(out, "PNG")
        (folder / "pictures" / f"{number}.png").write_bytes(out.getvalue())
    found = (
        Finding(check="label_noise", severity="error", summary="3 labels", evidence=images([f"pictures/{n}.png" for n in range(3)], "abc")),
        Finding(check="loss_at_init", severity="warning", summary=f"9 nats {EVIL}", value=9.0, threshold=3.8, because="ln K", advice=EVIL,
                evidence=table(["what", EVIL], [[EVIL, 1.0]]), remedy=("model.init=none",)),
        Finding(check="class_balance", severity="note", summary="12 to 1", evidence=bars(["cat", EVIL], [12.0, 1.0])),
        Finding(check="overfit_one_batch", severity="note", summary="1", evidence=curve("step", "loss", {EVIL: ([1, 2], [3.0, 1.0])})),
    )  # fmt: skip
    checks = (
        *(Checked(check=each.check, outcome="found") for each in found),
        Checked(check="memory", outcome="passed", why="fits into 3 GB"),
        Checked(check="shift", outcome="skipped", why="too few samples to compare (2)"),
    )
    return Examination(findings=found, checks=checks, seconds=12.3)


def made(folder: Path, examination: Examination) -> str:
    write_findings(folder, examination)
    commands = {("loss_at_init", f"9 nats {EVIL}"): "torchstone train digits model.init=none"}
    return page(
        folder,
        Asked(title=f"digits {EVIL}", command="torchstone doctor digits --out looked", seconds=examination.seconds, commands=commands),
    )


def test_findings_first_then_what_passed_then_what_was_not_looked_at(tmp_path: Path) -> None:
    text = made(tmp_path, looked(tmp_path))
    places = [text.index(word) for word in ("3 labels", "9 nats", "12 to 1", "fits into 3 GB", "too few samples to compare (2)")]
    assert places == sorted(places)
    assert "1 error, 1 warning and 2 notes by 6 checks in 12 s" in text
    assert "<code>torchstone train digits model.init=none</code>" in text and "torchstone doctor digits --out looked" in text
    assert text.count("data:image/png;base64,") == 3


def test_it_is_one_file_without_script_or_network(tmp_path: Path) -> None:
    text = made(tmp_path, looked(tmp_path))
    assert "<script" not in text and "http" not in re.sub(r'http-equiv="', "", text) and len(text) < 5_000_000
    assert "default-src 'none'" in text


def test_nothing_found(tmp_path: Path) -> None:
    text = made(tmp_path, Examination(checks=(Checked(check="memory", outcome="passed", why="fits"),), seconds=0.2))
    assert "Nothing found by 1 check in less than a second" in text and "Nothing was found." in text and "Not looked at" not in text
