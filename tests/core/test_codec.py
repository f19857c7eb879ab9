"""The tree as text: round trips, paths on disk, strictness, a class of the user's own."""

import math
import os
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.sample_tree import (
    EMA,
    MSE,
    SGD,
    Arrays,
    CrossEntropy,
    Digits,
    Experiment,
    Flip,
    Focal,
    GPTConfig,
    Method,
    Mixup,
    MLPConfig,
    Run,
)
from torchstone.core import tree
from torchstone.core.errors import UserError


def refused(text: str, kind: str = "toml") -> str:
    """The error of reading a document."""
    read = tree.from_toml if kind == "toml" else tree.from_json
    with pytest.raises(UserError) as caught:
        read(Experiment, text, "exp.toml")
    message = str(caught.value)
    assert "\n" not in message and len(message) < 500
    return message


# --- round trips ---

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
numbers = st.floats(allow_nan=False)
integers = st.integers(-(2**63), 2**63 - 1)
losses = st.one_of(
    st.builds(CrossEntropy, smoothing=st.floats(0, 0.99), weighting=st.sampled_from(["none", "balanced"])),
    st.builds(Focal, gamma=numbers),
    st.just(MSE()),
)
mixups = st.builds(Mixup, alpha=numbers, inner=st.none() | losses)
methods = st.builds(
    Method,
    loss=losses,
    optimizer=st.builds(SGD, lr=numbers, momentum=numbers),
    averaging=st.none() | st.builds(EMA, decay=numbers),
    batch_transforms=st.lists(st.builds(Flip, p=numbers) | mixups, max_size=4).map(tuple),
)
folders = texts.map(lambda text: os.path.abspath("/" + text))
arrays = st.builds(Arrays, path=folders, standardize=st.booleans(), columns=st.lists(texts, max_size=3).map(tuple))
grids = st.lists(st.tuples(integers, numbers), max_size=3).map(tuple)
models = st.builds(MLPConfig, depth=integers, hidden=st.lists(integers, max_size=60).map(tuple)) | st.builds(
    GPTConfig, width=st.none() | integers, grid=grids
)
runs = st.builds(Run, name=texts, note=st.none() | texts.filter(lambda text: text != "none"), seed=integers, budget=numbers)
experiments = st.builds(Experiment, data=st.just(Digits()) | arrays, model=models, method=methods, run=runs)


@settings(max_examples=150, deadline=None)
@given(experiments)
def test_round_trip(experiment):
    assert tree.from_toml(Experiment, tree.to_toml(experiment), "x.toml") == experiment
    again = tree.from_json(Experiment, tree.to_json(experiment))
    assert again == experiment and tree.digest(again) == tree.digest(experiment)
    assert tree.diff(experiment, again) == []
    assert tree.edit(experiment, []) == experiment


@settings(max_examples=50, deadline=None)
@given(experiments, experiments)
def test_digest_and_diff_see_every_change(a, b):
    changes = tree.diff(a, b)
    assert [(path, tree.get(a, path), tree.get(b, path)) for path, _, _ in changes] == changes
    for path, _, value in changes:
        assert tree.digest(tree.put(a, path, value)) != tree.digest(a)
        a = tree.put(a, path, value)
    assert a == b


def test_nan_survives():
    experiment = Experiment(run=Run(budget=math.nan))
    for again in (tree.from_toml(Experiment, tree.to_toml(experiment), "x"), tree.from_json(Experiment, tree.to_json(experiment))):
        assert math.isnan(again.run.budget) and tree.diff(experiment, again) == []


@pytest.mark.parametrize("text", ["a." * 100, "'a'." * 100, '"a".' * 100, "# " + "a." * 100, "\n" + "a." * 100])
def test_text_with_many_dots_is_no_deep_key(text):
    experiment = Experiment(run=Run(name=text))
    assert tree.from_toml(Experiment, tree.to_toml(experiment), "x") == experiment


