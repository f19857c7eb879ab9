"""Run folders: whole or absent, never overwritten, and refused when they are something else."""

import json
from pathlib import Path

import pytest

from core.faults import DEATHS, ERRORS, armed, dies, operations
from torchstone.core.errors import UserError
from torchstone.train import folder

CONTENTS = {folder.EXPERIMENT: "a = 1\n", folder.ARTIFACT: '{"version": 1}\n'}


def test_a_new_folder_holds_its_contents(tmp_path: Path) -> None:
    made = folder.create(tmp_path / "runs" / "a", tmp_path / "never", CONTENTS)
    assert made == tmp_path / "runs" / "a"
    assert {path.name for path in made.iterdir()} == {*CONTENTS, "checkpoints"}
    assert (made / folder.EXPERIMENT).read_text() == "a = 1\n"
    folder.require_run(made)


def test_without_out_a_free_number_is_taken(tmp_path: Path) -> None:
    default = tmp_path / "digits" / "run"
    made = [folder.create(None, default, CONTENTS).name for _ in range(3)]
    assert made == ["run", "run-2", "run-3"]


@pytest.mark.parametrize("existing", ["folder", "file"])
def test_out_is_never_overwritten(existing: str, tmp_path: Path) -> None:
    out = tmp_path / "a"
    out.mkdir() if existing == "folder" else out.write_text("mine")
    with pytest.raises(UserError, match=r"--out .*/a: it exists already; .*--resume"):
        folder.create(out, tmp_path / "never", CONTENTS)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_whatever_fails_the_folder_is_whole_or_absent(tmp_path: Path) -> None:
    count = operations(lambda: folder.create(tmp_path / "counted", tmp_path, CONTENTS))
    for kind in (*ERRORS, *DEATHS):
        for number in range(1, count + 1):
            out = tmp_path / f"{kind}-{number}"
            if kind in DEATHS:
                assert dies(lambda out=out: folder.create(out, tmp_path, CONTENTS), kind, number)
            else:
                with armed(kind, number), pytest.raises(OSError):
                    folder.create(out, tmp_path, CONTENTS)
            if out.exists():
                folder.require_run(out)
                assert (out / "checkpoints").is_dir()


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such run folder"):
        folder.require_run(tmp_path / "nothing")
    half = tmp_path / "half"
    half.mkdir()
    with pytest.raises(UserError, match=r"not a run folder, experiment\.toml is missing"):
        folder.require_run(half)
    (half / folder.EXPERIMENT).write_text("")
    with pytest.raises(UserError, match=r"not a run folder, artifact\.json is missing"):
        folder.require_run(half)


@pytest.mark.parametrize(
    "text, message",
    [
        ('{"version": 2}', "another version of torchstone .layout 2, this one reads 1"),
        ("{}", "another version"),
        ("[1]", r"artifact\.json: a JSON object is expected, found list"),
        ('{"version": 1', r"artifact\.json: not readable as JSON"),
        ("", r"artifact\.json: not readable as JSON"),
        ("[" * 100_000, r"artifact\.json: not readable as JSON"),
        ("1" * 10_000, r"artifact\.json: not readable as JSON"),
    ],
)
def test_another_version_or_a_torn_artifact_is_named(text: str, message: str, tmp_path: Path) -> None:
    made = folder.create(tmp_path / "a", tmp_path, {**CONTENTS, folder.ARTIFACT: text})
    with pytest.raises(UserError, match=message):
        folder.require_run(made)


def test_finished(tmp_path: Path) -> None:
    assert folder.finished(tmp_path) is None
    for status, over in (("done", "done"), ("stopped", "stopped"), ("interrupted", None), ("diverged", None), ([], None)):
        (tmp_path / folder.METRICS).write_text(json.dumps({"status": status}))
        assert folder.finished(tmp_path) == over
