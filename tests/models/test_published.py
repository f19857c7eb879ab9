"""Parameters and multiply-accumulates as published: the papers', torchvision's and timm's numbers."""

import csv

import pytest
import torch

from torchstone.core.protocols import ImageShape
from torchstone.models import FastConvNetConfig, LenetConfig, MobileNetV2Config
from torchstone.models.vision.cifar_resnet import CIFAR_RESNET20, CIFAR_RESNET32, CIFAR_RESNET44, CIFAR_RESNET56, CIFAR_RESNET110
from torchstone.models.vision.fast_conv_net import AIRBENCH94
from torchstone.models.vision.mobilenet import MOBILENET_V2, rounded
from torchstone.models.vision.resnet import RESNET18, RESNET34, RESNET50, RESNET101, RESNET152
from torchstone.models.vision.vit import VIT_B16, VIT_S16, VIT_TI16
from torchstone.profile import count

PHOTO, CIFAR, DIGIT = ImageShape(3, 224, 224), ImageShape(3, 32, 32), ImageShape(1, 28, 28)
# name, config, input, classes, parameters, multiply-accumulates (None: none published for exactly this network)
PUBLISHED = [
    ("resnet18", RESNET18, PHOTO, 1000, 11_689_512, 1.814e9),
    ("resnet34", RESNET34, PHOTO, 1000, 21_797_672, 3.664e9),
    ("resnet50", RESNET50, PHOTO, 1000, 25_557_032, 4.089e9),
    ("resnet101", RESNET101, PHOTO, 1000, 44_549_160, 7.801e9),
    ("resnet152", RESNET152, PHOTO, 1000, 60_192_808, 11.514e9),
    ("mobilenet_v2", MOBILENET_V2, PHOTO, 1000, 3_504_872, 0.301e9),
    ("vit_tiny_patch16_224", VIT_TI16, PHOTO, 1000, 5_717_416, None),
    ("vit_small_patch16_224", VIT_S16, PHOTO, 1000, 22_050_664, None),
    ("vit_b_16", VIT_B16, PHOTO, 1000, 86_567_656, 17.564e9),
    ("cifar_resnet20", CIFAR_RESNET20, CIFAR, 10, 269_722, 40_551_040),
    ("cifar_resnet32", CIFAR_RESNET32, CIFAR, 10, 464_154, 68_862_592),
    ("cifar_resnet44", CIFAR_RESNET44, CIFAR, 10, 658_586, None),
    ("cifar_resnet56", CIFAR_RESNET56, CIFAR, 10, 853_018, None),
    ("cifar_resnet110", CIFAR_RESNET110, CIFAR, 10, 1_727_962, None),
    ("lenet", LenetConfig(), DIGIT, 10, 61_706, 416_520),
]


def on_meta(config, inputs, outputs):
    with torch.device("meta"):
        return config.build(inputs, outputs)


def parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(("config", "inputs", "classes", "expected", "macs"), [row[1:] for row in PUBLISHED], ids=[r[0] for r in PUBLISHED])
def test_published_numbers(config, inputs, classes, expected, macs):
    model = on_meta(config, inputs, classes)
    assert parameters(model) == expected
    if macs is not None:
        measured = count.macs(model, torch.empty(1, inputs.channels, inputs.height, inputs.width))
        assert measured == macs if isinstance(macs, int) else measured == pytest.approx(macs, abs=0.5e6)


def test_lenet_of_1998_has_the_papers_sixty_thousand_and_a_head():
    model = on_meta(LenetConfig(variant="1998"), ImageShape(1, 32, 32), 10)
    layers = {"conv_1": 156, "pool_1": 12, "conv_2": 1516, "pool_2": 32, "hidden_1": 48_120, "hidden_2": 10_164}
    assert {name: parameters(getattr(model, name)) for name in layers} == layers
    assert sum(layers.values()) == 60_000
    assert parameters(model) == 60_000 + 850


def test_fast_conv_net_in_closed_form():
    def closed(widths, whitened, classes, convs=2):
        total = whitened  # its bias: the filters are not trained
        for inputs, outputs in zip((whitened, *widths), widths, strict=False):
            total += 9 * inputs * outputs + (convs - 1) * 9 * outputs**2 + convs * outputs
        return total + widths[-1] * classes

    assert parameters(on_meta(AIRBENCH94, CIFAR, 10)) == closed((64, 256, 256), 24, 10)
    assert parameters(on_meta(FastConvNetConfig(), DIGIT, 10)) == closed((48, 96, 192), 8, 10)
    deep = FastConvNetConfig(widths=(8, 12), convs_per_stage=3, residual=True, whiten_kernel=3)
    assert parameters(on_meta(deep, CIFAR, 7)) == closed((8, 12), 54, 7, convs=3)


@pytest.mark.parametrize(("width", "expected"), [(0.5, 1_968_680), (1.4, 6_108_776)])
def test_mobilenet_widths_are_timms(width, expected):
    """mobilenetv2_050 and mobilenetv2_140."""
    assert parameters(on_meta(MobileNetV2Config(width=width), PHOTO, 1000)) == expected


def test_channels_are_rounded_to_eights_but_never_far_down():
    assert [rounded(x) for x in (1, 8, 11.9, 12, 16 * 0.75, 24 * 0.35, 32 * 1.4, 90)] == [8, 8, 16, 16, 16, 8, 48, 88]
    assert all(rounded(x) % 8 == 0 and rounded(x) >= 0.9 * x for x in range(1, 400))


def test_tables_of_torchvision_and_timm_agree(shared_data):
    ours = {name: row for name, *row in PUBLISHED}
    seen = set()
    with (shared_data / "ref-torchvision" / "torchvision_weights.csv").open() as file:
        for row in csv.DictReader(file):
            if row["kind"] == "classification" and row["model"] in ours and row["weights"].startswith("IMAGENET1K_V"):
                assert int(row["num_params"]) == ours[row["model"]][3]
                assert float(row["gflops_as_documented"]) == pytest.approx(ours[row["model"]][4] / 1e9, abs=1e-3)
                seen.add(row["model"])
    timm = {"vit_base_patch16_224": "vit_b_16", "mobilenetv2_100": "mobilenet_v2"}
    with (shared_data / "ref-timm" / "results-imagenet.csv").open() as file:
        for row in csv.DictReader(file):
            name = row["model"].partition(".")[0]
            name = timm.get(name, name)
            if name in ours and row["img_size"] == "224":
                assert float(row["param_count"]) == pytest.approx(ours[name][3] / 1e6, abs=0.006)
                seen.add(name)
    assert {"resnet18", "resnet50", "resnet152", "mobilenet_v2"} <= seen
