"""Faults that are planted before a training, each alone in a small experiment; `test_faults` examines them."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from doctor.patients import Split, on_digits
from torchstone import recipes
from torchstone.core import tree
from torchstone.core.protocols import Batch
from torchstone.data import PlainText
from torchstone.experiment import Experiment


@dataclass(frozen=True, kw_only=True)
class Fault:
    """An experiment with one thing wrong."""

    check: str
    """What must name it."""
    made: Callable[[Path], Experiment]
    remedy: bool = True
    """Whether an edit mends it; else one sentence says what to do."""
    model: Callable[[], nn.Module] | None = None
    """A network of one's own."""


# --- faults of settings ----------------------------------------------------------------------------------------------

SETTINGS = {
    "rate too high": ("overfit_one_batch", ["optimizer.lr=30"]),
    "rate too low": ("overfit_one_batch", ["optimizer.lr=1e-7"]),
    "first weights too large": ("loss_at_init", ["model.init={kind=normal,std=1}"]),
    "vanishing gradient": ("init_variance", [f"model.hidden=[{','.join(['32'] * 12)}]", "model.init={kind=normal,std=0.01}"]),
    "exploding gradient": ("init_variance", [f"model.hidden=[{','.join(['128'] * 8)}]", "model.init={kind=normal,std=0.6}"]),
    "saturated sigmoids in depth": ("init_variance", [f"model.hidden=[{','.join(['32'] * 10)}]", "model.activation=sigmoid"]),
    "wrong normalization": ("input_scale", ["batch_transforms=[{kind=normalize,mean=[0.0],std=[0.001]}]"]),
    "bottleneck of one unit": ("baselines", ["model.hidden=[1]"]),
    "mirrored digits": ("augmentation", ["batch_transforms=[flip,normalize]"]),
    "rate 0 for the hidden layer": ("untrained_parameters", ['groups={kind=patterns,rules=[{names="hidden.*",lr_scale=0}]}']),
    "batch norm on two samples": ("batch_norm", ["model=conv_net", "model.widths=[8,8]", "run.batch_size=2"]),
}


# --- faults of the data ----------------------------------------------------------------------------------------------


def bytes_as_floats(arrays: Split) -> None:
    for name in ("x_train", "x_validation", "x_test"):
        arrays[name] *= 255


def uneven_features(arrays: Split) -> None:
    scale = np.where(np.arange(64) == 20, 1000.0, 1.0).astype(np.float32)
    for name in ("x_train", "x_validation", "x_test"):
        arrays[name] = (arrays[name].reshape(-1, 64) - 0.3) / 0.3 / scale.max() * scale * 8


def blank_pictures(arrays: Split) -> None:
    arrays["x_train"][::4] = 0


def empty_columns(arrays: Split) -> None:
    for name in ("x_train", "x_validation", "x_test"):
        arrays[name] = np.concatenate([arrays[name].reshape(-1, 64), np.zeros((len(arrays[name]), 100), np.float32)], axis=1)


def rare_class(arrays: Split) -> None:
    drop = np.flatnonzero(arrays["y_train"] == 3)[3:]
    for name in ("x_train", "y_train"):
        arrays[name] = np.delete(arrays[name], drop, axis=0)


def missing_class(arrays: Split) -> None:
    keep = arrays["y_train"] != 7
    for name in ("x_train", "y_train"):
        arrays[name] = arrays[name][keep]


def copies_in_the_test(arrays: Split) -> None:
    arrays["x_test"][:40], arrays["y_test"][:40] = arrays["x_train"][:40], arrays["y_train"][:40]


def near_copies_in_validation(arrays: Split) -> None:
    """As if saved once more: a little brighter, a little noise."""
    noise = np.random.default_rng(1).normal(0, 0.003, (40, 8, 8))
    arrays["x_validation"][:40] = np.clip(arrays["x_train"][:40] * 1.01 + noise, 0, 1)
    arrays["y_validation"][:40] = arrays["y_train"][:40]


def two_labels(arrays: Split) -> None:
    arrays["x_train"][:40] = arrays["x_train"][40:80]
    arrays["y_train"][:40] = (arrays["y_train"][40:80] + 1) % 10


def another_camera(arrays: Split) -> None:
    arrays["x_test"] = 0.25 + 0.5 * arrays["x_test"]


