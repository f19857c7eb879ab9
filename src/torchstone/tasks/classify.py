"""Classification: one class an example.

Shapes: N examples, C classes, K channels, H x W pixels.
"""

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped, UInt8
from torch import Tensor, nn

from torchstone.core.errors import UserError
from torchstone.core.protocols import Facts, ImageShape, PyTree, TokenShape
from torchstone.losses import CrossEntropy
from torchstone.metrics import (
    Accuracy,
    AtThreshold,
    AveragePrecision,
    CalibrationError,
    ClassReport,
    Confusion,
    MeanLoss,
    Metric,
    RocAuc,
    ThresholdRule,
    TopK,
    choose,
    fit_temperature,
)
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
    gives: ClassVar[str] = "classes"
    """The layout of outputs and targets (`losses.LAYOUTS`), which the loss must take."""

    views: Views = "one"
    """How evaluation and prediction look at a picture: flip averages it with its mirror image (2 forwards), flip_shift also moves both
    by a pixel along the diagonal (6 forwards). Only where a mirrored picture means the same."""
    calibration: Literal["none", "temperature"] = "none"
    """temperature: fits `temperature` on the validation split when training is over, so that of what is said to be 90 % sure nine in ten
    are right; no label changes (Guo et al. 2017, https://arxiv.org/abs/1706.04599)."""
    temperature: float = 1.0
    """Divides the logits in evaluation and prediction, not in training; 1: as they are."""
    threshold_by: ThresholdRule | None = None
    """With two classes: how `threshold` is chosen on the validation split when training is over."""
    threshold: float | None = None
    """With two classes: the second is said where its probability is at least this; none: the likelier one. accuracy and confusion are of
    the likelier one all the same, threshold_precision and its like of this."""
    also: tuple[Metric, ...] = ()
    """Metrics measured beside the usual ones: task.also=[roc_auc,matthews]."""

    def __post_init__(self) -> None:
        if not 0 < self.temperature < float("inf"):
            raise ValueError(f"Classify.temperature must be > 0 and finite, got {self.temperature}")
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise ValueError(f"Classify.threshold must be in [0, 1], got {self.threshold}")

    def accepts(self, facts: Facts) -> None:
        """Raises UserError if the data do not hold one of several classes an example."""
        if isinstance(facts.inputs, TokenShape):
            raise UserError("task=classify needs images or vectors with classes; these data are text: task=language fits them")
        if len(facts.classes) < 2:
            found = f"only one: {facts.classes[0]}" if facts.classes else "none"
            raise UserError(f"task=classify needs data with at least two classes; these have {found}")
        if self.views != "one" and not isinstance(facts.inputs, ImageShape):
            raise UserError(f"task.views={self.views} mirrors pictures; the inputs of these data are vectors: task.views=one fits them")
        if (self.threshold_by is not None or self.threshold is not None) and len(facts.classes) != 2:
            name = "threshold_by" if self.threshold is None else "threshold"
            raise UserError(
                f"task.{name} cuts the probability of the second of two classes; these data have {len(facts.classes)}: none fits"
            )

    def outputs(self, facts: Facts) -> int:
        return len(facts.classes)

    def default_loss(self, facts: Facts) -> CrossEntropy:
        return CrossEntropy()

    def metrics(self, facts: Facts) -> tuple[Metric, ...]:
        top = (TopK(k=TOP),) if len(facts.classes) > TOP else ()
        two = (RocAuc(), AveragePrecision()) if len(facts.classes) == 2 else ()
        cut = () if self.threshold is None else (AtThreshold(threshold=self.threshold),)
        usual = (MeanLoss(), Accuracy(), *top, ClassReport(classes=facts.classes), CalibrationError(), *two, *cut, Confusion())
        return *usual, *(metric for metric in self.also if metric not in usual)

    def forward(self, model: nn.Module, inputs: PyTree) -> Float[Tensor, "N C"]:
        """The outputs by which the model is judged and used: those of `views`, over `temperature`. Training reads model(inputs)."""
        outputs = averaged(model, inputs, self.views)
        if self.temperature == 1:
            return outputs
        return (outputs.float() if outputs.dtype.itemsize < 4 else outputs) / self.temperature

    @property
    def settles(self) -> bool:
        """Whether something is fitted on the validation split when training is over."""
        return self.calibration != "none" or self.threshold_by is not None

    def settled(self, outputs: Float[Tensor, "N C"], target: Int[Tensor, " N"]) -> "Classify":
        """The task with the numbers that these outputs of `forward` and their classes, of the validation split, ask for.

        What they do not determine (one class alone, outputs that are not finite) stays as it is.
        """
        factor = fit_temperature(outputs, target) if self.calibration == "temperature" else 1.0
        threshold = self.threshold
        if self.threshold_by is not None:
            probability = (outputs.double() / factor).softmax(dim=1)[:, 1].numpy()
            chosen = choose(self.threshold_by, probability, (target == 1).numpy())
            threshold = threshold if chosen is None else chosen
        return replace(self, temperature=self.temperature * factor, threshold=threshold)

    @property
    def fitted(self) -> dict[str, float | None]:
        """What `settled` has set."""
        both = {"temperature": self.temperature, "threshold": self.threshold}
        asked = {"temperature": self.calibration == "temperature", "threshold": self.threshold_by is not None}
        return {name: value for name, value in both.items() if asked[name]}

    def labels(self, outputs: Float[Tensor, "N C"]) -> Int[Tensor, " N"]:
        """The class that is said: the likeliest (of equals the first), or that of `threshold`."""
        if self.threshold is None:
            return outputs.argmax(dim=-1)
        return (outputs.double().softmax(dim=-1)[:, 1] >= self.threshold).long()

    def decode(self, outputs: Float[Tensor, "N C"], facts: Facts) -> list[dict[str, Any]]:
        """One {"label", "probabilities": {class: p}} an example."""
        rows = outputs.detach().double().softmax(dim=-1).tolist()
        said = self.labels(outputs.detach()).tolist() if self.threshold is not None else [row.index(max(row)) for row in rows]
        return [
            {"label": facts.classes[label], "probabilities": dict(zip(facts.classes, row, strict=True))}
            for label, row in zip(said, rows, strict=True)
        ]

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
            image[[0, -1], :] = image[:, [0, -1]] = RIGHT if int(self.labels(output[None])) == int(truth) else WRONG
        factor = -(-PICTURE_SIDE // min(image.shape[:2]))
        return image.repeat(factor, axis=0).repeat(factor, axis=1)


def _as_bytes(image: Shaped[Tensor, "K H W"]) -> UInt8[np.ndarray, "H W 3"]:
    if image.dtype == torch.uint8:
        return np.broadcast_to(image.cpu().numpy().transpose(1, 2, 0), (*image.shape[1:], 3)).copy()
    pixels = image.detach().cpu().double().numpy().transpose(1, 2, 0)
    low, high = min(pixels.min(), 0.0), max(pixels.max(), 1.0)
    levels = np.rint((pixels - low) / (high - low) * 255).astype(np.uint8)
    return np.broadcast_to(levels, (*levels.shape[:2], 3)).copy()