def test_toml_reads_well():
    experiment = Experiment(
        data=Arrays(path="/d/x.npz"), method=Method(batch_transforms=(Flip(), Mixup(inner=Focal()))), model=MLPConfig(hidden=(8, 16))
    )
    assert (
        tree.to_toml(experiment)
        == """\
[data]
kind = "arrays"
path = "/d/x.npz"
standardize = false
columns = []

[model]
kind = "mlp"
depth = 2
hidden = [8, 16]
activation = "relu"

[method]
kind = "method"
averaging = "none"

[method.loss]
kind = "cross_entropy"
smoothing = 0.0
weighting = "none"

[method.optimizer]
kind = "sgd"
lr = 0.1
momentum = 0.9

[[method.batch_transforms]]
kind = "flip"
p = 0.5

[[method.batch_transforms]]
kind = "mixup"
alpha = 0.2
low = 0
high = 3

[method.batch_transforms.inner]
kind = "focal"
gamma = 2.0

[run]
kind = "run"
name = "run"
note = "none"
seed = 0
budget = inf
depth = 1
resume = false
loss_limit = "none"
"""
    )


def test_json_has_only_json_numbers():
    assert '"budget": "inf"' in tree.to_json(Experiment())
    assert tree.from_json(Experiment, '{"run": {"budget": "-inf"}}').run.budget == -math.inf


def test_a_file_may_say_less():
    assert tree.from_toml(Experiment, "", "x") == Experiment()
    short = '[run]\nseed = 3\n[method]\nloss = "focal"\nbatch_transforms = ["flip", {kind = "mixup", alpha = 1}]\n'
    expected = Experiment(run=Run(seed=3), method=Method(loss=Focal(), batch_transforms=(Flip(), Mixup(alpha=1.0))))
    read = tree.from_toml(Experiment, short, "x")
    assert read == expected and isinstance(tree.get(read, "method.batch_transforms.mixup.alpha"), float)


def test_digest_is_of_the_meaning():
    assert tree.digest(Experiment(run=Run(budget=1))) == tree.digest(Experiment(run=Run(budget=1.0)))
    a = tree.from_toml(Experiment, "[run]\nseed = 1\n[data]\nkind = 'digits'", "x")
    b = tree.from_toml(Experiment, "[data]\nkind = 'digits'\n[run]\nseed = 1", "x")
    assert tree.digest(a) == tree.digest(b) != tree.digest(Experiment())
    assert len(tree.digest(a)) == 64


# --- paths on disk ---


def test_a_path_in_a_file_starts_at_the_file(tmp_path):
    text = '[data]\nkind = "arrays"\npath = "sub/../x.npz"\n'
    assert tree.from_toml(Experiment, text, tmp_path / "exp.toml").data == Arrays(path=str(tmp_path / "x.npz"))


def test_paths_are_stored_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert tree.encode(Experiment(data=Arrays(path="x.npz")))["data"]["path"] == str(Path.cwd() / "x.npz")
    assert tree.encode(Experiment(data=Arrays(path="")))["data"]["path"] == ""


