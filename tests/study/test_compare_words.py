"""What a study may be asked: factors, designs, seeds, durations, study files. Everything wrong is one line that names it."""

import pytest

from torchstone import recipes
from torchstone.core import tree
from torchstone.core.errors import UserError
from torchstone.optim import EMA
from torchstone.study import definition
from torchstone.study.definition import Definition, read, seconds_of, seeds_of, to_text
from torchstone.study.design import variants_of
from torchstone.study.factors import factors_of, split_values
from torchstone.study.results import rotated

MINI, DIGITS = recipes.digits_mini(), recipes.digits()


@pytest.mark.parametrize(
    "text, values",
    [
        ("none,ema", ("none", "ema")),
        ("[],[flip],[{kind=mixup,alpha=0.2},cutout]", ("[]", "[flip]", "[{kind=mixup,alpha=0.2},cutout]")),
        ('\'a,b\',"c,\\"d,"', ("'a,b'", '"c,\\"d,"')),
        ("{kind=ema,decay=0.9},{kind=ema,decay=0.99}", ("{kind=ema,decay=0.9}", "{kind=ema,decay=0.99}")),
    ],
)
def test_values_are_cut_at_commas_that_are_inside_nothing(text, values):
    assert split_values(text, text) == values


@pytest.mark.parametrize(
    "vary, words",
    [
        (["averagin=none,ema"], "did you mean method.averaging"),
        (["averaging=ema"], "at least two values"),
        (["averaging"], "it is written PATH=A,B"),
        (["averaging=none,,ema"], "an empty value"),
        (["averaging=[none,ema"], r"\] is missing at the end"),
        (["averaging=none],ema"], "closes nothing"),
        (["averaging=none,emma"], 'run|averaging.*"emma"'),
        (["optimizer.lr=1e-3,0.001"], "0.001 changes nothing, it is the same as 1e-3"),
        (["averaging=none,ema", "method.averaging=none,swa"], "both set method.averaging"),
        (["optimizer=adamw,sgd", "optimizer.lr=1e-3,1e-2"], "replaces method.optimizer, in which"),
        (["run.seed=1,2"], "--seeds says over which seeds"),
        (["run.epochs=2,many"], "run.epochs must be an integer"),
        ([], "nothing is varied"),
    ],
)
def test_a_wrong_factor_is_one_line(vary, words):
    with pytest.raises(UserError, match=words) as caught:
        factors_of(MINI, vary)
    assert "\n" not in str(caught.value)


def test_the_baseline_is_the_recipes_value_where_it_is_listed_else_the_first():
    factors, baseline = factors_of(DIGITS, ["averaging=none,ema", "loss.smoothing=0,0.1"])
    assert [factor.baseline for factor in factors] == ["none", "0.1"]  # the recipe has EMA(decay=0.99), and smoothing 0.1
    assert baseline.method.averaging is None and baseline.method.loss.smoothing == 0.1
    factors, baseline = factors_of(DIGITS, ["averaging=none,{kind=ema,decay=0.99}"])
    assert baseline == DIGITS and factors[0].baseline == "{kind=ema,decay=0.99}"


def test_one_factor_at_a_time():
    factors, _ = factors_of(MINI, ["averaging=none,ema,swa", "loss.smoothing=0,0.1"])
    assert [(each.name, each.edits) for each in variants_of(factors, "one")] == [
        ("baseline", ()),
        ("averaging=ema", ("averaging=ema",)),
        ("averaging=swa", ("averaging=swa",)),
        ("smoothing=0.1", ("loss.smoothing=0.1",)),
    ]


def test_a_grid_has_every_combination_once():
    factors, _ = factors_of(MINI, ["averaging=none,ema,swa", "loss.smoothing=0.1,0"])
    found = variants_of(factors, "grid")
    assert len(found) == 6 == len({each.levels for each in found}) and found[0].name == "baseline" and found[0].levels == ("none", "0")
    assert found[-1].edits == ("averaging=swa", "loss.smoothing=0.1")
    many, _ = factors_of(MINI, [f"{path}=1,2,3,4,5,6,7,8,9" for path in ("run.epochs", "run.batch_size", "run.keep")])
    with pytest.raises(UserError, match="--grid makes 729 variants"):
        variants_of(many, "grid")


def test_without_turns_each_factor_off_in_turn():
    factors, baseline = factors_of(MINI, ["averaging=none,ema", "loss.smoothing=0,0.1"], last=True)
    assert isinstance(baseline.method.averaging, EMA) and baseline.method.loss.smoothing == 0.1
    assert [each.edits for each in variants_of(factors, "without")] == [(), ("averaging=none",), ("loss.smoothing=0",)]


def test_names_of_variants_are_folders_of_their_own():
    factors, _ = factors_of(MINI, ["run.note='a/b','a b',ab,'../x',A", "optimizer.lr=1e-3,3e-3"])
    names = [each.name for each in variants_of(factors, "one")]
    assert len({name.casefold() for name in names}) == len(names) == 6
    assert not any("/" in name or name.startswith(".") for name in names)


@pytest.mark.parametrize(
    "text, seeds", [("3", (0, 1, 2)), ("0,3,7", (0, 3, 7)), ("0-3", (0, 1, 2, 3)), ("7,", (7,)), ([4, 2], (4, 2)), (1, (0,))]
)
def test_seeds(text, seeds):
    assert seeds_of(text) == seeds


