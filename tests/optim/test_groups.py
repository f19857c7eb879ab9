"""Groups are partitions of a model's parameters."""

import torch
from torch import nn

from torchstone.optim import SGD, FlatParameters, NoDecay


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