def test_home_is_known(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert tree.decode(Arrays, {"path": "~/x"}).path == "/home/me/x"


# --- strictness ---


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[method]\nloss = "fokal"', 'method.loss has no kind "fokal", did you mean "focal"? (cross_entropy, focal, mse)'),
        ('[method.loss]\nkind = "os:system"', 'method.loss has no kind "os:system" (cross_entropy, focal, mse)'),
        ('[method.loss]\nkind = "__class__"', 'method.loss has no kind "__class__" (cross_entropy, focal, mse)'),
        ("[method.loss]\nkind = 3", "method.loss.kind must be text, got 3"),
        ("[method.loss]\ngamma = 3", "method.loss needs a kind (cross_entropy, focal, mse)"),
        ('[method.loss]\nkind="focal"\ngama=1', 'method.loss has no setting "gama", did you mean "gamma"? (gamma)'),
        ('[method.loss]\nkind="focal"\n__class__=1', 'method.loss has no setting "__class__" (gamma)'),
        ("[metod]", 'the experiment has no setting "metod", did you mean "method"? (data, model, method, run)'),
        ("[run]\nseed = 1.0", "run.seed must be an integer, got 1.0"),
        ("[run]\nseed = true", "run.seed must be an integer, got true"),
        ("[run]\nbudget = true", "run.budget must be a number, got true"),
        ("[run]\nresume = 1", "run.resume must be true or false, got 1"),
        ('[run]\nbudget = "1e-3"', 'run.budget must be a number, got "1e-3"'),
        ("[run]\nname = 3", "run.name must be text, got 3"),
        ("[run]\nname = 2024-01-01", "run.name must be text, got a date"),
        ("[run]\nname = ['a']", "run.name must be text, got a list of 1"),
        ("[run]\nseed = {a = 1}", "run.seed must be an integer, got a table"),
        ('[run]\nseed = "none"', 'run.seed must be an integer, got "none"'),
        ("[run]\nloss_limit = []", "run.loss_limit must be a number or none, got a list of 0"),
        ("[run]\nseed = 9223372036854775808", "run.seed must fit in 64 bits, got 9223372036854775808"),
        (f"[run]\nseed = 0x{'f' * 1000}", "run.seed must fit in 64 bits, got an integer of 4000 bits"),
        ("[model]\nkind='mlp'\nhidden=[1,'a']", 'model.hidden.1 must be an integer, got "a"'),
        ("[model]\nkind='mlp'\nhidden=3", "model.hidden must be a list of (an integer), got 3"),
        ("[model]\nkind='mlp'\nactivation='gelo'", 'model.activation has no value "gelo", did you mean "gelu"? (relu, gelu)'),
        ("[model]\nkind='gpt'\ngrid=[[1]]", "model.grid.0 must be a list of 2 (an integer, a number), got a list of 1"),
        ("[data]\nkind='arrays'", 'data.path must be given: arrays has no default for it (a file path); {kind="arrays", path=...}'),
        ("[run]\nkind='ran'", 'run has no kind "ran", did you mean "run"? (run)'),
        ("[method.loss]\nkind='cross_entropy'\nsmoothing=1", "method.loss.smoothing must be in [0, 1), got 1.0"),
        ("[method]\noptimizer='adamw'\naveraging='ema'", "method: adamw and averaging do not go together here"),
        ("[[method.batch_transforms]]\nkind='mixup'\nlow=9", "method.batch_transforms.0.low must be <= high, got 9 > 3"),
        (
            "[method.loss]\nkind='custom'\nclass='my:Loss'",
            "method.loss is a class of your own (my:Loss), which no file and no edit can build",
        ),
        ("[method.optimizer]\nkind='custom'\nclass='my:Opt'", 'method.optimizer has no kind "custom" (sgd, adamw)'),
    ],
)
def test_refused(text, message):
    assert refused(text).startswith(f"exp.toml: {message}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[run]\nseed == 1", "exp.toml, line 2, column 7: Invalid value"),
        ("[run]\nseed = 1\nseed = 2", "exp.toml, line 3, column 9: Cannot overwrite a value"),
        ("[run]\n[run]", "exp.toml, line 2, column 5: Cannot declare ('run',) twice"),
        ("[run]\nseed = 1\nname =", "exp.toml, line 3, column 7: Invalid value"),
        ("[run]\nname = 'a", "exp.toml, line 2, column 10: "),
        ("x = " + "[" * 5000 + "]" * 5000, "exp.toml is nested more than 64 deep"),
        ("x = " + "[" * 70 + "]" * 70, "exp.toml: the experiment is nested more than 64 deep"),
        ("x = {" + "'a'." * 100_000 + "a = 1}", "exp.toml: a key is nested more than 64 deep"),
        ("a" + ".a" * 100_000 + " = 1", "exp.toml: a key is nested more than 64 deep"),
        (f"[run]\nseed = {'9' * 900_000}", "exp.toml: Exceeds the limit"),
        ("#" * 1_000_001, "exp.toml must be at most 1000000 bytes, got 1000001"),
    ],
)
def test_broken_toml(text, message):
    assert refused(text).startswith(message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"run": {"seed": 1, "seed": 2}}', 'exp.toml: "seed" is given twice'),
        ('{"run": \n}', "exp.toml, line 2, column 1: Expecting value"),
        ("[]", "exp.toml must hold a table, got list"),
        ("[" * 100_000, "exp.toml is nested more than 64 deep"),
        ('{"run": {"name": "\\ud800"}}', "exp.toml: run.name must be valid Unicode"),
        ('{"run": {"seed": null}}', "exp.toml: run.seed must be an integer, got none"),
        ('{"run": {"name": "inf", "budget": "infinite"}}', 'exp.toml: run.budget must be a number, got "infinite"'),
    ],
)
def test_broken_json(text, message):
    assert refused(text, "json").startswith(message)


