"""Classification: one class an example.

Shapes: N examples, C classes, K channels, H x W pixels.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float, Shaped, UInt8
from torch import Tensor, nn

from torchstone.core.errors import UserError
from torchstone.core.protocols import Facts, ImageShape, PyTree, TokenShape
from torchstone.losses import CrossEntropy
from torchstone.metrics import Accuracy, CalibrationError, ClassReport, Confusion, MeanLoss, Metric, TopK
from torchstone.tasks.views import Views, averaged

PICTURE_SIDE = 64
"""Smaller pictures are enlarged by a whole factor to at least this many pixels a side."""
TOP = 5
"""Guesses of the top-k accuracy, which is measured where there are more classes."""
RIGHT, WRONG = (46, 160, 67), (207, 34, 46)


@dataclass(frozen=True, kw_only=True, slots=True)
class Classify:
    """Outputs are C logits, the target a class index or C probabilities."""

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = "a task says what outputs mean; no training is without one"
    selection: ClassVar[tuple[str, Literal["min", "max"]]] = ("accuracy", "max")
    """The metric by which weights and runs are chosen, and whether small or large is good."""

    views: Views = "one"
    """How evaluation and prediction look at a picture: flip averages it with its mirror image (2 forwards), flip_shift also moves both
    by a pixel along the diagonal (6 forwards). Only where a mirrored picture means the same."""

    def accepts(self, facts: Facts) -> None:
        """Raises UserError if the data do not hold one of several classes an example."""
        if isinstance(facts.inputs, TokenShape):
            raise UserError("task=classify needs images or vectors with classes; these data are text: task=language fits them")
        if len(facts.classes) < 2:
            found = f"only one: {facts.classes[0]}" if facts.classes else "none"
            raise UserError(f"task=classify needs data with at least two classes; these have {found}")
        if self.views != "one" and not isinstance(facts.inputs, ImageShape):
            raise UserError(f"task.views={self.views} mirrors pictures; the inputs of these data are vectors: task.views=one fits them")

    def outputs(self, facts: Facts) -> int:
        return len(facts.classes)

    def default_loss(self, facts: Facts) -> CrossEntropy:
        return CrossEntropy()

    def metrics(self, facts: Facts) -> tuple[Metric, ...]:
        top = (TopK(k=TOP),) if len(facts.classes) > TOP else ()
        return MeanLoss(), Accuracy(), *top, ClassReport(classes=facts.classes), CalibrationError(), Confusion()

    def forward(self, model: nn.Module, inputs: PyTree) -> Float[Tensor, "N C"]:
        """The outputs by which the model is judged and used: those of `views`. Training reads model(inputs)."""
        return averaged(model, inputs, self.views)

    def decode(self, outputs: Float[Tensor, "N C"], facts: Facts) -> list[dict[str, Any]]:
        """One {"label", "probabilities": {class: p}} an example."""
        rows = outputs.detach().double().softmax(dim=-1).tolist()
        return [{"label": facts.classes[row.index(max(row))], "probabilities": dict(zip(facts.classes, row, strict=True))} for row in rows]

    def picture(self, sample: tuple[PyTree, PyTree], output: Float[Tensor, " C"] | None = None) -> UInt8[np.ndarray, "H W 3"] | None:
        """The image of a sample (inputs, target), enlarged; framed green where `output` is right and red where it is wrong.

        None if the inputs are no image of 1 or 3 channels. Bytes are shown as they are; values outside [0, 1] (a normalized
        image) are stretched into it.
        """
        inputs, target = sample
        if not isinstance(inputs, Tensor) or inputs.ndim != 3 or inputs.shape[0] not in (1, 3):
            return None
        image = _as_bytes(inputs)
        if output is not None:
            truth = target.argmax() if target.is_floating_point() else target
            image = np.pad(image, ((1, 1), (1, 1), (0, 0)))
            image[[0, -1], :] = image[:, [0, -1]] = RIGHT if int(output.argmax()) == int(truth) else WRONG
        factor = -(-PICTURE_SIDE // min(image.shape[:2]))
        return image.repeat(factor, axis=0).repeat(factor, axis=1)


def _as_bytes(image: Shaped[Tensor, "K H W"]) -> UInt8[np.ndarray, "H W 3"]:
    if image.dtype == torch.uint8:
        return np.broadcast_to(image.cpu().numpy().transpose(1, 2, 0), (*image.shape[1:], 3)).copy()
    pixels = image.detach().cpu().double().numpy().transpose(1, 2, 0)
    low, high = min(pixels.min(), 0.0), max(pixels.max(), 1.0)
    levels = np.rint((pixels - low) / (high - low) * 255).astype(np.uint8)
    return np.broadcast_to(levels, (*levels.shape[:2], 3)).copy()
