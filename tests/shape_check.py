"""The type checker that jaxtyping's import hook puts on every function of torchstone during tests.

Named as a string in `conftest.py` ("shape_check.check"): the hook imports it inside the module it instruments.
"""

from collections.abc import Callable
from typing import Any, Self, get_args, runtime_checkable

from beartype import BeartypeConf, beartype

# is_pep484_tower: an int is a float, as in TOML and in everyday Python.
_beartype: Any = beartype(conf=BeartypeConf(is_pep484_tower=True))


def _words(annotation: Any) -> list[Any]:
    """The annotation and everything inside its brackets."""
    return [annotation, *(word for argument in get_args(annotation) for word in _words(argument))]


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