def test_long_text_is_refused():
    with pytest.raises(UserError, match=r"run\.name must be text of at most 1000000 characters, got 1000001"):
        tree.decode(Experiment, {"run": {"name": "x" * 1_000_001}})


def test_long_lists_are_refused():
    assert len(tree.decode(Experiment, {"model": {"kind": "mlp", "hidden": [1] * 32_768}}).model.hidden) == 32_768
    message = "model.hidden must have at most 32768 elements, got 32769"
    with pytest.raises(UserError, match=message):
        tree.decode(Experiment, {"model": {"kind": "mlp", "hidden": [1] * 32_769}})
    with pytest.raises(UserError, match=message):
        tree.encode(Experiment(model=MLPConfig(hidden=(1,) * 32_769)))


def test_where_is_put_in_front():
    with pytest.raises(UserError, match=r"^method.loss.gamma must be a number"):
        tree.decode(Focal, {"gamma": "x"}, "method.loss")


@pytest.mark.parametrize(
    ("experiment", "message"),
    [
        (Experiment(run=Run(note="none")), 'run.note is the text "none"'),
        (Experiment(run=Run(seed="0")), 'run.seed must be an integer, got "0"'),  # pyright: ignore
        (Experiment(run=Run(seed=2**63)), "run.seed must fit in 64 bits"),
        (Experiment(run=Run(budget=None)), "run.budget must be a number, got none"),  # pyright: ignore
        (Experiment(run=Run(name="\ud800")), "run.name must be valid Unicode"),
        (Experiment(model=MLPConfig(hidden=[1])), "model.hidden must be a list of (an integer): in Python a tuple, got a list"),  # pyright: ignore
        (Experiment(method=Method(optimizer=EMA())), 'method.optimizer has no kind "ema" (sgd, adamw)'),  # pyright: ignore
        (Experiment(run=Run(seed=EMA())), "run.seed must be an integer, got ema"),  # pyright: ignore
        (Experiment(model=MLPConfig(activation="gelo")), 'model.activation has no value "gelo"'),  # pyright: ignore
    ],
)
def test_encode_refuses_what_could_not_be_read(experiment, message):
    with pytest.raises(UserError) as caught:
        tree.encode(experiment)
    assert str(caught.value).startswith(message)


def test_none_as_a_word_is_no_none():
    assert tree.from_toml(Experiment, tree.to_toml(Experiment(run=Run(name="none"))), "x").run.name == "none"
    assert tree.from_toml(Experiment, "[method.loss]\nkind='cross_entropy'\nweighting='none'", "x").method.loss == CrossEntropy()


# --- a class of the user's own ---


@dataclass(frozen=True)
class OwnLoss:
    sharpness: float = 1.0

    def __call__(self) -> None: ...


def test_custom_is_written_and_not_read():
    experiment = Experiment(method=Method(loss=OwnLoss()))
    written = tree.encode(experiment)["method"]["loss"]
    assert written == {"kind": "custom", "class": f"{__name__}:OwnLoss", "settings": "OwnLoss(sharpness=1.0)"}
    assert f"{__name__}:OwnLoss" in refused(tree.to_toml(experiment))
    assert tree.digest(experiment) != tree.digest(Experiment(method=Method(loss=OwnLoss(sharpness=2.0))))
    assert tree.edit(experiment, ["run.seed=1"]).method.loss is experiment.method.loss
    assert "method.loss.sharpness" not in tree.paths(experiment)
    assert tree.encode(Experiment(method=Method(loss=print)))["method"]["loss"]["class"].startswith("builtins:")
