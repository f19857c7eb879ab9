"""The tree: kinds and annotations, places, differences."""

import dataclasses
import pickle
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.sample_tree import (
    EMA,
    MSE,
    Arrays,
    Averaging,
    BatchTransform,
    CrossEntropy,
    Experiment,
    Flip,
    Focal,
    GPTConfig,
    Loss,
    Method,
    Mixup,
    MLPConfig,
    Run,
)
from torchstone.core import tree
from torchstone.core.errors import UserError

# --- kinds and annotations ---


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("AdamW", "adamw"),
        ("CrossEntropy", "cross_entropy"),
        ("MLPConfig", "mlp"),
        ("GPTConfig", "gpt"),
        ("ConvNetConfig", "conv_net"),
        ("SGD", "sgd"),
        ("EMA", "ema"),
        ("StdlibText", "stdlib_text"),
        ("CosineRestarts", "cosine_restarts"),
        ("L2", "l2"),
        ("ClipByNorm", "clip_by_norm"),
        ("Config", "config"),
        ("BitsPerByte", "bits_per_byte"),
        ("JSONLines", "json_lines"),
    ],
)
def test_kind(name, kind):
    cls = type(name, (), {})
    assert tree.kind_of(cls) == kind and tree.kind_of(cls()) == kind


def test_choices():
    assert tree.choices(Loss) == {"cross_entropy": CrossEntropy, "focal": Focal, "mse": MSE}
    assert tree.choices(Averaging) == {"ema": EMA} == tree.choices(Averaging | None)
    assert tree.choices(tuple[BatchTransform, ...]) == {"flip": Flip, "mixup": Mixup}


def test_fields_of():
    fields = tree.fields_of(CrossEntropy)
    assert list(fields) == ["smoothing", "weighting"]
    assert fields["smoothing"] == (float, 0.0, "Share of the label given to all classes.")
    assert fields["weighting"].doc == ""
    assert tree.fields_of(Focal)["gamma"].doc == "How steeply easy examples are discounted;\n0 is plain cross-entropy."
    assert tree.fields_of(Arrays)["path"].default is dataclasses.MISSING
    assert list(tree.fields_of(EMA)) == ["decay"]  # a ClassVar is no field


def test_fields_inherit_docs():
    @dataclass(frozen=True, kw_only=True, slots=True)
    class Sharp(Focal):
        more: int = 1
        """More."""

    assert tree.fields_of(Sharp)["gamma"].doc.startswith("How steeply")
    assert tree.fields_of(Sharp)["more"].doc == "More."


@pytest.mark.parametrize("annotation", [dict[str, int], list[int], bytes, object, tuple[int, ...] | tuple[str, ...]])
def test_what_the_tree_cannot_hold(annotation):
    with pytest.raises(TypeError):
        tree.slot_of(annotation)


def test_two_parts_of_one_kind():
    other = dataclasses.make_dataclass("Focal", [])
    with pytest.raises(TypeError, match="two parts"):
        tree.slot_of(Focal | other)


@pytest.mark.parametrize("name", ["kind", "bad"])
def test_a_bad_field_is_named(name):
    cls = dataclasses.make_dataclass("Part", [(name, bytes)])
    with pytest.raises(TypeError, match=rf"Part\.{name}"):
        tree.slots_of(cls)


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (float | None, "a number or none"),
        (tuple[int, ...], "a list of (an integer)"),
        (tuple[float, float], "a list of 2 (a number, a number)"),
        (bool, "true or false"),
        (tree.FilePath | None, "a file path or none"),
        (Loss | None, "cross_entropy or focal or mse or none"),
        (Any, "a class of your own (in Python)"),
    ],
)
def test_slot_in_words(annotation, words):
    assert str(tree.slot_of(annotation)) == words


# --- places ---

FULL = Experiment(method=Method(batch_transforms=(Flip(), Mixup())))


