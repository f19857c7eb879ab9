"""A body from a run folder and from a file: the architecture and the digest are written out, and what changed is refused."""

import json
import os
from dataclasses import dataclass

import pytest
import safetensors.torch
import torch

from torchstone.core import tree
from torchstone.core.errors import Damaged, UserError
from torchstone.core.protocols import Facts, ImageShape
from torchstone.core.store import write_store
from torchstone.models import ConvNetConfig, Model, PretrainedConfig, ResnetConfig, VITConfig, build

GRAY = ImageShape(1, 8, 8)
FACTS = Facts(inputs=GRAY)
BODY = ConvNetConfig(widths=(4, 6))


@dataclass(frozen=True, kw_only=True, slots=True)
class Holder:
    """A place in a tree: what stands there is written with its kind."""

    model: Model


def state_of(body=BODY, outputs=10, seed=0, inputs=GRAY):
    return dict(build(body, inputs, outputs, key=seed).state_dict())


def make_run(folder, body=BODY, steps=(10, 20), best=10, checkpoint="best", file="model", outputs=10):
    """A run folder as far as its weights go; the weights of step s are those of seed s."""
    folder.mkdir(parents=True)
    artifact = {
        "version": 1,
        **tree.encode(Holder(model=body)),
        "weights": {"checkpoint": checkpoint, "file": file},
        "facts": "anything else",
    }
    (folder / "artifact.json").write_text(json.dumps(artifact))
    for step in steps:
        files = {"model": state_of(body, outputs, step), "average": state_of(body, outputs, step + 1), "optimizer": {"m": torch.zeros(2)}}
        write_store(folder / "checkpoints" / f"step-{step}", files, {"step": step})
    if best:
        (folder / "checkpoints" / "best").write_text(f"step-{best}\n")
    return folder


def make_file(path, **changed):
    safetensors.torch.save_file(state_of(**changed), path)
    return path


def loaded(config, outputs=3):
    model = build(config, GRAY, outputs, key=99)
    return model, config.load(model)


def holds(model, state):
    ours = model.state_dict()
    return all(torch.equal(ours[name], tensor) for name, tensor in state.items() if not name.startswith("head"))


# --- runs --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("made", "seed"),
    [
        ({}, 10),
        ({"checkpoint": "last", "best": 0}, 20),
        ({"file": "average"}, 11),
        ({"best": 20}, 20),
    ],
)
def test_a_run_says_its_architecture_and_which_weights_are_its_result(tmp_path, made, seed):
    run = make_run(tmp_path / "run", **made)
    config = PretrainedConfig(path=str(run)).resolve(FACTS)
    assert config.body == config.architecture == BODY
    assert len(config.sha256) == 64
    model, done = loaded(config)
    assert holds(model, state_of(seed=seed))
    assert done.fresh == ("head.weight", "head.bias")
    assert set(done.left_out) == {"head.weight", "head.bias"}


def test_resolved_it_reads_the_disk_no_more(tmp_path):
    config = PretrainedConfig(path=str(make_run(tmp_path / "run"))).resolve(FACTS)
    (tmp_path / "run").rename(tmp_path / "elsewhere")
    assert config.resolve(FACTS) == config
    build(config, GRAY, 3, key=0)
    with pytest.raises(UserError, match="does not exist"):
        config.load(build(config, GRAY, 3, key=0))


def test_a_run_that_was_itself_pretrained_gives_its_body(tmp_path):
    first = PretrainedConfig(path=str(make_run(tmp_path / "first"))).resolve(FACTS)
    second = make_run(tmp_path / "second", body=first)
    assert PretrainedConfig(path=str(second)).resolve(FACTS).body == BODY


def test_a_given_body_wins_over_the_runs(tmp_path):
    run = make_run(tmp_path / "run")
    other = ConvNetConfig(widths=(4, 6), dropout=0.5)
    config = PretrainedConfig(path=str(run), body=other).resolve(FACTS)
    assert config.body == other
    assert holds(loaded(config)[0], state_of(seed=10))


def test_weights_of_a_run_that_went_on_are_refused(tmp_path):
    run = make_run(tmp_path / "run")
    config = PretrainedConfig(path=str(run)).resolve(FACTS)
    (run / "checkpoints" / "best").write_text("step-20")
    with pytest.raises(UserError, match=r"step-20.*changed since this experiment was prepared.*model.sha256"):
        loaded(config)


