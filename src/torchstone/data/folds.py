"""Folds: the samples that train and validate, divided into parts that take turns at validating, for cross-validation.

Stone, "Cross-Validatory Choice and Assessment of Statistical Predictions", 1974, https://doi.org/10.1111/j.2517-6161.1974.tb00994.x;
Kohavi, "A Study of Cross-Validation and Bootstrap for Accuracy Estimation and Model Selection", 1995. The splitters are scikit-learn's.
Shapes: N samples, C classes.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from torchstone.core.errors import UserError, clean, warn

Scheme = Literal["stratified", "plain", "grouped", "temporal"]
By = Literal["auto", "stratified", "plain", "grouped", "temporal"]


@dataclass(frozen=True, slots=True)
class Pool:
    """What is known of the samples to divide, in their order: those of train, then those of validation."""

    count: int
    labels: np.ndarray | None = None
    """Class of each, int [N]; None: the targets are no classes."""
    classes: Sequence[str] = ()
    groups: np.ndarray | None = None
    """Group of each, int [N]: samples of one group belong together."""
    ordered: bool = False
    """Their order is that of time."""


def scheme_for(by: By, pool: Pool) -> Scheme:
    """auto: grouped where there are groups, temporal where there is an order in time, stratified where there are classes, else plain."""
    if by != "auto":
        return by
    if pool.groups is not None:
        return "grouped"
    if pool.ordered:
        return "temporal"
    return "stratified" if pool.labels is not None else "plain"


def fold_rows(by: By, folds: int, pool: Pool, seed: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    """(rows to train on, rows to validate on), both int64 and in order, of each fold.

    Every row validates once, but in temporal folds: there fold k trains on the first k of folds + 1 equal stretches and validates on the
    next. Raises UserError where the samples cannot be divided so.
    """
    scheme = scheme_for(by, pool)
    require_enough(scheme, folds, pool)
    labels = np.zeros(pool.count, dtype=np.int64) if pool.labels is None else pool.labels
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes with fewer samples than folds: said below, by name
        parts = splitter(scheme, folds, pool, seed).split(np.zeros(pool.count), labels, pool.groups)
        rows = [(np.sort(train).astype(np.int64), np.sort(held).astype(np.int64)) for train, held in parts]
    if any(not len(train) or not len(held) for train, held in rows):
        raise UserError(f"{folds} {scheme} folds leave one of them empty: use fewer folds")
    tell_missing(rows, pool)
    return rows


def splitter(scheme: Scheme, folds: int, pool: Pool, seed: int) -> Any:
    """scikit-learn's splitter. Grouped folds keep the shares of the classes as near as whole groups allow."""
    from sklearn.model_selection import GroupKFold, KFold, StratifiedGroupKFold, StratifiedKFold, TimeSeriesSplit

    match scheme:
        case "temporal":
            return TimeSeriesSplit(n_splits=folds)
        case "plain":
            return KFold(n_splits=folds, shuffle=True, random_state=seed)
        case "stratified":
            return StratifiedKFold(n_splits=folds, shuffle=True, random_state=seed)
        case _ if pool.labels is not None and np.bincount(pool.labels).max() >= folds:
            return StratifiedGroupKFold(n_splits=folds, shuffle=True, random_state=seed)
        case _:
            return GroupKFold(n_splits=folds, shuffle=True, random_state=seed)


def require_enough(scheme: Scheme, folds: int, pool: Pool) -> None:
    """Raises UserError where the scheme has not what it needs: samples, classes, groups, an order."""
    if folds < 2:
        raise UserError(f"at least 2 folds are needed, got {folds}")
    least = folds + 1 if scheme == "temporal" else folds
    if pool.count < least:
        raise UserError(f"{folds} folds need {least} samples or more; {pool.count} train and validate: use fewer folds")
    if scheme == "stratified":
        if pool.labels is None:
            raise UserError("stratified folds need classes, and these targets are numbers: fold by plain instead")
        counts = np.bincount(pool.labels, minlength=len(pool.classes))
        present = np.where(counts > 0, counts, pool.count)
        rarest = int(present.argmin())
        if present[rarest] < folds:
            raise UserError(
                f"{folds} stratified folds need {folds} samples of every class; class {_name(pool, rarest)} has {present[rarest]} "
                "to train and validate: use fewer folds, or fold by plain"
            )
    if scheme == "grouped":
        if pool.groups is None:
            raise UserError(
                "grouped folds need to know which samples belong together, and these data say nothing of it: "
                "an array groups in a .npz file does, and data.groups of a folder of pictures"
            )
        found = len(np.unique(pool.groups))
        if found < folds:
            raise UserError(f"{folds} grouped folds need {folds} groups or more; {found} train and validate: use fewer folds")
    if scheme == "temporal" and not pool.ordered:
        raise UserError(
            "temporal folds need samples in the order of time, the test the latest of them: of a .npz file data.split=temporal says so"
        )


def tell_missing(rows: Sequence[tuple[np.ndarray, np.ndarray]], pool: Pool) -> None:
    """Warns of folds that train without some class, which they then cannot learn."""
    if pool.labels is None:
        return
    present = set(np.unique(pool.labels).tolist())
    for number, (train, _) in enumerate(rows, 1):
        missing = sorted(present - set(np.unique(pool.labels[train]).tolist()))
        if missing:
            named = ", ".join(_name(pool, label) for label in missing[:10])
            warn(f"fold {number} of {len(rows)} trains without a sample of class {named}")


def _name(pool: Pool, label: int) -> str:
    return " ".join(clean(pool.classes[label]).split()) if label < len(pool.classes) else str(label)