def test_get():
    assert tree.get(FULL, "") is FULL
    assert tree.get(FULL, "method.batch_transforms.mixup.alpha") == 0.2 == tree.get(FULL, "method.batch_transforms.1.alpha")
    assert tree.get(FULL, "model.hidden.1") == 64


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("method.los", 'there is no setting "method.los": method has no "los", did you mean "loss"?'),
        ("method.loss.__class__", 'cross_entropy has no "__class__" (smoothing, weighting)'),
        ("method.batch_transforms.7", 'the list has no "7" (flip, mixup)'),
        ("method.averaging.decay", "there is nothing yet (none); put a part there first"),
        ("run.seed.x", "0 has no settings"),
    ],
)
def test_get_and_put_refuse(path, message):
    for use in (lambda: tree.get(FULL, path), lambda: tree.put(FULL, path, 1)):
        with pytest.raises(UserError) as caught:
            use()
        assert message in str(caught.value)


def test_put_shares_the_rest():
    new = tree.put(FULL, "method.batch_transforms.mixup.alpha", 0.9)
    assert new.method.batch_transforms == (Flip(), Mixup(alpha=0.9))
    assert new.method.optimizer is FULL.method.optimizer and new.run is FULL.run
    assert FULL.method.batch_transforms == (Flip(), Mixup())
    assert tree.put(FULL, "", 3) == 3


@given(st.floats(allow_nan=False))
def test_put_is_replace(rate):
    expected = replace(FULL, method=replace(FULL.method, optimizer=replace(FULL.method.optimizer, lr=rate)))
    new = tree.put(FULL, "method.optimizer.lr", rate)
    assert new == expected and tree.get(new, "method.optimizer.lr") == rate
    assert pickle.loads(pickle.dumps(new)) == new


def test_put_does_not_validate():
    assert tree.get(tree.put(FULL, "method.loss.smoothing", 5.0), "method.loss.smoothing") == 5.0


def test_paths():
    assert tree.paths(replace(FULL, run=Run())) == [
        "data",
        "model",
        "model.depth",
        "model.hidden",
        "model.activation",
        "method",
        "method.loss",
        "method.loss.smoothing",
        "method.loss.weighting",
        "method.optimizer",
        "method.optimizer.lr",
        "method.optimizer.momentum",
        "method.averaging",
        "method.batch_transforms",
        "method.batch_transforms.0",
        "method.batch_transforms.0.p",
        "method.batch_transforms.1",
        "method.batch_transforms.1.alpha",
        "method.batch_transforms.1.low",
        "method.batch_transforms.1.high",
        "method.batch_transforms.1.inner",
        "run",
        *(f"run.{name}" for name in ("name", "note", "seed", "budget", "depth", "resume", "loss_limit")),
    ]


def test_every_path_can_be_got_and_resolved():
    for path in tree.paths(FULL):
        assert tree.resolve_path(FULL, path) == path
        assert tree.put(FULL, path, tree.get(FULL, path)) == FULL


def test_settable():
    rows = {row.path: row for row in tree.settable(FULL)}
    assert rows["method.loss.smoothing"] == ("method.loss.smoothing", "a number", 0.0, "Share of the label given to all classes.")
    assert rows["method.loss"].allowed == "cross_entropy or focal or mse or a class of your own (in Python)"
    assert rows["method.batch_transforms.mixup.alpha"].value == 0.2
    twins = replace(FULL, method=Method(batch_transforms=(Flip(), Flip())))
    assert "method.batch_transforms.1.p" in {row.path for row in tree.settable(twins)}


# --- differences ---


def test_diff():
    other = replace(FULL, model=GPTConfig(), run=Run(seed=4), method=replace(FULL.method, averaging=EMA()))
    assert tree.diff(FULL, other) == [("model", MLPConfig(), GPTConfig()), ("method.averaging", None, EMA()), ("run.seed", 0, 4)]
    assert tree.diff(FULL, FULL) == []


def test_diff_inside_lists():
    changed = tree.edit(FULL, ["mixup.alpha=0.5"])
    assert tree.diff(FULL, changed) == [("method.batch_transforms.1.alpha", 0.2, 0.5)]
    shorter = tree.edit(FULL, ["batch_transforms-=flip"])
    assert tree.diff(FULL, shorter) == [("method.batch_transforms", (Flip(), Mixup()), (Mixup(),))]
