"""The type checker that jaxtyping's import hook puts on every function of torchstone during tests.

Named as a string in `conftest.py` ("shape_check.check"): the hook imports it inside the module it instruments. `install` takes most
functions away from jaxtyping's own wrapper, which binds every call's arguments and checks them twice; that took half of the suite's time.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any, ForwardRef, Self, get_args, runtime_checkable

import jaxtyping
from beartype import BeartypeConf, beartype
from jaxtyping import AbstractArray, TypeCheckError

# is_pep484_tower: an int is a float, as in TOML and in everyday Python.
_beartype: Any = beartype(conf=BeartypeConf(is_pep484_tower=True, violation_type=TypeCheckError))
_jaxtyped: Any = jaxtyping.jaxtyped


def install() -> None:
    """Puts `jaxtyped` in the place of jaxtyping's, before the hook decorates anything."""
    jaxtyping.jaxtyped = jaxtyped


def jaxtyped(function: Any = None, **options: Any) -> Any:
    """As jaxtyping's for what is not plain. A plain function is checked once a call; axes have their sizes within it where it names any."""
    if function is None:
        return functools.partial(jaxtyped, **options)
    if dataclasses.is_dataclass(function):
        function.__init__ = jaxtyped(function.__init__, **options)
        return function
    if not inspect.isfunction(function) or _needs_jaxtyping(function):
        return _jaxtyped(function, **options)
    checked = check(function)
    if not any(_is_shape(word) for word in _all_words(function)):
        return checked

    @functools.wraps(function)
    def shaped(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        with _jaxtyped("context"):
            return checked(*args, **kwargs)

    return shaped


def check(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Checks arguments and result at every call.

    `Self` is let through, as the hook shows methods without their class. A protocol is checked by the names it asks for.
    """
    annotations = getattr(function, "__annotations__", {})
    for name, annotation in annotations.items():
        words = _words(annotation)
        if Self in words:
            annotations[name] = Any
        for word in words:
            if getattr(word, "_is_protocol", False) and not getattr(word, "_is_runtime_protocol", False):
                runtime_checkable(word)
    return _beartype(function, *args, **kwargs)


def _needs_jaxtyping(function: Callable[..., Any]) -> bool:
    """It reads names in annotations, looks at `Self` on a copy, at what a generator yields not at all, and sizes like "{count}"."""
    words = _all_words(function)
    odd = any(isinstance(word, str | ForwardRef) or word is Self or (_is_shape(word) and "{" in word.dim_str) for word in words)
    return odd or inspect.isgeneratorfunction(function) or inspect.iscoroutinefunction(function)


def _is_shape(word: Any) -> bool:
    return isinstance(word, type) and issubclass(word, AbstractArray)


def _all_words(function: Callable[..., Any]) -> list[Any]:
    return [word for annotation in function.__annotations__.values() for word in _words(annotation)]


def _words(annotation: Any) -> list[Any]:
    """The annotation and everything inside its brackets."""
    return [annotation, *(word for argument in get_args(annotation) for word in _words(argument))]
