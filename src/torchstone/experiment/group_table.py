"""What the groups of a method make of a model's parameters: listed before a run and in its environment.json."""

import copy
from typing import Any

from torchstone.core.errors import plural
from torchstone.experiment.preparing import Prepared
from torchstone.optim.groups import table


def group_table(prepared: Prepared) -> list[dict[str, Any]]:
    """A row a group: tensors, parameters, rate and decay at the start of the run, names. Empty where all parameters share one rate."""
    method, model = prepared.experiment.method, prepared.model
    if method.groups is None:
        return []
    if method.model_transforms:
        model = copy.deepcopy(model)
        for transform in method.model_transforms:
            model = transform(model)
    optimizer = getattr(method.optimizer, "inner", method.optimizer)
    return table(model, method.groups(model), method.optimizer.lr, getattr(optimizer, "weight_decay", None))


def group_lines(prepared: Prepared) -> list[str]:
    """The same in one line of words."""
    rows = group_table(prepared)
    return ["groups: " + "; ".join(map(in_words, rows))] if rows else []


def in_words(row: dict[str, Any]) -> str:
    decay = "" if row["decay"] is None else f", decay {row['decay']:g}"
    return (
        f"{plural(row['tensors'], 'tensor')} ({row['parameters']:,} parameter{'s' * (row['parameters'] != 1)}) at rate {row['lr']:g}{decay}"
    )
