"""Groups are partitions of a model's parameters."""

import pytest
import torch
from torch import nn

from torchstone import models
from torchstone.core.errors import UserError
from torchstone.core.protocols import ImageShape, TokenShape
from torchstone.optim import SGD, AdamW, FlatParameters, HeadFirst, LayerDecay, Muon, NoDecay, Patterns, Rule


def test_vectors_do_not_decay_and_matrices_do():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Linear(4, 2))
    decayed, free = NoDecay()(model)
    assert decayed.names == ("0.weight", "2.weight") and decayed.decay_scale == 1.0
    assert free.names == ("0.bias", "1.weight", "1.bias", "2.bias") and free.decay_scale == 0.0
    flat = FlatParameters(model, (decayed, free))
    before = flat.data.clone()
    part = SGD(lr=0.1, momentum=0.0, weight_decay=0.5)
    part.step(flat, part.init(flat))
    for name in flat.names:
        factor = 0.95 if name in decayed.names else 1.0
        torch.testing.assert_close(flat.view(flat.data, name), flat.view(before, name) * factor)


def test_a_model_of_vectors_alone_and_a_tied_one():
    assert len(FlatParameters(nn.LayerNorm(3), NoDecay()(nn.LayerNorm(3))).groups) == 1
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    assert NoDecay()(model)[0].names == ("0.weight",)
    FlatParameters(model, NoDecay()(model))


# --- the head first ----------------------------------------------------------------------------------------------------


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(3, 4)
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.body(x).tanh())


@pytest.mark.parametrize("optimizer", [SGD(lr=0.1, momentum=0.9, weight_decay=0.1), AdamW(lr=0.1), Muon(lr=0.1, weight_decay=0.1)])
def test_a_frozen_body_stays_what_it_was_to_the_bit_and_then_moves(optimizer):
    torch.manual_seed(0)
    model, groups = Small(), HeadFirst(share=0.5, body_lr_scale=0.5, ramp=0.0)
    flat = FlatParameters(model, groups(model))
    memory = optimizer.init(flat)
    before = {name: tensor.clone() for name, tensor in flat.named(flat.data).items()}
    for step in range(4):
        groups.update(flat, step, 4)
        flat.zero_grad()
        model(torch.randn(8, 3)).square().mean().backward()
        optimizer.step(flat, memory)
        moved = {name for name, tensor in flat.named(flat.data).items() if not torch.equal(tensor, before[name])}
        frozen = {name for name in flat.names if name.startswith("body")}
        assert moved == ({n for n in flat.names if n not in frozen} if step < 2 else set(flat.names))
        assert all(parameter.requires_grad for parameter in model.head.parameters())
        assert all(parameter.requires_grad == (step >= 2) for parameter in model.body.parameters())


def test_the_head_learns_under_head_first_as_it_does_with_the_body_held_by_hand():
    """The same first phase, once by the groups and once by a body that torch.optim never sees."""
    torch.manual_seed(1)
    ours, theirs = Small(), Small()
    theirs.load_state_dict(ours.state_dict())
    groups = HeadFirst(share=1.0)
    flat = FlatParameters(ours, groups(ours))
    part = SGD(lr=0.1, momentum=0.9)
    memory = part.init(flat)
    reference = torch.optim.SGD(theirs.head.parameters(), lr=0.1, momentum=0.9)
    for step in range(3):
        x = torch.randn(5, 3)
        groups.update(flat, step, 3)
        flat.zero_grad()
        ours(x).square().mean().backward()
        part.step(flat, memory)
        reference.zero_grad()
        theirs(x).square().mean().backward()
        reference.step()
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-7)


def test_the_rate_of_the_body():
    part = HeadFirst(share=0.4, body_lr_scale=0.2, ramp=0.2)
    assert [part.body_scale(step, 10) for step in range(4)] == [0.0] * 4
    assert [part.body_scale(step, 10) for step in range(4, 7)] == pytest.approx([0.1, 0.2, 0.2])
    assert HeadFirst(share=0.0, ramp=0.0).body_scale(0, 10) == 0.1
    assert HeadFirst(share=1.0).body_scale(9, 10) == 0.0
    assert part.plan(0.01, 10) == [
        "updates 1 to 4: the head alone, at rate 0.01",
        "updates 5 to 10: everything: the head at rate 0.01, the body at 0.002",
    ]


def test_head_first_needs_a_head_and_decays_matrices_alone():
    with pytest.raises(UserError, match="no output layer called head"):
        HeadFirst()(nn.Linear(2, 2))
    groups = HeadFirst()(Small())
    assert [(group.names, group.decay_scale) for group in groups] == [
        (("body.weight",), 1.0),
        (("body.bias",), 0.0),
        (("head.weight",), 1.0),
        (("head.bias",), 0.0),
    ]
    for wrong in ({"share": 1.5}, {"body_lr_scale": -1.0}, {"ramp": 2.0}):
        with pytest.raises(ValueError, match=f"HeadFirst.{next(iter(wrong))} must be"):
            HeadFirst(**wrong)


# --- layer decay -------------------------------------------------------------------------------------------------------------------------


