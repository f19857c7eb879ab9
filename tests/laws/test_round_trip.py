"""Law: tree -> TOML -> tree and tree -> JSON -> tree are equal; what it cannot hold is refused by name; a part reads as one."""

import dataclasses
import importlib
import pkgutil
import tomllib
import typing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tomli_w

import torchstone
from laws import cases
from laws.cases import PARTS, SEATS, Part, put_in
from torchstone import data, optim, recipes
from torchstone.core import tree
from torchstone.core.errors import UserError
from torchstone.experiment import Experiment
from torchstone.recipes import RECIPES
from torchstone.train.method import Method
from torchstone.train.settings import Run

BASE = recipes.digits()


def holding(part: Part, value: Any) -> tuple[Any, str]:
    """(a tree that holds the value, its path there). Metrics have no seat: each is a tree of its own."""
    if part.seat in SEATS:
        return replace(BASE, method=put_in(Method(), part, value)), f"method.{part.seat}{'.0' if part.many else ''}"
    if part.seat == "trackers":
        return replace(BASE, run=replace(BASE.run, trackers=(value,))), "run.trackers.0"
    if part.seat == "metric":
        return value, ""
    return replace(BASE, **{part.seat: value}), part.seat


def changed(value: Any) -> Any:
    """The value with every number moved, where the part allows it: defaults alone would hide a field that is not written."""
    for name, facts in tree.fields_of(type(value)).items():
        now = getattr(value, name)
        for other in _others(facts.annotation, now):
            try:
                value = replace(value, **{name: other})
                break
            except ValueError:
                continue
    return value


def _others(annotation: Any, now: Any) -> list[Any]:
    if isinstance(now, bool):
        return [not now]
    if isinstance(now, float):
        return [0.1 + 0.2, 1.7, now / 3]
    if isinstance(now, int):
        return [now + 1, now * 2]
    if typing.get_origin(annotation) is typing.Literal:
        return [word for word in typing.get_args(annotation) if word != now]
    if isinstance(now, tuple) and now and isinstance(now[0], int | float):
        return [tuple(item / 2 if isinstance(item, float) else item + 1 for item in now)]
    return []


def table(document: dict[str, Any], path: str) -> Any:
    node: Any = document
    for word in path.split(".") if path else []:
        node = node[int(word)] if isinstance(node, list) else node[word]
    return node


@pytest.mark.parametrize("name", RECIPES)
def test_recipes(name: str) -> None:
    made = RECIPES[name]()
    assert tree.from_toml(Experiment, tree.to_toml(made), "t") == made
    assert tree.from_json(Experiment, tree.to_json(made)) == made
    assert tree.decode(Experiment, tree.encode(made)) == made
    assert tree.to_toml(tree.from_toml(Experiment, tree.to_toml(made), "t")) == tree.to_toml(made)
    assert tree.digest(made) == tree.digest(tree.from_toml(Experiment, tree.to_toml(made), "t"))
    for path in tree.paths(made):
        value = tree.get(made, path)
        if not tree.is_part(value) and not isinstance(value, tuple):
            assert tree.put(made, path, value) == made, path


@pytest.mark.parametrize("settings", ["default", "changed", "neutral"])
@pytest.mark.parametrize("part", PARTS, ids=str)
def test_every_part(part: Part, settings: str, tmp_path: Path) -> None:
    value = part.make(tmp_path)
    if settings == "changed":
        value = changed(value)
    if settings == "neutral":
        if getattr(part.cls, "neutral", None) is None:
            pytest.skip("has no neutral value")
        value = part.cls.neutral
    made, path = holding(part, value)
    for again in (tree.from_toml(type(made), tree.to_toml(made), "t"), tree.from_json(type(made), tree.to_json(made))):
        assert again == made
        assert type(tree.get(again, path) if path else again) is part.cls
    if part.seat not in ("metric", "data"):
        other, _ = holding(part, changed(value))
        assert (tree.digest(other) == tree.digest(made)) == (other == made)


@pytest.mark.parametrize("part", PARTS, ids=str)
def test_what_is_wrong_is_named(part: Part, tmp_path: Path) -> None:
    made, path = holding(part, part.make(tmp_path))
    text = tree.to_toml(made)

    def refused(change: Any, *words: str) -> None:
        document = tomllib.loads(text)
        change(table(document, path))
        with pytest.raises(UserError) as caught:
            tree.from_toml(type(made), tomli_w.dumps(document), "file.toml")
        message = str(caught.value)
        for word in ("file.toml", *words):
            assert word in message, (word, message)
        assert "\n" not in message

    fields = tree.fields_of(part.cls)
    refused(lambda t: t.update(no_such_setting=1), "no_such_setting", *(list(fields)[:1]), *([path] if path else []))
    if path:
        refused(lambda t: t.update(kind="no_such_kind"), "no_such_kind", path, part.kind)
    for name in fields:
        refused(lambda t, name=name: t.update({name: {"a": 1}}), f"{path}.{name}" if path else name)
        if not isinstance(getattr(part.make(tmp_path), name), str):
            refused(lambda t, name=name: t.update({name: "no such value"}), f"{path}.{name}" if path else name)


@pytest.mark.parametrize("part", PARTS, ids=str)
def test_is_built_as_a_part(part: Part) -> None:
    cls = part.cls
    settings = cls.__dataclass_params__
    assert settings.frozen and all(field.kw_only for field in dataclasses.fields(cls)), "frozen and keyword-only"
    assert not hasattr(object.__new__(cls), "__dict__"), "slots"
    assert cls.__doc__ and not cls.__doc__.startswith(f"{cls.__name__}("), "its own docstring"
    assert (importlib.import_module(cls.__module__).__doc__ or "").strip(), cls.__module__
    undocumented = [name for name, facts in tree.fields_of(cls).items() if not facts.doc.strip()]
    assert undocumented == []


def test_outer_settings_are_documented() -> None:
    for cls in (Experiment, Method, Run):
        assert [name for name, facts in tree.fields_of(cls).items() if not facts.doc.strip()] == []


def test_every_module_says_what_it_is() -> None:
    silent = []
    for found in pkgutil.walk_packages(torchstone.__path__, "torchstone."):
        if found.name == "torchstone.__main__":
            continue
        if not (importlib.import_module(found.name).__doc__ or "").strip():
            silent.append(found.name)
    assert silent == []


def test_kinds_are_one_to_one() -> None:
    for seat in {part.seat for part in PARTS}:
        kinds = [part.kind for part in cases.parts_of(seat)]
        assert len(kinds) == len(set(kinds)) and kinds


def test_equal_trees_are_found_unequal_when_they_differ() -> None:
    other = replace(BASE, method=replace(BASE.method, optimizer=optim.AdamW(lr=0.1 + 0.2)))
    assert tree.from_toml(Experiment, tree.to_toml(other), "t").method.optimizer.lr == 0.1 + 0.2
    assert tree.from_toml(Experiment, tree.to_toml(other), "t") != BASE
    assert tree.digest(other) != tree.digest(BASE)
    assert tree.from_toml(Experiment, tree.to_toml(replace(BASE, data=data.Digits())), "t") == BASE
