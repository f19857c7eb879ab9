"""Hostile experiment files, through `train FILE`: closed words, limits on depth and size, nothing imported, nothing written."""

import os
from pathlib import Path

import pytest

from hostile.child import command, require_refusal
from torchstone.core import tree
from torchstone.recipes import digits_mini
from torchstone.train.settings import Run

GOOD = tree.to_toml(tree.edit(digits_mini(), ["run.steps=1", "run.threads=1", "trackers=[]", "model.hidden=[4]"]))


def but(old: str, new: str) -> str:
    assert old in GOOD, GOOD
    return GOOD.replace(old, new, 1)


FILES: dict[str, tuple[str | bytes, str]] = {
    # content, what the one line names beside the file
    "a class by its name": (but('kind = "mlp"', 'kind = "os:system"'), "os:system"),
    "a dotted import": (but('kind = "mlp"', 'kind = "torchstone.models.MLPConfig"'), "model"),
    "a custom class": (but('kind = "mlp"', 'kind = "custom"\nclass = "os:system"'), "model"),
    "a part of another seat": (but('kind = "mlp"', 'kind = "adamw"'), "adamw"),
    "a magic name": (but("[model]\n", "[model]\n__class__ = 1\n"), "__class__"),
    "a magic kind": (but('kind = "mlp"', 'kind = "__class__"'), "__class__"),
    "a number for a kind": (but('kind = "mlp"', "kind = 5"), "model"),
    "a repeated key": (but('kind = "mlp"', 'kind = "mlp"\nkind = "mlp"'), "line"),
    "a repeated section": (GOOD + "\n[model]\n", "line"),
    "an unknown section": (GOOD + "\n[evil]\na = 1\n", "evil"),
    "nested 5,000 deep": ("a = " + "[" * 5000 + "]" * 5000, "deep"),
    "a key of 5,000 names": (".".join("a" * 5000) + " = 1", "deep"),
    "inline tables, 5,000 deep": ("a = " + "{a = " * 5000 + "1" + "}" * 5000, "deep"),
    "an integer of 1 MB": ("a = " + "9" * 10**6, ""),
    "an integer of 100 KB": ("a = " + "9" * 10**5, ""),
    "a text of 2 MB": ('a = "' + "x" * (2 << 20) + '"', ""),
    "100,000 layers": (but("hidden = [4]", "hidden = [" + "4," * 100_000 + "]"), "hidden must have at most 32768"),
    "no end of a text": ('a = "x', "line 1, column"),
    "broken": ("[model\nkind", "line 1, column"),
    "no text": (b"\xff\xfe\x00a\x00", "UTF-8"),
    "NUL": (b"a = 1\x00", "line 1"),
    "a mark of byte order": (b"\xef\xbb\xbf" + GOOD.encode(), ""),
    "empty": ("", ""),
    "another language": ("model:\n  kind: mlp\n", "line 1"),
    "an alias bomb": ("a: &a [x,x,x]\nb: &b [*a,*a,*a]\n", "line 1"),
    "an infinite rate": (but("lr = 0.003", "lr = inf"), "lr"),
    "a rate that is none": (but("lr = 0.003", "lr = nan"), "lr"),
    "a date for a rate": (but("lr = 0.003", "lr = 1979-05-27"), "lr"),
    "a table for a rate": (but("lr = 0.003", "lr = {a = 1}"), "lr"),
    "true for a rate": (but("lr = 0.003", "lr = true"), "lr"),
    "a batch of 2^70": (but("batch_size = 64", f"batch_size = {2**70}"), "batch_size"),
    "a layer of 10^15": (but("hidden = [4]", "hidden = [1000000000000000]"), "model"),
    "a layer of 2^70": (but("hidden = [4]", f"hidden = [{2**70}]"), "model"),
    "layers of 10^9": (but("hidden = [4]", "hidden = [1000000000]"), "model"),
    "a name that leaves": (but('name = "run"', 'name = "../../x"'), "name"),
    "a name with NUL": (but('name = "run"', 'name = "a\\u0000b"'), "name"),
    "a name of 300 letters": (but('name = "run"', f'name = "{"x" * 300}"'), "name"),
    "escapes in a kind": (but('kind = "mlp"', 'kind = "\\u001b[2Jx"'), "model"),
    "escapes in a key": (but("[model]\n", '[model]\n"\\u001b]0;owned\\u0007" = 1\n'), "model"),
    "a schedule on a method": (but('path = "optimizer.lr"', 'path = "optimizer.step.__globals__"'), "optimizer.step"),
    "a schedule on a class": (but('path = "optimizer.lr"', 'path = "__class__"'), "__class__"),
    "a device by its path": (but('device = "auto"', 'device = "/dev/sda"'), "device"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_hostile_file_is_refused(name: str, in_tmp: Path) -> None:
    content, names = FILES[name]
    path = in_tmp / "x.toml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    message = require_refusal(in_tmp, "train", path, names=names)
    assert "x.toml" in message or "run." in message or "model" in message or "schedules" in message


@pytest.mark.parametrize("name", ["workers", "threads"])
def test_processes_and_threads_have_a_limit(name: str) -> None:
    """Not by trying it: a file that asks for 2^31 workers must not get to start them."""
    with pytest.raises(ValueError, match=rf"Run\.{name} must be"):
        Run(**{name: 2**31})


@pytest.mark.parametrize("kind", ["endless", "pipe", "folder", "holes", "missing"])
def test_files_that_are_no_files(kind: str, in_tmp: Path) -> None:
    path = in_tmp / "x.toml"
    if kind == "endless":
        path.symlink_to("/dev/zero")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "holes":
        path.touch()
        os.truncate(path, 1 << 40)
    require_refusal(in_tmp, "train", path, names="x.toml")


@pytest.mark.parametrize("data", ["/dev/zero", "pipe", "/etc/shadow-", "/proc/self/mem", "loop"])
@pytest.mark.parametrize("kind", ["plain_text", "arrays"])
def test_data_that_are_no_data(kind: str, data: str, in_tmp: Path) -> None:
    if data == "pipe":
        os.mkfifo(in_tmp / "pipe")
    if data == "loop":
        (in_tmp / "loop").symlink_to(in_tmp / "loop")
    recipe = "gpt-bytes" if kind == "plain_text" else "digits-mini"
    path = data if data.startswith("/") else str(in_tmp / data)
    require_refusal(in_tmp, "train", recipe, f"data={{kind='{kind}', path='{path}'}}", names=data)


def test_the_good_file_is_good(in_tmp: Path) -> None:
    (in_tmp / "x.toml").write_text(GOOD)
    outcome = command("train", in_tmp / "x.toml")
    assert outcome.code == 0, outcome.stderr
    assert (in_tmp / "runs" / "x" / "run" / "metrics.json").exists()