def scales(part, model: nn.Module) -> dict[str, tuple[float, float]]:
    """Name -> (factor on the rate, factor on the decay); the groups are a partition that trains."""
    groups = part(model)
    FlatParameters(model, groups)
    return {name: (group.lr_scale, group.decay_scale) for group in groups for name in group.names}


def beit_layer(name: str, depth: int) -> int:
    """The rule of the BEiT and MAE papers for a vision transformer, by the names of its parts."""
    if name.startswith("blocks."):
        return int(name.split(".")[1]) + 1
    return depth + 1 if name.startswith(("norm", "head")) else 0


@pytest.mark.parametrize("pool", ["class", "mean"])
def test_layer_decay_of_a_vision_transformer_is_beits(pool):
    config = models.VITConfig(depth=3, dim=12, num_heads=2, pool=pool)
    model = models.build(config, ImageShape(1, 8, 8), 3, key=0)
    found = scales(LayerDecay(rate=0.65), model)
    for name, p in model.named_parameters():
        assert found[name] == (pytest.approx(0.65 ** (4 - beit_layer(name, 3)), rel=1e-12), float(p.ndim >= 2)), name
    assert {round(lr, 9) for lr, _ in found.values()} == {round(0.65**k, 9) for k in range(5)}


def test_layer_decay_of_other_models():
    gpt = models.build(models.GPTConfig(depth=2, dim=16, num_heads=2, tie=True), TokenShape(12, 6), 12, key=0)
    found = scales(LayerDecay(rate=0.5), gpt)
    embedding = next(name for name in found if "embed" in name or "token" in name)
    assert found[embedding][0] == 0.125, "a tied matrix is where it comes first"
    assert all(lr == 0.5 ** (2 - int(name.split(".")[1])) for name, (lr, _) in found.items() if name.startswith("blocks."))
    mlp = models.build(models.MLPConfig(hidden=(5, 6)), ImageShape(1, 4, 4), 3, key=0)
    assert {name: lr for name, (lr, _) in scales(LayerDecay(rate=0.5), mlp).items()} == {
        f"{layer}.{kind}": lr for layer, lr in (("hidden.0", 0.25), ("hidden.1", 0.5), ("head", 1.0)) for kind in ("weight", "bias")
    }
    nested = nn.ModuleDict(
        {"stem": nn.Linear(2, 2), "stages": nn.ModuleList(nn.ModuleDict({"blocks": nn.ModuleList([nn.Linear(2, 2)])}) for _ in "ab")}
    )
    assert [lr for lr, _ in scales(LayerDecay(rate=0.5), nested).values()][::2] == [0.125, 0.125, 0.25, 0.25, 0.5, 0.5][::2]


def test_layer_decay_scales_the_update():
    mlp = models.build(models.MLPConfig(hidden=(5, 6)), ImageShape(1, 4, 4), 3, key=0)
    flat = FlatParameters(mlp, LayerDecay(rate=0.5)(mlp))
    before = flat.data.clone()
    for p in flat:
        p.grad.fill_(1.0)
    part = SGD(lr=0.1, momentum=0.0)
    part.step(flat, part.init(flat))
    for name, lr in (("hidden.0.weight", 0.025), ("hidden.1.bias", 0.05), ("head.weight", 0.1)):
        moved = flat.view(before, name) - flat.view(flat.data, name)
        torch.testing.assert_close(moved, torch.full_like(moved, lr), rtol=1e-5, atol=1e-7)


# --- patterns ----------------------------------------------------------------------------------------------------------------------------


def test_the_first_pattern_that_fits_decides():
    model = models.build(models.MLPConfig(hidden=(5, 6)), ImageShape(1, 4, 4), 3, key=0)
    part = Patterns(
        rules=(
            Rule(names="hidden.0.*", lr_scale=0.1, decay_scale=0.5),
            Rule(names="*.bias", decay_scale=0.0),
            Rule(names="h[xe]ad*", lr_scale=0.0),
        )
    )
    assert scales(part, model) == {
        "hidden.0.weight": (0.1, 0.5),
        "hidden.0.bias": (0.1, 0.5),
        "hidden.1.bias": (1.0, 0.0),
        "head.bias": (1.0, 0.0),
        "head.weight": (0.0, 1.0),
        "hidden.1.weight": (1.0, 1.0),
    }
    assert len(Patterns.neutral(model)) == 1


def test_patterns_that_fit_nothing():
    model = nn.Linear(3, 2)
    with pytest.raises(UserError, match=r"rules\.0: no parameter is left for 'body\.\*'; the model has weight, bias"):
        Patterns(rules=(Rule(names="body.*"),))(model)
    with pytest.raises(UserError, match=r"rules\.1: no parameter is left"):
        Patterns(rules=(Rule(names="*"), Rule(names="bias")))(model)
    for fields, said in (
        ({"names": ""}, "names"),
        ({"names": "*", "lr_scale": -1.0}, "lr_scale"),
        ({"names": "*", "decay_scale": -1.0}, "decay_scale"),
    ):
        with pytest.raises(ValueError, match=rf"Rule\.{said} must be"):
            Rule(**fields)
    with pytest.raises(ValueError, match=r"LayerDecay\.rate must be"):
        LayerDecay(rate=0.0)