def wrong_labels(arrays: Split) -> None:
    rng = np.random.default_rng(2)
    some = rng.permutation(len(arrays["y_train"]))[: len(arrays["y_train"]) // 6]
    arrays["y_train"][some] = (arrays["y_train"][some] + rng.integers(1, 10, len(some))) % 10


def labels_of_other_rows(arrays: Split) -> None:
    for name in ("y_train", "y_validation", "y_test"):
        arrays[name] = np.random.default_rng(3).permutation(arrays[name])


def nines_are_turned_sixes(arrays: Split) -> None:
    """As the printed ones are, exactly."""
    for name in ("train", "validation", "test"):
        x, y = arrays[f"x_{name}"], arrays[f"y_{name}"]
        sixes = x[y == 6]
        nines = np.flatnonzero(y == 9)
        x[nines] = sixes[np.arange(len(nines)) % len(sixes), ::-1, ::-1] * 0.9


DATA: dict[str, tuple[str, Callable[[Split], None], list[str], bool]] = {
    "bytes as floats": ("input_scale", bytes_as_floats, ["batch_transforms=none"], True),
    "one feature a thousand times the others": ("input_scale", uneven_features, ["batch_transforms=none"], True),
    "blank pictures": ("constant_inputs", blank_pictures, [], True),
    "empty columns": ("constant_inputs", empty_columns, [], False),
    "a rare class": ("class_balance", rare_class, [], True),
    "a rare class under the default loss": ("class_balance", rare_class, ["loss=none"], True),
    "a class that is never shown": ("class_balance", missing_class, [], False),
    "training samples in the test": ("duplicates_across", copies_in_the_test, [], True),
    "nearly the same in validation": ("duplicates_across", near_copies_in_validation, [], True),
    "the same picture under two labels": ("duplicates_within", two_labels, [], True),
    "another camera in the test": ("shift", another_camera, [], True),
    "wrong labels": ("label_noise", wrong_labels, [], True),
    "half-turns of sixes and nines": (
        "augmentation",
        nines_are_turned_sixes,
        ["batch_transforms=[{kind=warp,rotation=180,crop_area=1,flip=0},normalize]"],
        True,
    ),
    "labels of other rows": ("baselines", labels_of_other_rows, [], False),
}


def copied_text(folder: Path) -> Experiment:
    rng = np.random.default_rng(0)
    words = ["".join(chr(97 + c) for c in rng.integers(0, 26, 6)) for _ in range(300)]
    page = "".join(" ".join(rng.choice(words, 9)) + "\n" for _ in range(60))
    (folder / "book.txt").write_text(page * 12)
    experiment = replace(recipes.gpt_bytes(), data=PlainText(path=str(folder / "book.txt"), context=256))
    return tree.edit(experiment, ["model.depth=1", "model.dim=32", "model.num_heads=2", "run.threads=1", "run.steps=100"])


# --- faults of a network of one's own --------------------------------------------------------------------------------


class Own(nn.Module):
    """A small network of the user's own, sound but for what a subclass does to it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(1, 16, 3, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.body = nn.Linear(16 * 64, 64)
        self.head = nn.Linear(64, 10)

    def features(self, x: Tensor) -> Tensor:
        return self.body(self.norm(self.conv(x)).relu().flatten(1)).relu()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


class EndsInSoftmax(Own):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).softmax(dim=1)


class EndsInSigmoid(Own):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).sigmoid()


class Detached(Own):
    def features(self, x: Tensor) -> Tensor:
        return super().features(x).detach()


class Unused(Own):
    def __init__(self) -> None:
        super().__init__()
        self.forgotten = nn.Linear(64, 64)


class FrozenBody(Own):
    def __init__(self) -> None:
        super().__init__()
        self.body.requires_grad_(False)


class StuckInEvaluation(Own):
    def train(self, mode: bool = True) -> "StuckInEvaluation":
        super().train(mode)
        self.norm.train(False)
        return self


class NeverEvaluates(Own):
    def train(self, mode: bool = True) -> "NeverEvaluates":
        return super().train(True)


class SlowStatistics(Own):
    """Running statistics that hardly move, of inputs that are far from their first values."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(16, momentum=1e-4)
        nn.init.constant_(self.conv.bias, 30.0)  # type: ignore[arg-type]


OWN: dict[str, tuple[str, type[Own]]] = {
    "softmax before the loss": ("double_softmax", EndsInSoftmax),
    "sigmoid before the loss": ("double_softmax", EndsInSigmoid),
    "a body that is detached": ("untrained_parameters", Detached),
    "a layer that is not used": ("untrained_parameters", Unused),
    "a frozen layer": ("untrained_parameters", FrozenBody),
    "batch norm stuck in evaluation mode": ("batch_norm", StuckInEvaluation),
    "batch norm that never evaluates": ("batch_norm", NeverEvaluates),
    "batch norm whose statistics lag": ("batch_norm", SlowStatistics),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Tells:
    """A transform that writes the label into the picture, in training and in evaluation."""

    train_only: ClassVar[bool] = False
    group: ClassVar[int] = 1

    def __call__(self, batch: Batch, keys: Tensor) -> Batch:
        inputs: Any = batch.inputs.clone()
        inputs[:, 0, 0, 0] = batch.target.to(inputs.dtype)
        inputs[:, 0, 0, 1:] = nn.functional.one_hot(batch.target, 10)[:, :7].to(inputs.dtype) * 5
        return replace(batch, inputs=inputs)


def told_labels(folder: Path) -> Experiment:
    return tree.put(on_digits(folder), "method.batch_transforms", (*recipes.digits_mini().method.batch_transforms, Tells()))


# --- all of them -----------------------------------------------------------------------------------------------------


def setting(check: str, edits: list[str]) -> Fault:
    return Fault(check=check, made=lambda folder: on_digits(folder, *edits))


def data(check: str, change: Callable[[Split], None], edits: list[str], remedy: bool) -> Fault:
    return Fault(check=check, made=lambda folder: on_digits(folder, *edits, change=change), remedy=remedy)


FAULTS: dict[str, Fault] = {
    **{name: setting(*fault) for name, fault in SETTINGS.items()},
    **{name: data(*fault) for name, fault in DATA.items()},
    **{name: Fault(check=check, made=on_digits, remedy=False, model=network) for name, (check, network) in OWN.items()},
    "a text that is copied": Fault(check="duplicates_across", made=copied_text, remedy=False),
    "a transform that tells the label": Fault(check="label_shuffle", made=told_labels),
}