def test_a_damaged_checkpoint_is_refused(tmp_path):
    run = make_run(tmp_path / "run")
    config = PretrainedConfig(path=str(run)).resolve(FACTS)
    other = run / "checkpoints" / "step-10" / "optimizer.safetensors"
    content = bytearray(other.read_bytes())
    content[-1] ^= 1
    other.write_bytes(content)
    with pytest.raises(Damaged, match="optimizer"):
        loaded(config)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda run: (run / "artifact.json").unlink(), "not a run folder, artifact.json is missing"),
        (lambda run: (run / "artifact.json").write_text("{"), "artifact.json"),
        (lambda run: (run / "artifact.json").write_text("[]"), "names no model and weights"),
        (lambda run: (run / "artifact.json").write_text('{"model": {"kind": "conv_net"}, "weights": 3}'), "names no model and weights"),
        (
            lambda run: (run / "artifact.json").write_text('{"model": {"kind": "x"}, "weights": {"checkpoint": "last", "file": "model"}}'),
            "artifact.json: model",
        ),
        (
            lambda run: (run / "artifact.json").write_text(
                '{"model": {"kind": "conv_net"}, "weights": {"checkpoint": "last", "file": "../../x"}}'
            ),
            "artifact.json: file",
        ),
        (lambda run: (run / "checkpoints").rename(run / "gone"), "no checkpoint yet"),
    ],
)
def test_bad_runs_are_refused(tmp_path, damage, words):
    run = make_run(tmp_path / "run")
    damage(run)
    with pytest.raises(UserError, match=words) as error:
        PretrainedConfig(path=str(run)).resolve(FACTS)
    assert "\n" not in str(error.value)


# --- files ---------------------------------------------------------------------------------------------------------------


def test_a_file_needs_its_architecture(tmp_path):
    path = make_file(tmp_path / "body.safetensors")
    with pytest.raises(UserError, match=r"model.body: .*body.safetensors does not say its architecture"):
        PretrainedConfig(path=str(path)).resolve(FACTS)
    config = PretrainedConfig(path=str(path), body=BODY).resolve(FACTS)
    model, done = loaded(config)
    assert holds(model, state_of())
    assert done.loaded == len(state_of()) - 2


def test_a_link_is_followed_and_a_changed_file_refused(tmp_path):
    path = make_file(tmp_path / "blob.safetensors")
    link = tmp_path / "link.safetensors"
    link.symlink_to(path)
    config = PretrainedConfig(path=str(link), body=BODY).resolve(FACTS)
    assert holds(loaded(config)[0], state_of())
    make_file(path, seed=1)
    with pytest.raises(UserError, match="changed since this experiment was prepared"):
        loaded(config)
    assert holds(loaded(PretrainedConfig(path=str(link), body=BODY))[0], state_of(seed=1))  # unresolved: no digest to compare with


@pytest.mark.parametrize("content", [b"", b"\x00" * 8, b"\xff" * 100, b"\x08\x00\x00\x00\x00\x00\x00\x00{}{}{}{}", b"PK\x03\x04 a pickle"])
def test_a_garbled_file_is_refused(tmp_path, content):
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"x.safetensors: (cannot be read as safetensors|no tensor fits)") as error:
        loaded(PretrainedConfig(path=str(path), body=BODY))
    assert "\n" not in str(error.value)


def test_a_truncated_file_is_refused(tmp_path):
    path = make_file(tmp_path / "x.safetensors")
    os.truncate(path, path.stat().st_size - 10)
    with pytest.raises(UserError, match="cannot be read as safetensors"):
        loaded(PretrainedConfig(path=str(path), body=BODY))


def test_paths_that_lead_nowhere(tmp_path):
    (tmp_path / "weights.pt").write_bytes(b"x")
    for path, words in (
        (str(tmp_path / "no"), "does not exist"),
        (str(tmp_path / "weights.pt"), "no .safetensors file"),
        ("", "is needed"),
    ):
        for body in (BODY, None):
            with pytest.raises(UserError, match=f"model.path: .*{words}"):
                PretrainedConfig(path=path, body=body).resolve(FACTS)


def test_another_architecture_is_refused_by_the_tensor(tmp_path):
    path = make_file(tmp_path / "x.safetensors")
    with pytest.raises(UserError, match=r"x.safetensors: tensor (\S+) is \[4.*\], the model's \1 is \[5.*\]"):
        loaded(PretrainedConfig(path=str(path), body=ConvNetConfig(widths=(5, 6))))


# --- the tree ----------------------------------------------------------------------------------------------------------


def test_it_is_a_part_like_any_other(tmp_path):
    config = PretrainedConfig(path=str(tmp_path), body=ResnetConfig(depth=50), sha256="0" * 64)
    document = tree.encode(Holder(model=config))
    assert document["model"]["kind"] == "pretrained"
    assert tree.decode(Holder, document) == Holder(model=config)


def test_the_build_is_the_architectures():
    config = PretrainedConfig(body=VITConfig(depth=1, dim=12, num_heads=2))
    ours, theirs = (build(c, GRAY, 3, key=5).state_dict() for c in (config, config.body))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    with pytest.raises(UserError, match="model.body"):
        _ = PretrainedConfig().architecture
