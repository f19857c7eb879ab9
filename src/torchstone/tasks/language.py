"""Language modelling: the next byte of a text.

Shapes: N texts, T tokens (bytes), V vocabulary.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from torchstone.core.errors import UserError
from torchstone.core.protocols import Facts, PyTree, TokenShape
from torchstone.losses import CrossEntropy
from torchstone.metrics import Accuracy, BitsPerByte, MeanLoss


@dataclass(frozen=True, kw_only=True, slots=True)
class Language:
    """Outputs are V logits at each token, the target the token that follows it."""

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = "a task says what outputs mean; no training is without one"
    selection: ClassVar[tuple[str, Literal["min", "max"]]] = ("bits_per_byte", "min")
    """The metric by which weights and runs are chosen, and whether small or large is good."""
    gives: ClassVar[str] = "classes"
    """The layout of outputs and targets (`losses.LAYOUTS`), which the loss must take."""

    def accepts(self, facts: Facts) -> None:
        """Raises UserError if the data are no text."""
        if not isinstance(facts.inputs, TokenShape):
            kind = type(facts.inputs).__name__.removesuffix("Shape").lower()
            raise UserError(f"task=language needs text; the inputs of these data are {kind}s: task=classify fits them")

    def outputs(self, facts: Facts) -> int:
        assert isinstance(facts.inputs, TokenShape)
        return facts.inputs.vocabulary

    def default_loss(self, facts: Facts) -> CrossEntropy:
        return CrossEntropy()

    def metrics(self, facts: Facts) -> tuple[MeanLoss, BitsPerByte, Accuracy]:
        return MeanLoss(), BitsPerByte(), Accuracy()

    def forward(self, model: nn.Module, inputs: PyTree) -> Float[Tensor, "N T V"]:
        """The outputs by which the model is judged and used."""
        return model(inputs)

    def decode(self, outputs: Float[Tensor, "N T V"], facts: Facts) -> list[dict[str, Any]]:
        """One {"text"} a text: the likeliest byte after each of its bytes. `continue_text` writes on instead."""
        return [{"text": _text(row)} for row in outputs.argmax(dim=-1).tolist()]

    def picture(self, sample: tuple[PyTree, PyTree], output: Tensor | None = None) -> None:
        """A text has no picture."""

    def continue_text(self, model: nn.Module, prompt: str, *, count: int, temperature: float, top_k: int, key: int) -> str:
        """The `count` bytes that the model writes after `prompt`, as text; bytes that are no UTF-8 become U+FFFD.

        The draws are a function of `key` alone; temperature 0 takes the likeliest byte, `top_k` 0 any byte. The model is in
        evaluation mode and has `generate`, as GPT does. An empty prompt is a UserError.
        """
        if not prompt:
            raise UserError("the prompt is empty; give at least one character to continue from")
        tokens = torch.tensor([list(prompt.encode())], device=next(model.parameters()).device)
        written = model.generate(tokens, count, temperature=temperature, top_k=top_k, key=key)  # type: ignore[operator]
        return _text(written[0, tokens.shape[1] :].tolist())


def _text(tokens: list[int]) -> str:
    return bytes(tokens).decode(errors="replace")