@pytest.mark.parametrize("text", ["0", "-1", "a", "3-1", "1,1", "", "0-99999999", "1e3"])
def test_seeds_that_are_none(text):
    with pytest.raises(UserError, match="--seeds"):
        seeds_of(text)


def test_durations():
    assert [seconds_of(text) for text in ("90s", "30m", "2h", "1.5h", "45", 7)] == [90, 1800, 7200, 5400, 45, 7]
    for text in ("", "x", "-3m", "0", "3d", "1h30m"):
        with pytest.raises(UserError, match="as 90s, 30m or 2h"):
            seconds_of(text)


@pytest.mark.parametrize(
    "metric, mode",
    [("accuracy", "max"), ("loss", "min"), ("calibration_error", "min"), ("brier", "min"), ("mcc", "max"), ("log_loss", "min")],
)
def test_which_way_is_good(metric, mode):
    assert definition.mode_of(metric, ("accuracy", "max")) == mode
    assert definition.mode_of("anything", ("anything", "min")) == "min"


def study(**changes) -> Definition:
    factors, baseline = factors_of(tree.edit(MINI, ["run.epochs=3"]), ["averaging=none,ema"])
    words = {
        "recipe": "digits-mini",
        "baseline": baseline,
        "factors": tuple(factors),
        "metric": "accuracy",
        "budget": 60.0,
        "note": "a claim",
    }
    return Definition(**(words | changes))


def test_study_toml_reads_back_as_it_was(tmp_path):
    for each in (study(), study(paired=False, matters=0.01, until_decided=True, budget=None, design="grid", seeds=(3, 5))):
        path = tmp_path / "study.toml"
        path.write_text(to_text(each))
        assert read(path) == each


@pytest.mark.parametrize(
    "break_it, words",
    [
        (lambda text: text.replace("version = 1", "version = 9"), "another version"),
        (lambda text: text.replace('metric = "accuracy"', ""), "not whole"),
        (lambda text: text.replace('mode = "max"', 'mode = "up"'), "not what a study has there"),
        (lambda text: text.replace("[experiment.run]", "[experiment.run]\nnonsense = 1"), "nonsense"),
        (lambda text: text[: len(text) // 2] + '"', "not TOML"),
        (lambda text: "a = 1\n", "not the study.toml"),
    ],
)
def test_a_broken_study_toml_is_one_line(tmp_path, break_it, words):
    path = tmp_path / "study.toml"
    path.write_text(break_it(to_text(study())))
    with pytest.raises(UserError, match=words) as caught:
        read(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"metric": "loss", "mode": "min"}, "metric: accuracy there, loss here"),
        ({"baseline": recipes.digits_mini()}, "run.epochs: 3 there, 20 here"),
        ({"factors": tuple(factors_of(MINI, ["averaging=none,swa"])[0])}, "it varies .*ema there, .*swa here"),
        ({"design": "grid"}, "design: one there, grid here"),
        ({"seeds": (0, 1)}, "seeds may be added, not left out"),
        ({"paired": False}, "paired"),
        ({"recipe": "digits"}, "recipe: digits-mini there, digits here"),
    ],
)
def test_another_study_is_not_gone_on_with(tmp_path, changes, words):
    with pytest.raises(UserError, match=words):
        definition.require_same(study(), study(**changes), tmp_path)


def test_seeds_may_be_added_but_not_where_a_rule_was_made_for_them(tmp_path):
    assert definition.require_same(study(), study(seeds=(0, 1, 2, 3, 4, 5)), tmp_path).seeds == (0, 1, 2, 3, 4, 5)
    with pytest.raises(UserError, match="the rule that stops it was made for those"):
        definition.require_same(study(until_decided=True), study(until_decided=True, seeds=tuple(range(9))), tmp_path)


def test_a_grid_varies_a_part_and_a_setting_of_it() -> None:
    """Every optimizer at every rate: a part comes without its settings, so each cell that replaces it says them again."""
    factors, baseline = factors_of(MINI, ["optimizer.lr=1e-3,1e-2", "optimizer=adamw,sgd"], nested=True)
    lr, kind = (tree.get(baseline, path) for path in ("method.optimizer.lr", "method.optimizer"))
    assert lr == 1e-3 and tree.kind_of(kind) == "adamw"
    cells = {}
    for variant in variants_of(factors, "grid"):
        made = tree.edit(baseline, variant.edits)
        cells[variant.levels] = (made.method.optimizer.lr, tree.kind_of(made.method.optimizer))
    assert cells == {(rate, part): (float(rate), part) for rate in ("1e-3", "1e-2") for part in ("adamw", "sgd")}
    with pytest.raises(UserError, match="by --grid"):
        factors_of(MINI, ["optimizer=adamw,sgd", "optimizer.lr=1e-3,1e-2"])


def test_every_variant_is_first_in_turn() -> None:
    found = [rotated(variants_of(factors_of(MINI, ["averaging=none,ema,swa"])[0], "one"), number) for number in range(4)]
    assert [each[0].name for each in found] == ["baseline", "averaging=ema", "averaging=swa", "baseline"]
    assert all(len({variant.name for variant in each}) == 3 for each in found)
