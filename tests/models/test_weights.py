"""Bodies loaded under everybody's names give everybody's numbers; what does not fit is refused before anything is copied."""

import io
import itertools
import math

import numpy as np
import pytest
import torch
from PIL import Image

from reference import layouts
from torchstone.core.errors import UserError
from torchstone.core.protocols import ImageShape
from torchstone.models import CifarResnetConfig, ConvNetConfig, FastConvNetConfig, MobileNetV2Config, ResnetConfig, VITConfig, load_body
from torchstone.models.vision.resnet import RESNET50
from torchstone.models.vision.vit import VIT_B16

COLOR = ImageShape(3, 32, 32)


@pytest.fixture(autouse=True)
def _seeded():
    layouts.DRAW.manual_seed(0)
    torch.manual_seed(0)


def with_head(model, state, head):
    """Our model with the reference's head put in by hand: `load_body` leaves heads out."""
    with torch.no_grad():
        model.head.weight.copy_(state[f"{head}.weight"])
        model.head.bias.copy_(state[f"{head}.bias"])
    return model


# --- the layouts of torchvision, timm and the CIFAR weights -------------------------------------------------------------


@pytest.mark.parametrize(("depth", "counts"), [(18, (2, 2, 2, 2)), (50, (3, 4, 6, 3))])
def test_resnet_under_torchvisions_names(depth, counts):
    state = layouts.resnet_state(counts, 8, 5, bottleneck=depth >= 50)
    model = ResnetConfig(depth=depth, width=8, stem="imagenet").build(ImageShape(3, 64, 80), 5).double().eval()
    done = load_body(model, state, "file")
    assert done.loaded == len(state) - 2
    assert done.left_out == ("fc.weight", "fc.bias")
    assert done.fresh == ("head.weight", "head.bias")
    assert done.adapted == ()
    x = torch.randn(2, 3, 64, 80, dtype=torch.float64)
    torch.testing.assert_close(with_head(model, state, "fc")(x), layouts.resnet_forward(state, x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("layout", ["torchvision", "timm"])
def test_mobilenet_under_their_names(layout):
    state = layouts.mobilenet_state(layout, 5)
    model = MobileNetV2Config(stem="imagenet").build(ImageShape(3, 64, 64), 5).double().eval()
    done = load_body(model, state, "file")
    assert (done.loaded, len(done.left_out), done.fresh) == (len(state) - 2, 2, ("head.weight", "head.bias"))
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    head = layouts.MOBILENET_ENDS[layout][2]
    torch.testing.assert_close(with_head(model, state, head)(x), layouts.mobilenet_forward(state, x, layout), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("layout", ["torchvision", "timm"])
def test_vit_under_their_names(layout):
    state = layouts.vit_state(layout, depth=3, dim=24, patch=8, tokens=17, classes=5)
    model = VITConfig(patch_size=8, depth=3, dim=24, num_heads=3).build(COLOR, 5).double().eval()
    done = load_body(model, state, "file")
    assert (done.loaded, len(done.left_out), done.fresh) == (len(state) - 2, 2, ("head.weight", "head.bias"))
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    head = layouts.VIT_WHOLE[layout]["head"]
    torch.testing.assert_close(with_head(model, state, head)(x), layouts.vit_forward(state, x, layout, 3), rtol=1e-9, atol=1e-9)


def test_the_published_sizes_have_a_place_for_every_tensor(monkeypatch):
    """ResNet-50 and ViT-B/16 whole, by names and shapes: a name that went elsewhere would not fit there."""
    monkeypatch.setattr(layouts, "drawn", lambda *shape, **_: torch.empty(*shape, device="meta"))
    with torch.device("meta"):
        resnet = RESNET50.build(ImageShape(3, 224, 224), 1000)
        vit = VIT_B16.build(ImageShape(3, 224, 224), 1000)
    for model, state in (
        (resnet, layouts.resnet_state((3, 4, 6, 3), 64, 1000)),
        (vit, layouts.vit_state("torchvision", depth=12, dim=768, patch=16, tokens=197, classes=1000)),
        (vit, layouts.vit_state("timm", depth=12, dim=768, patch=16, tokens=197, classes=1000)),
    ):
        ours = {name: tensor.shape for name, tensor in model.state_dict().items()}
        renamed = {name if name in ours else model.our_name(name): tensor.shape for name, tensor in state.items()}
        assert renamed == ours


@pytest.mark.parametrize("name", ["resnet20", "resnet32"])
def test_trained_cifar_weights_reproduce_their_logits(shared_data, name):
    folder = shared_data / "cifar10-resnet-weights"
    with np.load(folder / f"{name}.npz") as file:
        tensors = {key: torch.from_numpy(file[key]) for key in file.files}
    model = CifarResnetConfig(depth=int(name[-2:])).build(COLOR, 10).eval()
    done = load_body(model, tensors, name)
    assert done.left_out == ("linear.weight", "linear.bias")
    assert done.fresh == ("head.weight", "head.bias")
    with_head(model, tensors, "linear")
    with np.load(folder / f"{name}_expected.npz") as expected, torch.inference_mode():
        logits = model(normalized(expected["pixels"]))
        np.testing.assert_allclose(logits, expected["logits"], rtol=0, atol=1e-4)
        assert np.array_equal(logits.argmax(1), expected["argmax_all"][expected["rows"]])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet20"])
def test_trained_cifar_weights_give_every_published_label(shared_data, name):
    folder = shared_data / "cifar10-resnet-weights"
    with np.load(folder / f"{name}.npz") as file:
        tensors = {key: torch.from_numpy(file[key]) for key in file.files}
    model = CifarResnetConfig(depth=int(name[-2:])).build(COLOR, 10).eval()
    load_body(model, tensors, name)
    with_head(model, tensors, "linear").to(memory_format=torch.channels_last)
    with np.load(shared_data / "cifar10-jpeg" / "cifar10_jpeg_test.npz") as file:
        arrays = {key: file[key] for key in file.files}
    jpegs, starts = arrays["jpeg"], arrays["offsets"]
    pixels = np.stack([np.array(Image.open(io.BytesIO(jpegs[a:b].tobytes()))) for a, b in itertools.pairwise(starts)])
    with np.load(folder / f"{name}_expected.npz") as expected, torch.inference_mode():
        labels = torch.cat([model(normalized(part)).argmax(1) for part in np.array_split(pixels, 40)])
        # Another build of libjpeg may round a pixel differently, and tip a picture that was undecided.
        assert (labels.numpy() != expected["argmax_all"]).sum() <= 5


def normalized(pixels):
    x = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return (x - mean[:, None, None]) / std[:, None, None]


# --- our own names ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrapper", ["", "module.", "_orig_mod.", "module._orig_mod."])
def test_a_body_moves_to_another_head(wrapper):
    config = ConvNetConfig(widths=(4, 6))
    old, new = config.build(COLOR, 10), config.build(COLOR, 3)
    head = new.head.weight.clone()
    done = load_body(new, {wrapper + name: tensor for name, tensor in old.state_dict().items()}, "run")
    assert done.left_out == (f"{wrapper}head.weight", f"{wrapper}head.bias")
    assert done.fresh == ("head.weight", "head.bias")
    for name, tensor in new.state_dict().items():
        assert torch.equal(tensor, head if name == "head.weight" else tensor if name == "head.bias" else old.state_dict()[name])


def test_a_whitening_layer_moves_along():
    config = FastConvNetConfig(widths=(4,))
    old, new = config.build(COLOR, 10), config.build(COLOR, 3)
    old.initialize_from(torch.randn(20, 3, 32, 32))
    load_body(new, old.state_dict(), "run")
    assert torch.equal(new.whitening.weight, old.whitening.weight)


def test_what_the_file_lacks_stays_fresh_and_what_the_model_lacks_is_left_out():
    state = dict(ConvNetConfig(widths=(4,)).build(COLOR, 10).state_dict())
    del state["stem_norm.bias"]
    state = {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")} | {"extra": torch.zeros(3)}
    model = ConvNetConfig(widths=(4,)).build(COLOR, 10)
    bias = model.stem_norm.bias.clone()
    done = load_body(model, state, "file")
    assert done.fresh == ("stem_norm.bias", "head.weight", "head.bias")
    assert done.left_out == ("head.weight", "head.bias", "extra")
    assert done.loaded == len(state) - 3
    assert torch.equal(model.stem_norm.bias, bias)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_floats_of_any_width_are_taken(dtype):
    old, new = (ConvNetConfig(widths=(4,)).build(COLOR, 10) for _ in range(2))
    state = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in old.state_dict().items()}
    load_body(new, state, "file")
    assert torch.equal(new.stem.weight, old.stem.weight.to(dtype).float())


# --- what is adapted -----------------------------------------------------------------------------------------------------


def test_gray_images_give_what_they_gave_in_color():
    color = CifarResnetConfig(depth=8, width=4).build(COLOR, 5).double().eval()
    gray = CifarResnetConfig(depth=8, width=4).build(ImageShape(1, 32, 32), 5).double().eval()
    done = load_body(gray, color.state_dict(), "run")
    assert done.adapted == ("stem.weight: summed over the three colors, for gray images",)
    x = torch.randn(2, 1, 32, 32, dtype=torch.float64)
    with_head(gray, color.state_dict(), "head")
    torch.testing.assert_close(gray(x), color(x.expand(-1, 3, -1, -1)), rtol=1e-9, atol=1e-9)
    back = CifarResnetConfig(depth=8, width=4).build(COLOR, 5).double().eval()
    done = load_body(back, gray.state_dict(), "run")
    assert done.adapted == ("stem.weight: a third of it for each of the three colors",)
    with_head(back, gray.state_dict(), "head")
    torch.testing.assert_close(back(x.expand(-1, 3, -1, -1)), gray(x), rtol=1e-9, atol=1e-9)


def test_positions_of_another_grid_are_interpolated():
    config = VITConfig(depth=1, dim=12, num_heads=2)
    old, new = config.build(COLOR, 5), config.build(ImageShape(3, 48, 40), 5)
    with torch.no_grad():
        old.positions[:, 1:] = 0.25
    done = load_body(new, old.state_dict(), "run")
    assert done.adapted == ("positions: 8x8 positions interpolated to 12x10",)
    assert torch.equal(new.positions[:, 0], old.positions[:, 0])
    torch.testing.assert_close(new.positions[:, 1:], torch.full((1, 120, 12), 0.25))


def test_positions_without_a_class_token():
    def config(pool):
        return VITConfig(depth=1, dim=12, num_heads=2, pool=pool)

    with_class, mean = config("class").build(COLOR, 5), config("mean").build(COLOR, 5)
    done = load_body(mean, with_class.state_dict(), "run")
    assert torch.equal(mean.positions, with_class.positions[:, 1:])
    assert "class_token" in done.left_out
    other = config("class").build(COLOR, 5)
    first = other.positions[:, 0].clone()
    done = load_body(other, mean.state_dict(), "run")
    assert torch.equal(other.positions[:, 1:], mean.positions)
    assert torch.equal(other.positions[:, 0], first)
    assert "class_token" in done.fresh


# --- what is refused -----------------------------------------------------------------------------------------------------


def model_and_state():
    torch.manual_seed(3)
    return CifarResnetConfig(depth=8, width=4).build(COLOR, 5), dict(CifarResnetConfig(depth=8, width=4).build(COLOR, 5).state_dict())


def refused(edit, words):
    model, state = model_and_state()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    edit(state)
    with pytest.raises(UserError, match=words) as error:
        load_body(model, state, "the/file")
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("the/file")
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (
            lambda s: s.update({"blocks.1.conv_1.weight": torch.zeros(8, 4, 1, 1)}),
            r"blocks.1.conv_1.weight is \[8, 4, 1, 1\].*\[8, 4, 3, 3\]",
        ),
        (
            lambda s: s.update({"layer1.0.conv1.weight": s.pop("blocks.0.conv_1.weight")[:2]}),
            r"layer1.0.conv1.weight is \[2, .*blocks.0.conv_1",
        ),
        (
            lambda s: s.update({"stem.weight": torch.zeros(4, 4, 3, 3)}),
            r"stem.weight is \[4, 4, 3, 3\], the model's stem.weight is \[4, 3, 3, 3\]",
        ),
        (lambda s: s.update({"stem.weight": torch.zeros(4, 1, 5, 5)}), r"stem.weight is \[4, 1, 5, 5\]"),
        (lambda s: s.update({"stem.weight": torch.zeros(4)}), r"stem.weight is \[4\]"),
        (lambda s: s.update({"conv1.weight": torch.zeros(4, 3, 3, 3)}), "stem.weight and conv1.weight are both the model's stem.weight"),
        (lambda s: s.update({"stem.weight": torch.zeros(4, 3, 3, 3, dtype=torch.int8)}), "stem.weight is int8, .*float32"),
        (lambda s: s["stem.weight"].view(-1)[3:4].fill_(math.inf), "stem.weight holds NaN or infinity"),
        (lambda s: (s.clear(), s.update({"a\x1b[31mb\n": torch.zeros(3)})), "no tensor fits a CifarResnet.*stem.weight.*found ab"),
        (lambda s: s.clear(), "no tensor fits a CifarResnet.*found none"),
        (lambda s: [s.pop(name) for name in list(s) if not name.startswith("head")], "no tensor fits"),
        (lambda s: [s.pop(name) for name in list(s) if not name.endswith("tracked")], "no tensor fits"),
    ],
)
def test_what_does_not_fit_is_refused_whole(edit, words):
    refused(edit, words)


def test_positions_that_are_no_square_grid_are_refused():
    config = VITConfig(depth=1, dim=12, num_heads=2)
    state, model = dict(config.build(COLOR, 5).state_dict()), config.build(COLOR, 5)
    for wrong in (torch.zeros(1, 24, 12), torch.zeros(1, 37, 11), torch.zeros(65, 12), torch.zeros(1, 0, 12)):
        with pytest.raises(UserError, match=r"positions is .*the model's positions is \[1, 65, 12\]"):
            load_body(model, state | {"positions": wrong}, "file")


@pytest.mark.parametrize("name", ["layer9.0.conv1.weight", "layer1.7.conv1.weight", "layer1.0.conv4.weight", "layer1.x.conv1.weight", "."])
def test_names_beyond_the_model_have_no_place(name):
    assert ResnetConfig(width=4).build(COLOR, 5).our_name(name) is None
    assert MobileNetV2Config(width=0.1).build(COLOR, 5).our_name(name) is None
    assert VITConfig(depth=1, dim=12, num_heads=2).build(COLOR, 5).our_name(name) is None


def test_blocks_beyond_the_model_have_no_place():
    mobile = MobileNetV2Config(width=0.1).build(COLOR, 5)
    assert mobile.our_name("features.17.conv.2.weight") == "blocks.16.project.weight"
    for name in ("features.18.conv.2.weight", "features.0.conv.2.weight", "blocks.1.2.conv_pw.weight", "blocks.6.1.conv_pw.weight"):
        assert mobile.our_name(name) is None
    vit = VITConfig(depth=2, dim=12, num_heads=2).build(COLOR, 5)
    assert vit.our_name("blocks.1.norm1.weight") == "blocks.1.attention_norm.weight"
    assert vit.our_name("blocks.2.norm1.weight") is None
    assert vit.our_name("blocks.1.ls1.gamma") is None
