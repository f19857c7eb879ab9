"""Run folders that somebody else made: nothing of them runs, nothing grows, nothing crashes."""

import copy
import io
import json
import os
import struct
import zlib
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from report.reading_page import seen
from report.sample_run import artifact, environment, metrics, sample_run, write_json
from torchstone import report

SCRIPT = "</style></title><script>alert(1)</script><img src=x onerror=alert(1)>\"'`{{7*7}}"


def test_every_text_is_escaped(tmp_path: Path) -> None:
    """The same hostile text wherever a text can stand."""
    run = sample_run(tmp_path / "run", classes=[f"{SCRIPT}{i}" for i in range(5)])

    def poisoned(value: Any) -> Any:
        match value:
            case dict():
                return {key: poisoned(inner) for key, inner in value.items()}
            case list():
                return [poisoned(inner) for inner in value]
            case str() if not value.endswith(".png") and "shape" not in value:
                return SCRIPT
            case _:
                return value

    for name in ("environment.json", "artifact.json", "metrics.json", "pictures/index.json"):
        write_json(run / name, poisoned(json.loads((run / name).read_text())))
    document = json.loads((run / "metrics.json").read_text())
    document["final"][SCRIPT] = 0.5
    write_json(run / "metrics.json", document)
    (run / "experiment.toml").write_text(f"[data]\nkind = {json.dumps(SCRIPT)}\n{json.dumps(SCRIPT)} = {json.dumps(SCRIPT)}\n")
    (run / "log.jsonl").write_text(json.dumps({"step": 1, "eval": {SCRIPT: 0.5, "loss": 1.0}}) + "\n")
    html = report.page(run)
    page = seen(html)
    assert "49" not in page.text.split("{{7*7}}")[0] and "{{7*7}}" in page.text
    assert "<script" not in html


def test_reordering_marks_and_escapes_do_not_reach_the_page(tmp_path: Path) -> None:
    run = sample_run(tmp_path / "run", classes=["a\u202eb", "c\x1b[31md", "e\ud800f", "g\nh"])
    html = report.page(run)
    assert not any(sign in html for sign in "\u202e\x1b\ud800")
    assert "g h" in seen(html).text
    html.encode()


def test_a_million_classes(tmp_path: Path) -> None:
    run = sample_run(tmp_path / "run")
    names = [f"class {i}" for i in range(1_000_000)]
    document = artifact(names, 10)
    (run / "artifact.json").write_text(json.dumps(document))
    started = process_time()
    html = report.page(run)
    assert process_time() - started < 15
    assert "1,000,000 classes" in seen(html).text and len(html) < 400_000


def test_numbers_that_are_none(tmp_path: Path) -> None:
    run = sample_run(tmp_path / "run")
    text = (run / "metrics.json").read_text()
    (run / "metrics.json").write_text(text.replace("0.2317", "NaN"))
    assert "metrics.json: not JSON" in seen(report.page(run)).text
    (run / "metrics.json").write_text(text.replace("0.2317", "1e999").replace("1972792", "-5").replace("302.7", "9" * 400))
    seen(report.page(run))


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"{", b"\xff", b"[" * 100_000, b'{"final": ' * 2000, b'{"a": 1, "a": 2}'])
@pytest.mark.parametrize("name", ["artifact.json", "environment.json", "metrics.json", "pictures/index.json"])
def test_garbled_files_are_named(tmp_path: Path, name: str, content: bytes) -> None:
    run = sample_run(tmp_path / "run", n=200)
    (run / name).write_bytes(content)
    page = seen(report.page(run))
    if name != "pictures/index.json" or content not in (b"[]", b"null"):
        assert f"{name}" in page.text


@pytest.mark.parametrize("text", ["a = ", "[a]\n[a]", "x = " + "[" * 5000, "a" + ".a" * 50_000 + " = 1", "\0", "a = 1\n" * 2])
def test_garbled_toml_is_named(tmp_path: Path, text: str) -> None:
    run = sample_run(tmp_path / "run", n=200)
    (run / "experiment.toml").write_text(text)
    assert "experiment.toml" in seen(report.page(run)).text


def test_a_file_that_is_too_large_a_link_or_a_pipe(tmp_path: Path) -> None:
    run = sample_run(tmp_path / "run", n=200)
    with (run / "environment.json").open("wb") as file:
        file.truncate(1 << 30)
    (run / "metrics.json").unlink()
    os.mkfifo(run / "metrics.json")
    (run / "log.jsonl").unlink()
    (run / "log.jsonl").symlink_to("/dev/zero")
    page = seen(report.page(run))
    for name in ("environment.json", "metrics.json", "log.jsonl"):
        assert name in page.text


def test_a_deep_and_wide_tree_is_cut(tmp_path: Path) -> None:
    run = sample_run(tmp_path / "run", n=200)
    deep = "\n".join(f"[{'.'.join(['a'] * i)}]\nkind = 'part'\nx = 1" for i in range(1, 60))
    wide = "\n".join(f"[p{i}]\n" + "\n".join(f"s{k} = {k}" for k in range(40)) for i in range(400))
    for text in (deep, wide, "[a]\nx = [" + "1, " * 100_000 + "]"):
        (run / "experiment.toml").write_text(text)
        html = report.page(run)
        seen(html)
        assert len(html) < 700_000
    (run / "experiment.toml").write_text(wide)
    assert "the whole experiment is in experiment.toml" in seen(report.page(run)).text


