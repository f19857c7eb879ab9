"""The edit language: values, short paths, lists, and every refusal."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.sample_tree import EMA, MSE, SGD, AdamW, Arrays, CrossEntropy, Experiment, Flip, Focal, GPTConfig, Method, Mixup, MLPConfig, Run
from torchstone.core import tree
from torchstone.core.edits import parse_value
from torchstone.core.errors import UserError

BASE = Experiment()
LISTED = Experiment(method=Method(batch_transforms=(Flip(), Mixup())))


def edited(*edits: str, base: Experiment = BASE) -> Experiment:
    return tree.edit(base, edits)


def refused(*edits: str, base: Experiment = BASE) -> str:
    with pytest.raises(UserError) as caught:
        tree.edit(base, edits)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- values ---


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("-1", -1),
        ("1_000", 1000),
        ("0x10", 16),
        ("1e-3", 1e-3),
        ("inf", float("inf")),
        ("true", True),
        ("True", "True"),
        ("gelu", "gelu"),
        ("a/b c.txt", "a/b c.txt"),
        ("a#b", "a#b"),
        ("1 # one", "1 # one"),
        ("1\nx = 2", "1\nx = 2"),
        ("2024-01-01", "2024-01-01"),
        ('"1"', "1"),
        ("'a b'", "a b"),
        ('"\\u00e9"', "é"),
        ("[]", []),
        ("[32, 64]", [32, 64]),
        ("[flip,mixup]", ["flip", "mixup"]),
        ('[flip,{kind="mixup",alpha=0.3}]', ["flip", {"kind": "mixup", "alpha": 0.3}]),
        ("{kind=mixup, alpha = 1}", {"kind": "mixup", "alpha": 1}),
        ("[a.txt, 'b c', x/y#z, 1e3, true]", ["a.txt", "b c", "x/y#z", 1000.0, True]),
        ("[[1,2],[a]]", [[1, 2], ["a"]]),
        ('["a,b=[c]"]', ["a,b=[c]"]),
        ("[none, nan_]", ["none", "nan_"]),
    ],
)
def test_values(text, value):
    read = parse_value(text)
    assert read == value and type(read) is type(value)


@given(st.text(st.characters(exclude_categories=["Cs", "Cc", "Z"]), min_size=1))
def test_any_text_is_text_where_only_text_may_stand(text):
    if text[0] not in "\"'":
        assert edited(f"run.name={text}").run.name == text


@given(st.text(st.sampled_from("[]{}=,.\"'#- \n\\ab01"), min_size=1, max_size=12))
def test_no_value_breaks_the_reader(text):
    with contextlib.suppress(UserError):
        parse_value(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1", "the value is not TOML: Unclosed array"),
        ('"a', "the value is not TOML"),
        ("{a=1,a=2}", "the value is not TOML: Duplicate inline table key 'a'"),
        ("[" * 3000, "the value"),
        ("[" * 70 + "]" * 70, "the value is nested more than 64 deep"),
        ("[1] x = 3", "the value is not TOML"),
    ],
)
def test_broken_values(text, message):
    assert refused(f"model.hidden={text}").startswith(f"model.hidden={text}: {message}")


# --- setting ---


def test_left_to_right():
    assert edited("optimizer=adamw", "optimizer.lr=0.01").method.optimizer == AdamW(lr=0.01)
    assert edited("seed=1", "seed=2").run.seed == 2
    assert edited() == BASE


def test_a_kind_carries_nothing_over():
    tuned = edited("optimizer.lr=7")
    assert edited("optimizer=sgd", base=tuned).method.optimizer == SGD()


def test_numbers_and_words():
    new = edited("resume=true", "activation=gelu", "hidden=[1,2]", "budget=3", "run.name=x=y", "loss_limit=1e-3")
    assert new.run == Run(resume=True, budget=3.0, name="x=y", loss_limit=1e-3)
    assert isinstance(new.run.budget, float)
    assert new.model == MLPConfig(activation="gelu", hidden=(1, 2))


def test_text_is_taken_as_it_stands():
    assert edited("run.name=1.10").run.name == "1.10"
    assert edited("run.name=true").run.name == "true"
    assert edited("run.name='1.10'").run.name == "1.10"
    assert edited("run.name=none").run.name == "none"
    assert edited("note=[x").run.note == "[x"


def test_a_table_installs_a_part():
    assert edited('loss={kind="focal",gamma=3}').method.loss == Focal(gamma=3.0)
    assert edited("run={seed=3}").run == Run(seed=3)


def test_none_empties_a_seat():
    base = edited("averaging=ema", "batch_transforms=[flip]", "note=hello", "loss_limit=3")
    assert base.method.averaging == EMA()
    new = edited("averaging=none", "batch_transforms=none", "note=none", "loss_limit=none", base=base)
    assert (new.method.averaging, new.method.batch_transforms, new.run.note, new.run.loss_limit) == (None, (), None, None)


def test_a_path_starts_at_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    new = edited("data={kind=arrays,path=x.npz}")
    assert new.data == Arrays(path=str(tmp_path / "x.npz"))
    assert edited("data.path=2024", base=new).data == Arrays(path=str(tmp_path / "2024"))


def test_settings_that_only_fit_together_come_in_any_order():
    for edits in (["mixup.low=8", "mixup.high=9"], ["mixup.high=9", "mixup.low=8"]):
        assert edited(*edits, base=LISTED).method.batch_transforms[1] == Mixup(low=8, high=9)


# --- lists ---


def test_lists():
    assert edited("batch_transforms=[flip,{kind=mixup,alpha=0.3}]").method.batch_transforms == (Flip(), Mixup(alpha=0.3))
    assert edited("batch_transforms+=flip", 'batch_transforms+={kind="mixup"}').method.batch_transforms == (Flip(), Mixup())
    assert edited("batch_transforms-=flip", base=LISTED).method.batch_transforms == (Mixup(),)
    assert edited("batch_transforms-=0", base=LISTED).method.batch_transforms == (Mixup(),)
    assert edited("hidden+=128", "hidden-=32").model == MLPConfig(hidden=(64, 128))


def test_elements_by_index_and_by_kind():
    for path in ("method.batch_transforms.mixup.alpha", "method.batch_transforms.1.alpha", "batch_transforms.mixup.alpha", "mixup.alpha"):
        assert edited(f"{path}=0.4", base=LISTED).method.batch_transforms == (Flip(), Mixup(alpha=0.4))
    new = edited("batch_transforms.0={kind=mixup,low=1}", "batch_transforms.1=flip", base=LISTED)
    assert new.method.batch_transforms == (Mixup(low=1), Flip())


def test_an_element_moves_when_one_before_it_goes():
    new = edited("mixup.alpha=0.4", "batch_transforms-=flip", base=LISTED)
    assert new.method.batch_transforms == (Mixup(alpha=0.4),)


def test_parts_inside_elements():
    new = edited("mixup.inner=focal", "mixup.inner.gamma=1", base=LISTED)
    assert new.method.batch_transforms[1] == Mixup(inner=Focal(gamma=1.0))


# --- short paths ---


def test_a_full_path_wins_over_suffixes():
    assert tree.resolve_path(BASE, "data") == "data"
    assert tree.resolve_path(BASE, "run.depth") == "run.depth"
    assert tree.resolve_path(BASE, "hidden") == "model.hidden"


@pytest.mark.parametrize(
    ("short", "message"),
    [
        ("depth", '"depth" is ambiguous, write more of the path: model.depth, run.depth'),
        ("optimizr.lr", 'there is no setting "optimizr.lr", did you mean method.optimizer.lr or method.optimizer.momentum?'),
        ("lrr", 'there is no setting "lrr", did you mean method.optimizer.lr?'),
        ("optimizer.momentun", 'at method.optimizer, sgd has no "momentun", did you mean "momentum"? (lr, momentum)'),
        ("averaging.decay", "at method.averaging, there is nothing yet (none); put a part there first"),
        ("batch_transforms.cutmix", 'at method.batch_transforms, the list has no "cutmix"'),
        ("seed.x", "at run.seed, 0 has no settings"),
        ("zzzz", 'there is no setting "zzzz"'),
        ("adamw.lr", 'there is no setting "adamw.lr"'),
        ("", 'there is no setting ""'),
    ],
)
def test_unclear_paths(short, message):
    with pytest.raises(UserError) as caught:
        tree.resolve_path(BASE, short)
    assert message in str(caught.value)


def test_twins_need_the_index():
    twins = Experiment(method=Method(batch_transforms=(Mixup(), Flip(), Mixup())))
    message = refused("mixup.alpha=0.1", base=twins)
    assert (
        message
        == 'mixup.alpha=0.1: "mixup.alpha" is ambiguous, use the index: method.batch_transforms.0.alpha, method.batch_transforms.2.alpha'
    )
    assert "use the index" in refused("method.batch_transforms.mixup.alpha=0.1", base=twins)
    assert 'method.batch_transforms has 2 "mixup", use the index (0, 2)' in refused("batch_transforms-=mixup", base=twins)
    assert edited("batch_transforms.2.alpha=0.1", base=twins).method.batch_transforms == (Mixup(), Flip(), Mixup(alpha=0.1))
    assert edited("batch_transforms-=2", base=twins).method.batch_transforms == (Mixup(), Flip())


# --- refusals ---


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ("loss=fokal", 'method.loss has no kind "fokal", did you mean "focal"? (cross_entropy, focal, mse)'),
        ("loss=none", 'method.loss has no kind "none"'),
        ("loss=custom", "method.loss is a class of your own, which no file and no edit can build: pass the object from Python"),
        ("loss=3", "method.loss must be cross_entropy or focal or mse or a class of your own (in Python), got 3"),
        ("loss={gamma=1}", "method.loss needs a kind (cross_entropy, focal, mse)"),
        ("loss={kind=focal,gama=1}", 'method.loss has no setting "gama", did you mean "gamma"? (gamma)'),
        ("data=arrays", 'data.path must be given: arrays has no default for it (a file path); {kind="arrays", path=...}'),
        ("seed=1.5", "run.seed must be an integer, got 1.5"),
        ("seed=true", "run.seed must be an integer, got true"),
        ("seed=99999999999999999999", "run.seed must fit in 64 bits"),
        ("activation=gelo", 'model.activation has no value "gelo", did you mean "gelu"? (relu, gelu)'),
        ("smoothing=1", "method.loss.smoothing must be in [0, 1), got 1.0"),
        ("batch_transforms+=mixap", 'method.batch_transforms.0 has no kind "mixap", did you mean "mixup"? (flip, mixup)'),
        ("batch_transforms=flip", 'method.batch_transforms must be a list of (flip or mixup), got "flip"'),
        ("batch_transforms-=flip", 'method.batch_transforms has no "flip", it is empty'),
        ("hidden-=5", "model.hidden has no 5 (32, 64)"),
        ("optimizer+=sgd", "+= is for lists, method.optimizer is sgd (sgd or adamw)"),
        ("seed-=1", "-= is for lists, run.seed is 0 (an integer)"),
        ("seed", "an edit is path=value, path+=element or path-=element"),
        ("=3", "an edit is path=value, path+=element or path-=element"),
        ("seed=", "there is no value; none empties a seat"),
        ("se ed=3", "an edit is path=value"),
        ("__class__=3", 'there is no setting "__class__"'),
        ("loss.__init__=3", "there is no setting"),
    ],
)
def test_refused(edit, message):
    assert refused(edit).startswith(f"{edit}: {message}")


def test_an_edit_that_would_be_lost_is_refused():
    expected = "optimizer=adamw: this would undo the earlier edit optimizer.lr=0.1; put optimizer=adamw before it, or leave one out"
    assert refused("optimizer.lr=0.1", "optimizer=adamw") == expected
    assert refused("method.optimizer.lr=0.1", "seed=3", "method={}").startswith(
        "method={}: this would undo the earlier edit method.optimizer.lr"
    )
    assert "undo the earlier edit decay=0.5" in refused("averaging=ema", "decay=0.5", "averaging=none")


def test_an_edit_of_a_removed_element_is_refused():
    assert "undo the earlier edit mixup.alpha=0.4" in refused("mixup.alpha=0.4", "batch_transforms-=mixup", base=LISTED)
    assert "undo the earlier edit mixup.alpha=0.4" in refused(
        "mixup.alpha=0.4", "batch_transforms-=flip", "batch_transforms-=0", base=LISTED
    )
    assert "undo the earlier edit mixup.alpha=0.4" in refused("mixup.alpha=0.4", "batch_transforms=[]", base=LISTED)


def test_a_short_path_must_mean_the_same_in_the_end():
    message = refused("alpha=0.4", "batch_transforms+=mixup", base=LISTED)
    assert message.startswith('alpha=0.4: after all edits, "alpha" is ambiguous, use the index')
    message = refused("batch_transforms.1.alpha=0.4", "batch_transforms+=mixup", "batch_transforms-=flip", base=LISTED)
    assert message == (
        'batch_transforms.1.alpha=0.4: "batch_transforms.1.alpha" meant method.batch_transforms.0.alpha and means '
        "method.batch_transforms.1.alpha after all edits; write the full path, or the edits in another order"
    )
    assert "after all edits, there is no setting" in refused("batch_transforms.1.alpha=0.4", "batch_transforms-=flip", base=LISTED)


def test_validation_names_the_edits():
    assert refused("seed=3", "smoothing=2") == "smoothing=2: method.loss.smoothing must be in [0, 1), got 2.0"
    message = refused("seed=3", "averaging=ema", "optimizer=adamw")
    assert message == "averaging=ema, optimizer=adamw: method: adamw and averaging do not go together here"
    assert refused("mixup.low=8", base=LISTED).startswith("mixup.low=8: method.batch_transforms.1.low must be <= high")


def test_other_models():
    assert edited("model=gpt", "width=3", "grid=[[1,2],[3,4.5]]").model == GPTConfig(width=3, grid=((1, 2.0), (3, 4.5)))
    assert edited("loss=mse").method.loss == MSE()
    assert edited("weighting=balanced").method.loss == CrossEntropy(weighting="balanced")


@pytest.mark.parametrize("base", [BASE, LISTED])
def test_every_setting_can_be_written_as_an_edit_of_itself(base):
    plain = tree.encode(base)
    for row in tree.settable(base):
        if isinstance(row.value, int | float | str):
            assert edited(f"{row.path}={str(row.value).lower() if isinstance(row.value, bool) else row.value}", base=base) == base
    assert tree.encode(base) == plain
