"""What a model costs, against closed forms and against a real pass on the CPU."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchstone.core.protocols import TokenShape
from torchstone.models import GPTConfig
from torchstone.profile import macs, parameters, training_memory


class Attention(nn.Module):
    def __init__(self, dim: int, vocabulary: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, dim)
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.head = nn.Linear(dim, vocabulary, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        q, k, v = self.qkv(self.embed(tokens)).unflatten(-1, (3, 2, -1)).permute(2, 0, 3, 1, 4)
        return self.head(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))


def mlp() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Dropout(0.5), nn.Linear(32, 10))


def conv() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(8), nn.Flatten()
    )


def test_parameters_of_tied_and_frozen() -> None:
    model = Attention(16, 100)
    assert parameters(model) == {"total": 1600 + 768, "trainable": 1600 + 768, "buffers": 0}
    model.qkv.weight.requires_grad_(False)
    assert parameters(model)["trainable"] == 1600
    assert parameters(conv()) == {"total": 3 * 8 * 9 + 32, "trainable": 3 * 8 * 9 + 32, "buffers": 2 * 17}


def test_macs_are_the_closed_form_whatever_the_batch() -> None:
    for n in (1, 7):
        assert macs(mlp(), torch.zeros(n, 1, 8, 8)) == 64 * 32 + 32 * 10
        assert macs(conv(), torch.zeros(n, 3, 8, 8)) == 3 * 8 * 9 * 64
        # qkv, scores and their mix over all pairs, head: what the CPU's flash attention hides from the counter
        assert macs(Attention(16, 100), torch.zeros(n, 12, dtype=torch.int64)) == 12 * (16 * 48 + 16 * 100) + 2 * 12 * 12 * 16


def test_nothing_of_the_model_changes() -> None:
    model = conv()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    macs(model, torch.zeros(1, 3, 8, 8))
    training_memory(model, torch.zeros(1, 3, 8, 8), microbatch_size=4, moments=2, averaging=True)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.device.type == "cpu" and p.grad is None for p in model.parameters())
    assert all(module.training for module in model.modules())
    assert torch.equal(torch.get_rng_state(), state)


def test_memory_by_purpose() -> None:
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    memory = training_memory(model, torch.zeros(3, 64), microbatch_size=5, moments=2, averaging=True)
    own = 4 * (64 * 32 + 32 + 32 * 10 + 10)
    # kept for the backward pass: the inputs and what leaves the ReLU
    assert memory == {
        "parameters": own,
        "gradients": own,
        "optimizer": 2 * own,
        "average": own,
        "activations": 5 * 4 * (64 + 32),
        "total": 5 * own + 5 * 4 * 96,
    }
    assert training_memory(model, torch.zeros(3, 64), microbatch_size=5, moments=0, averaging=False)["average"] == 0


def test_activations_are_what_a_real_pass_keeps() -> None:
    for model, inputs in ((conv(), torch.zeros(6, 3, 8, 8)), (mlp(), torch.zeros(6, 1, 8, 8))):
        own = {p.untyped_storage().data_ptr() for p in (*model.parameters(), *model.buffers())}
        kept: dict[int, Tensor] = {}

        def keep(tensor: Tensor, kept: dict[int, Tensor] = kept) -> Tensor:
            kept[tensor.untyped_storage().data_ptr()] = tensor
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            outputs = model(inputs)
        real = sum(t.untyped_storage().nbytes() for at, t in kept.items() if at not in own)
        estimate = training_memory(model, inputs, microbatch_size=6, moments=0, averaging=False)["activations"]
        assert outputs.requires_grad
        assert abs(estimate - real) <= 0.05 * real


def test_a_whole_gpt() -> None:
    """12 dim^2 a block and token, attention over all pairs, the head."""
    depth, dim, length, vocabulary = 2, 32, 24, 256
    config = GPTConfig(depth=depth, dim=dim, num_heads=4, mlp_ratio=4.0)
    model = config.build(TokenShape(vocabulary, length), vocabulary)
    counted = macs(model, torch.zeros(1, length, dtype=torch.int64))
    assert counted == length * (12 * dim * dim * depth + dim * vocabulary) + 2 * length * length * dim * depth
    memory = training_memory(model, torch.zeros(1, length, dtype=torch.int64), microbatch_size=1, moments=2, averaging=True)
    assert memory["activations"] > 4 * length * dim * depth