# --- pictures --------------------------------------------------------------------------------------------------------


def png_of(width: int, height: int) -> bytes:
    """A PNG whose header says a size and which holds no pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))


def one_mistake(run: Path, file: Any, content: bytes | None = None) -> None:
    if content is not None:
        (run / "pictures" / file).write_bytes(content)
    write_json(run / "pictures" / "index.json", {"mistakes": [{"file": file, "truth": "a", "label": "b"}]})


@pytest.mark.parametrize("content", [b"", b"text", png_of(65_535, 65_535), png_of(10, 10), b"GIF89a", b"<svg onload='alert(1)'/>"])
def test_a_picture_that_is_none_is_left_out_and_said(tmp_path: Path, content: bytes) -> None:
    run = sample_run(tmp_path / "run", n=200)
    one_mistake(run, "x.png", content)
    page = seen(report.page(run))
    assert "pictures/x.png" in page.text and "mistakes" not in page.ids()


@pytest.mark.parametrize("file", ["../../secret.png", "/etc/passwd", ".hidden", "", "a/b.png", 3, None, "\0", "..", "x" * 5000])
def test_only_plain_names_of_the_folder_are_opened(tmp_path: Path, file: Any) -> None:
    run = sample_run(tmp_path / "run", n=200)
    Image.new("RGB", (4, 4)).save(tmp_path / "secret.png")
    one_mistake(run, file)
    assert "mistakes" not in seen(report.page(run)).ids()


def test_links_are_not_followed(tmp_path: Path) -> None:
    run = sample_run(tmp_path / "run", n=200)
    Image.new("RGB", (4, 4)).save(tmp_path / "secret.png")
    (run / "pictures" / "x.png").symlink_to(tmp_path / "secret.png")
    one_mistake(run, "x.png")
    assert "mistakes" not in seen(report.page(run)).ids()
    (run / "pictures").rename(tmp_path / "elsewhere")
    (run / "pictures").symlink_to(tmp_path / "elsewhere")
    assert "pictures is a link" in seen(report.page(run)).text


def test_large_pictures_are_made_small_and_the_page_stays_small(tmp_path: Path) -> None:
    run = sample_run(tmp_path / "run", n=200)
    noise = np.random.default_rng(0).integers(0, 256, (1000, 1500, 3), dtype=np.uint8)
    Image.fromarray(noise).save(run / "pictures" / "x.png")
    entries = [{"file": "x.png", "truth": "a", "label": "b"}] * 1000
    write_json(run / "pictures" / "index.json", {"mistakes": entries, "augmented": entries, "originals": entries})
    html = report.page(run)
    page = seen(html)
    pictures = [attributes for tag, attributes in page.tags if tag == "img"]
    assert 1 < len(pictures) <= 24 + 2 * 16 and all(int(each["width"]) <= 224 for each in pictures)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_every_kind_of_png_is_shown(tmp_path: Path, mode: str) -> None:
    run = sample_run(tmp_path / "run", n=200)
    out = io.BytesIO()
    Image.new(mode, (8, 6)).save(out, "PNG")
    one_mistake(run, "x.png", out.getvalue())
    assert "mistakes" in seen(report.page(run)).ids()


# --- anything at all -------------------------------------------------------------------------------------------------

JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=8),
    st.lists(st.one_of(st.integers(), st.text(max_size=3), st.none(), st.floats()), max_size=4),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=3),
)
COUNTS = np.array([[5, 1], [2, 7]])
DOCUMENTS = {
    "environment.json": environment(),
    "artifact.json": artifact(["a", "b"], 15),
    "metrics.json": metrics(COUNTS, ["a", "b"]),
    "pictures/index.json": {
        "mistakes": [{"file": "mistake-00.png", "truth": "a", "label": "b", "probability": 0.5}],
        "augmented": [],
        "originals": [],
    },
    "log.jsonl": {"step": 3, "eval": {"loss": 1.0, "accuracy": 0.5}},
}


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sample_run(tmp_path_factory.mktemp("fuzz") / "run", n=100)


def with_junk(document: Any, data: st.DataObject) -> Any:
    """The document with one place in it, however deep, replaced by junk."""
    copied = copy.deepcopy(document)
    place, key = None, None
    inner = copied
    while isinstance(inner, dict | list) and len(inner) and (place is None or data.draw(st.integers(0, 3)) > 0):
        place, key = inner, data.draw(st.sampled_from(list(inner) if isinstance(inner, dict) else range(len(inner))))
        inner = place[key]
    place[key] = data.draw(JUNK)
    return copied


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_one_wrong_value_anywhere_never_crashes(one: Path, data: st.DataObject) -> None:
    for name, document in DOCUMENTS.items():
        chosen = with_junk(document, data) if data.draw(st.booleans()) else document
        (one / name).write_text(json.dumps(chosen) + "\n", encoding="utf-8")
    seen(report.page(one))
