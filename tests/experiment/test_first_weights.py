"""What `prepare` does for norms and initial weights: it refuses batch norm of single samples, and gives LSUV its samples."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from laws.cases import PLAIN, TinyImages, ready
from torchstone.core.errors import UserError
from torchstone.models import ConvNetConfig, MLPConfig
from torchstone.nn import LSUV

CONV = ConvNetConfig(widths=(4, 6))


@pytest.mark.parametrize("run", [{"microbatch_size": 1}, {"batch_size": 1}, {"batch_size": 3, "microbatch_size": 2}])
def test_batch_norm_of_single_samples_is_refused_before_the_run(run):
    for norm in ("batch", "switchable"):
        with pytest.raises(UserError, match=r"batch norm has nothing to compare.*use another norm \(group"):
            ready(PLAIN, replace(CONV, norm=norm), **run)
    for norm in ("group", "layer", "frozen_batch", "none"):
        ready(PLAIN, replace(CONV, norm=norm), **run)


def test_a_single_last_vector_is_refused_before_the_run():
    source = TinyImages(train=22)
    with pytest.raises(UserError, match="the last of 22 samples would be alone"):
        ready(PLAIN, MLPConfig(norm="batch"), source, batch_size=7)
    for norm in ("layer", "switchable"):
        ready(PLAIN, MLPConfig(norm=norm), source, batch_size=7)
    ready(PLAIN, CONV, source, batch_size=7)  # over an image's pixels there is something to compare


def test_instance_norm_over_one_pixel_is_one_line():
    with pytest.raises(UserError, match=r"norm=instance: channels of one position.*use group or batch"):
        ready(PLAIN, ConvNetConfig(widths=(4, 4, 4, 4, 4), norm="instance"))


def test_lsuv_sees_training_samples():
    prepared = ready(PLAIN, ConvNetConfig(widths=(4, 6), norm="none", init=LSUV(samples=22)))
    seen = []
    for module in prepared.model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda _, __, out: seen.append(out.std(correction=0).item()))
    with torch.no_grad():
        prepared.model.eval()(prepared.splits.train.inputs)
    # The branches' last convolutions started at 0 and stay there.
    assert all(abs(std - 1) < 1e-3 or std == 0 for std in seen) and sum(std > 0 for std in seen) >= 3
