"""Language modelling: what it accepts and how it writes on."""

import pytest
import torch
from torch import Tensor, nn

from torchstone.core.errors import UserError
from torchstone.core.protocols import Facts, ImageShape, TokenShape
from torchstone.losses import CrossEntropy
from torchstone.models import GPTConfig
from torchstone.tasks import Language

FACTS = Facts(inputs=TokenShape(256, 16))


class Echo(nn.Module):
    """Writes the prompt again and again, and notes what it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def generate(self, prompt: Tensor, count: int, temperature: float, top_k: int, key: int) -> Tensor:
        self.asked = (count, temperature, top_k, key)
        return prompt.repeat(1, 1 + count)[:, : prompt.shape[1] + count]


def test_from_facts_to_parts() -> None:
    task = Language()
    task.accepts(FACTS)
    assert task.outputs(FACTS) == 256
    assert task.default_loss(FACTS) == CrossEntropy()
    results = {}
    for metric in task.metrics(FACTS):
        sums = metric.measure(torch.zeros(2, 3, 256), torch.zeros(2, 3).long(), torch.ones(2, 3), torch.zeros(2, 3))
        results |= metric.result(sums)
    assert set(results) == {"loss", "bits_per_byte", "accuracy"}
    assert task.selection[0] in results


def test_what_it_refuses() -> None:
    with pytest.raises(UserError, match="task=classify fits"):
        Language().accepts(Facts(inputs=ImageShape(1, 8, 8), classes=("a", "b")))


def test_decode_is_greedy() -> None:
    logits = torch.nn.functional.one_hot(torch.tensor([list("né".encode()), [0xFF, 0x61, 0x62]]), 256).float()
    assert Language().decode(logits, FACTS) == [{"text": "né"}, {"text": "\ufffdab"}]


def test_continue_text() -> None:
    model = Echo()
    text = Language().continue_text(model, "né", count=5, temperature=0.5, top_k=4, key=9)
    assert text == "nén\ufffd"
    assert model.asked == (5, 0.5, 4, 9)
    with pytest.raises(UserError, match="prompt is empty"):
        Language().continue_text(model, "", count=7, temperature=0.5, top_k=0, key=9)


def test_a_real_model_writes_on() -> None:
    torch.manual_seed(0)
    model = GPTConfig(depth=1, dim=16, num_heads=2).build(TokenShape(256, 16), 256).eval()
    one, again, other = (Language().continue_text(model, "def ", count=20, temperature=1.0, top_k=0, key=key) for key in (1, 1, 2))
    assert one == again != other
    assert Language().continue_text(model, "def ", count=0, temperature=1.0, top_k=0, key=1) == ""
