"""Three splits of labeled samples: those that are given, and the missing ones held out of the training samples, class by class.

Shapes: M samples of all splits together, N of one.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from torchstone.core.errors import UserError, clean, warn
from torchstone.data.splits import hold_out, hold_out_groups

SPLITS = ("train", "validation", "test")
NAMED = 10
"""Classes that a message lists by name."""


def check_shares(part: Any) -> None:
    """Raises ValueError for shares to hold out that leave nothing."""
    name = type(part).__name__
    shares = {field: getattr(part, field) for field in SPLITS[1:] if hasattr(part, field)}
    for field, share in shares.items():
        if not 0 < share < 1:
            raise ValueError(f"{name}.{field} must be between 0 and 1, got {share}")
    if sum(shares.values()) >= 1:
        raise ValueError(f"{name}.{' and .'.join(shares)} must leave something to train on, got {' and '.join(map(str, shares.values()))}")


def completed(
    where: str,
    given: Mapping[str, np.ndarray],
    labels: np.ndarray,
    classes: Sequence[str],
    shares: Mapping[str, float],
    names: Mapping[str, str],
    groups: np.ndarray | None = None,
) -> tuple[dict[str, np.ndarray], str]:
    """Rows (int64 [N]) of "train", "validation" and "test", and the rule in words.

    given: the rows of the splits that exist, "train" among them; `names` says what they are called. labels: int [M].
    groups: int [M] or None; samples of one group are held out together.
    Raises UserError where a class has too few training samples to be in every split.
    """
    rows = dict(given)
    total = len(rows["train"])
    missing = [name for name in ("test", "validation") if not len(rows.get(name, ()))]
    _require_enough(where, np.bincount(labels[rows["train"]], minlength=len(classes)), classes, missing)
    words = [f"{name} as in {names[name]} ({len(rows[name])})" for name in SPLITS[1:] if name not in missing]
    for name in missing:
        train = rows["train"]
        held = max(1, round(shares[name] * total))
        if groups is not None:
            if len(np.unique(groups[train])) < 2:
                raise UserError(f"{where}: only one group is left to hold out {name} of; add groups, or give {name} of your own")
            cut, how = hold_out_groups(groups[train], held, labels[train]), "in whole groups"
        else:
            cut = hold_out(len(train), held, labels[train])
            how = "stratified by class" if cut.stratified else "at random, as there are too few for each class"
        rows[name], rows["train"] = train[cut.held], train[cut.kept]
        words.append(f"{name} is {len(cut.held)} of {total}, held out {how}, the same for every seed")
    _require_every_class(where, np.bincount(labels[rows["train"]], minlength=len(classes)), classes)
    return {name: rows[name] for name in SPLITS}, "; ".join(words)


def _require_enough(where: str, counts: np.ndarray, classes: Sequence[str], missing: Sequence[str]) -> None:
    """A class is held out of only where it keeps a sample for training and gives one to each split that is missing."""
    least = 1 + len(missing)
    rare = [f"{shown(name)} ({count})" for name, count in zip(classes, counts.tolist(), strict=True) if count < least]
    if missing and rare:
        raise UserError(
            f"{where}: too few pictures to hold out {' and '.join(missing)} of {_first(rare)}; each class needs {least}: "
            f"add pictures, remove the class, or give {' and '.join(missing)} of your own"
        )
    single = [shown(name) for name, count in zip(classes, counts.tolist(), strict=True) if count == 1]
    if single:
        warn(f"{where}: one picture only to train on of {_first(single)}")


def _require_every_class(where: str, counts: np.ndarray, classes: Sequence[str]) -> None:
    lost = [shown(name) for name, count in zip(classes, counts.tolist(), strict=True) if count == 0]
    if lost:
        raise UserError(
            f"{where}: holding out left no picture to train on of {_first(lost)}; add pictures, or give validation and test of your own"
        )


def shown(name: str) -> str:
    """A name from somebody's disk, safe within one line."""
    return " ".join(clean(name).split())


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
