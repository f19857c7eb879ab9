"""Digits: 1797 handwritten digits of 8 x 8 pixels, bundled with scikit-learn, so that a first run needs no download.

Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits" (the test part), UCI, 1998, https://doi.org/10.24432/C50P49.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch

from torchstone.core.protocols import ImageShape, Splits
from torchstone.data.facts import describe
from torchstone.data.splits import TensorSplit, hold_out

HELD_OUT = 270
"""Images in validation and in test each: 15 % of 1797."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Digits:
    """Ten classes, inputs [N, 1, 8, 8] in [0, 1]. The split is stratified and always the same."""

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = "there is no training without data"

    def open(self) -> Splits:
        from sklearn.datasets import load_digits

        pixels, labels = load_digits(return_X_y=True)
        images = torch.from_numpy(pixels).to(torch.float32).div_(16).reshape(-1, 1, 8, 8)
        target = torch.from_numpy(labels).to(torch.int64)
        test = hold_out(len(labels), HELD_OUT, labels)
        validation = hold_out(len(test.kept), HELD_OUT, labels[test.kept])
        positions = {"train": test.kept[validation.kept], "validation": test.kept[validation.held], "test": test.held}
        splits = {name: TensorSplit(images[rows], target[rows]) for name, rows in positions.items()}
        rule = "15 % test and 15 % validation, stratified by class, the same for every seed"
        facts = describe(splits, ImageShape(1, 8, 8), tuple(str(digit) for digit in range(10)), rule)
        return Splits(train=splits["train"], validation=splits["validation"], test=splits["test"], facts=facts)
