"""muP: its groups, and the coordinate check: what an update does to each layer's outputs does not depend on the width."""

import pytest
import torch

from torchstone.core.protocols import TokenShape, VectorShape
from torchstone.models import GPTConfig, MLPConfig
from torchstone.nn import init as rules
from torchstone.optim import SGD, AdamW, FlatParameters, MuP

WIDTHS = (64, 256, 1024)


def changes(width, parametrized, updates, lr):
    """Root mean square of what four updates change in the outputs of each layer."""
    torch.manual_seed(0)
    rule = rules.MuP(base=64) if parametrized else rules.Kaiming()
    model = MLPConfig(hidden=(width, width), init=rule).build(VectorShape(16), 10)
    groups = MuP(base=64, updates=updates)(model) if parametrized else None
    parameters = FlatParameters(model, groups)
    optimizer = AdamW(lr=lr, weight_decay=0.0) if updates == "adam" else SGD(lr=lr, momentum=0.0)
    memory = optimizer.init(parameters)
    x, y = torch.randn(32, 16), torch.randint(0, 10, (32,))
    outputs = {}
    for name in ("hidden.0", "hidden.1", "head"):
        model.get_submodule(name).register_forward_hook(lambda layer, _, out, name=name: outputs.__setitem__(name, out.detach()))
    model(x)
    before = dict(outputs)
    for _ in range(4):
        parameters.zero_grad()
        torch.nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step(parameters, memory)
    model(x)
    return {name: (outputs[name] - before[name]).square().mean().sqrt().item() for name in outputs}


@pytest.mark.parametrize(("updates", "lr"), [("adam", 1e-3), ("sgd", 0.05)])
def test_coordinate_check(updates, lr):
    ours = [changes(width, True, updates, lr) for width in WIDTHS]
    for name in ours[0]:
        sizes = [each[name] for each in ours]
        assert max(sizes) < 2 * min(sizes), (name, sizes)
    # Without it the wide network's outputs move by much more under Adam.
    if updates == "adam":
        plain = [changes(width, False, updates, lr)["head"] for width in WIDTHS]
        assert plain[-1] > 4 * plain[0]


def test_groups_of_an_mlp_in_closed_form():
    model = MLPConfig(hidden=(256, 512)).build(VectorShape(16), 10)
    groups = {group.names: (group.lr_scale, group.decay_scale) for group in MuP(base=64)(model)}
    assert groups == {
        ("hidden.0.weight",): (1.0, 1.0),
        ("hidden.1.weight",): (0.25, 4.0),
        ("head.weight",): (0.25, 4.0),
        ("hidden.0.bias", "hidden.1.bias", "head.bias"): (1.0, 0.0),
    }
    by_sgd = {group.names[0]: group.lr_scale for group in MuP(base=64, updates="sgd")(model)}
    assert by_sgd == {"hidden.0.weight": 4.0, "hidden.1.weight": 1.0, "head.weight": 0.25, "hidden.0.bias": 4.0}


def test_embeddings_read_the_data():
    model = GPTConfig(depth=1, dim=64, num_heads=2).build(TokenShape(9, 5), 9)
    scales = {name: group.lr_scale for group in MuP(base=32)(model) for name in group.names}
    assert scales["embedding.weight"] == 1.0
    assert scales["blocks.0.attention.qkv.weight"] == scales["blocks.0.mlp.hidden.weight"] == scales["head.weight"] == 0.5


def test_at_the_base_width_every_rate_is_the_rate():
    model = MLPConfig(hidden=(64, 64)).build(VectorShape(16), 10)
    for updates in ("adam", "sgd"):
        assert {group.lr_scale for group in MuP(base=64, updates=updates)(model)} == {1.0}


@pytest.mark.parametrize("edit", [{"base": 0}, {"updates": "muon"}])
def test_what_it_refuses(edit):
    part = MuP()
    object.__setattr__(part, *next(iter(edit.items())))
    with pytest.raises(ValueError, match=f"MuP.{next(iter(edit))} must be"):
        part.__post_init__()
