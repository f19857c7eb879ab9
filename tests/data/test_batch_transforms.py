"""Each batch transform against NumPy, image by image; all of them: pure, keyed by the row alone, neutral where they say so."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from torchstone.core import random
from torchstone.core.errors import UserError
from torchstone.core.protocols import Batch, Facts, ImageShape, TokenShape, VectorShape
from torchstone.data import Digits
from torchstone.data.batch_transforms import ColorJitter, Cutmix, Cutout, Flip, Mixup, Normalize, PaddedCrop, Warp, in_turn
from torchstone.data.batch_transforms.crop import gathered, windows
from torchstone.data.pixels import as_float

FACTS = Facts(inputs=ImageShape(3, 6, 5), classes=("a", "b", "c", "d"), mean=(0.5, 0.4, 0.3), std=(0.2, 0.0, 0.1))
ALL = [Flip(), PaddedCrop(padding=2), PaddedCrop(padding=3, fill="reflect"), Normalize(), Mixup(alpha=1.0)]
ALL += [
    Warp(rotation=20.0, shear=10.0, translation=0.1, scale=(0.8, 1.2), crop_area=0.4, flip=0.5),
    Warp(crop_area=1.0, flip=0.0, rotation=90.0, interpolation="nearest", fill="zero"),
    ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, gray=0.2),
    Cutout(p=0.7),
    Cutmix(),
]
IN_BYTES = [part for part in ALL if isinstance(part, Flip | PaddedCrop | Warp | Cutout | Cutmix)]
"""What keeps bytes as bytes; the others make floats of them."""


def batch_of(n: int, shape=(3, 6, 5), seed: int = 0) -> tuple[Batch, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    index = torch.arange(n) + 10
    batch = Batch(torch.rand(n, *shape, generator=generator), torch.randint(4, (n,), generator=generator), index, torch.ones(n))
    return batch, random.sample_keys(random.key(seed, "test"), index)


def test_flip_mirrors_the_share_p_and_nothing_else() -> None:
    batch, keys = batch_of(4000, (1, 2, 3))
    flipped = Flip(p=0.3)(batch, keys).inputs
    mirrored = (flipped == batch.inputs.flip(-1)).flatten(1).all(1)
    kept = (flipped == batch.inputs).flatten(1).all(1)
    assert torch.equal(mirrored, ~kept)
    assert stats.binomtest(int(mirrored.sum()), 4000, 0.3).pvalue > 0.01
    assert torch.equal(Flip(p=1.0)(batch, keys).inputs, batch.inputs.flip(-1))


@pytest.mark.parametrize("fill", ["zero", "reflect"])
@pytest.mark.parametrize("padding", [1, 2, 4])
def test_crop_is_a_crop_of_the_padded_image(fill: str, padding: int) -> None:
    batch, keys = batch_of(50)
    moved = PaddedCrop(padding=padding, fill=fill)(batch, keys).inputs
    offsets = random.integers(keys, 2, 2 * padding + 1).tolist()
    mode = {"zero": {"mode": "constant"}, "reflect": {"mode": "reflect"}}[fill]
    for image, ours, (top, left) in zip(batch.inputs.numpy(), moved.numpy(), offsets, strict=True):
        padded = np.pad(image, ((0, 0), (padding, padding), (padding, padding)), **mode)
        np.testing.assert_array_equal(ours, padded[:, top : top + 6, left : left + 5])


def test_crop_reaches_every_shift_alike() -> None:
    batch, keys = batch_of(5000, (1, 5, 5))
    batch = replace(batch, inputs=torch.zeros(5000, 1, 5, 5).index_fill_(2, torch.tensor(2), 1.0) * torch.eye(5)[2])
    places = PaddedCrop(padding=2)(batch, keys).inputs.flatten(1).argmax(1)
    assert stats.chisquare(torch.bincount(places, minlength=25)).pvalue > 0.01


def test_normalize_takes_the_training_split_and_is_for_prediction_too() -> None:
    splits = Digits().open()
    normalize = Normalize().resolve(splits.facts)
    inputs, target = splits.train.fetch(np.arange(len(splits.train)))
    out = normalize(Batch(inputs, target, target, torch.ones(len(target))), target).inputs.double()
    assert abs(out.mean()) < 1e-6
    assert abs(out.std(correction=0) - 1) < 1e-6
    assert not Normalize.train_only
    assert normalize.resolve(splits.facts) == normalize


def test_normalize_a_channel_and_a_feature_at_a_time() -> None:
    batch, keys = batch_of(4)
    out = Normalize().resolve(FACTS)(batch, keys).inputs.numpy()
    mean, std = np.float32([0.5, 0.4, 0.3]), np.float32([0.2, 1.0, 0.1])  # a constant channel counts as deviation 1
    np.testing.assert_allclose(out, (batch.inputs.numpy() - mean[:, None, None]) / std[:, None, None], rtol=1e-6)
    vectors = replace(batch, inputs=batch.inputs[:, :, 0, 0])
    np.testing.assert_array_equal(Normalize().resolve(FACTS)(vectors, keys).inputs.numpy(), out[:, :, 0, 0])


def test_mixup_blends_consecutive_pairs_as_the_paper_says() -> None:
    batch, keys = batch_of(9)
    mixed = Mixup(alpha=0.4, classes=4)(batch, keys)
    lam = random.beta(keys[[0, 2, 4, 6]], 0.4).numpy()
    x, y = batch.inputs.numpy(), np.eye(4, dtype=np.float32)[batch.target.numpy()]
    for row in range(8):
        share, partner = lam[row // 2], row ^ 1
        np.testing.assert_allclose(mixed.inputs[row].numpy(), share * x[row] + (1 - share) * x[partner], atol=1e-6)
        np.testing.assert_allclose(mixed.target[row].numpy(), share * y[row] + (1 - share) * y[partner], atol=1e-6)
    np.testing.assert_array_equal(mixed.inputs[8].numpy(), x[8])
    np.testing.assert_array_equal(mixed.target.sum(1).numpy(), np.ones(9, dtype=np.float32))
    np.testing.assert_array_equal(mixed.target[8].numpy(), y[8])


def test_mixup_never_mixes_padding_in() -> None:
    batch, keys = batch_of(6)
    batch.weight[torch.tensor([1, 4])] = 0
    batch.inputs[1] = float("inf")
    mixed = Mixup(alpha=1.0, classes=4)(batch, keys)
    for row in (0, 1, 4, 5):
        assert torch.equal(mixed.inputs[row], batch.inputs[row])
        assert mixed.target[row].tolist() == np.eye(4)[batch.target[row]].tolist()
    assert not torch.equal(mixed.inputs[2], batch.inputs[2])


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_mixup_shares_are_beta_distributed(alpha: float) -> None:
    batch, keys = batch_of(8000, (1,))
    batch = replace(batch, inputs=torch.tensor([1.0, 0.0]).repeat(4000)[:, None])
    lam = Mixup(alpha=alpha, classes=4)(batch, keys).inputs[0::2, 0].numpy()
    assert stats.kstest(lam, stats.beta(alpha, alpha).cdf).pvalue > 0.01
    assert abs(lam.mean() - 0.5) < 4 * stats.beta(alpha, alpha).std() / 4000**0.5


def test_mixup_takes_probabilities_too() -> None:
    batch, keys = batch_of(4)
    soft = replace(batch, target=torch.eye(4)[batch.target])
    ours, theirs = Mixup(classes=4)(batch, keys), Mixup()(soft, keys)
    assert torch.equal(ours.target, theirs.target)
    assert torch.equal(ours.inputs, theirs.inputs)


@pytest.mark.parametrize("part", sorted({type(part) for part in ALL}, key=lambda cls: cls.__name__))
def test_neutral_is_absent(part) -> None:
    batch, keys = batch_of(5)
    batch.inputs[0, 0, 0, :2] = torch.tensor([-0.0, float("inf")])
    out = part.neutral.resolve(FACTS)(batch, keys)
    assert out.inputs.numpy().tobytes() == batch.inputs.numpy().tobytes()
    assert out.target is batch.target


@pytest.mark.parametrize("part", ALL, ids=repr)
def test_bytes_are_v_over_255(part) -> None:
    part = part.resolve(FACTS)
    batch, keys = batch_of(12)
    batch = replace(batch, inputs=(batch.inputs * 255).to(torch.uint8))
    ours, floats = part(batch, keys), part(replace(batch, inputs=as_float(batch.inputs)), keys)
    kept = any(part is one or type(part) is type(one) for one in IN_BYTES)
    assert ours.inputs.dtype == (torch.uint8 if kept else torch.float32)
    torch.testing.assert_close(as_float(ours.inputs), floats.inputs, atol=0.51 / 255 if kept else 3e-6, rtol=0)
    assert torch.equal(ours.target, floats.target)


def test_both_ways_to_cut_are_one() -> None:
    for dtype in (torch.uint8, torch.float32):
        images = torch.randint(0, 256, (30, 3, 9, 8), dtype=torch.uint8).to(dtype)
        corner = torch.randint(0, 4, (30, 2))
        assert torch.equal(windows(images, corner, 6, 5), gathered(images, corner, 6, 5))


@pytest.mark.parametrize("part", [Flip(), PaddedCrop(padding=2)], ids=repr)
def test_types_that_numpy_does_not_know(part) -> None:
    batch, keys = batch_of(20)
    half = replace(batch, inputs=batch.inputs.bfloat16())
    assert torch.equal(part(half, keys).inputs, part(batch, keys).inputs.bfloat16())


@pytest.mark.parametrize("n", [12, 700])
@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
@pytest.mark.parametrize("part", ALL, ids=repr)
def test_pure_and_keyed_by_the_row_alone(part, dtype: torch.dtype, n: int) -> None:
    part = part.resolve(FACTS)
    batch, keys = batch_of(n)
    if dtype == torch.uint8:
        batch = replace(batch, inputs=(batch.inputs * 255).to(torch.uint8))
    before = batch.inputs.clone()
    state = torch.get_rng_state()
    whole = part(batch, keys)
    assert torch.equal(batch.inputs, before)
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(whole.inputs, part(batch, keys).inputs)
    # Cut at a multiple of the group, as the plan cuts: the same rows.
    cut, end = (3 * part.group, n // 2 * 2 - part.group) if part.group > 1 else (5, n - 1)
    halves = [
        part(Batch(batch.inputs[s], batch.target[s], batch.index[s], batch.weight[s]), keys[s])
        for s in (slice(0, cut), slice(cut, end), slice(end, None))
    ]
    assert torch.equal(whole.inputs, torch.cat([half.inputs for half in halves]))
    assert torch.equal(whole.target, torch.cat([half.target for half in halves]))


WARP = Warp(rotation=20.0, shear=10.0, translation=0.1, scale=(0.8, 1.2), crop_area=0.4)
COLOR = ColorJitter(hue=0.1, gray=0.2)
CHAINS = [
    (WARP, COLOR, Normalize()),
    (COLOR, Normalize(mean=(0.4,), std=(0.3,))),
    (WARP, COLOR, Cutout(p=0.7)),
    (Flip(), WARP, Normalize()),
    (Normalize(), WARP, Warp(crop_area=0.4)),
    (WARP, ColorJitter.neutral, Normalize()),
    (Flip.neutral, Warp.neutral),
    (),
]


@pytest.mark.parametrize("n", [0, 12, 300])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.uint8])
@pytest.mark.parametrize("chain", CHAINS, ids=lambda chain: ",".join(type(part).__name__ for part in chain))
def test_in_turn_is_one_call_after_the_other(chain, dtype: torch.dtype, n: int) -> None:
    chain = [part.resolve(FACTS) for part in chain]
    batch, _ = batch_of(n, (3, 24, 31))
    batch = replace(batch, inputs=(batch.inputs * 255).to(dtype) if dtype == torch.uint8 else batch.inputs.to(dtype))
    before = batch.inputs.clone()
    drawn = [(part, random.sample_keys(random.key(0, "in_turn", place), batch.index)) for place, part in enumerate(chain)]
    together, apart = in_turn(batch, drawn), batch
    for part, keys in drawn:
        apart = part(apart, keys)
    torch.testing.assert_close(together.inputs, apart.inputs, atol=1e-5 if dtype != torch.float64 else 1e-12, rtol=0)
    assert torch.equal(batch.inputs, before)
    halves = []
    for some in (slice(0, 5), slice(5, None)):
        half = Batch(*(x[some] for x in (batch.inputs, batch.target, batch.index, batch.weight)))
        halves.append(in_turn(half, [(part, keys[some]) for part, keys in drawn]))
    assert torch.equal(together.inputs, torch.cat([half.inputs for half in halves]))


@pytest.mark.parametrize("part", ALL, ids=repr)
@pytest.mark.parametrize("n", [0, 1])
def test_tiny_batches(part, n: int) -> None:
    batch, keys = batch_of(n)
    assert part.resolve(FACTS)(batch, keys).inputs.shape == batch.inputs.shape


@pytest.mark.gpu
@pytest.mark.parametrize("part", ALL, ids=repr)
def test_the_same_on_an_accelerator(part) -> None:
    part = part.resolve(FACTS)
    batch, keys = batch_of(12)
    there = Batch(*(tensor.cuda() for tensor in (batch.inputs, batch.target, batch.index, batch.weight)))
    ours, theirs = part(batch, keys), part(there, keys.cuda())
    assert theirs.inputs.is_cuda
    torch.testing.assert_close(theirs.inputs.cpu(), ours.inputs)
    torch.testing.assert_close(theirs.target.cpu(), ours.target)


def test_data_that_do_not_fit_are_refused() -> None:
    vectors, tokens = Facts(inputs=VectorShape(3), mean=(0.0,) * 3, std=(1.0,) * 3), Facts(inputs=TokenShape(256, 8))
    for part in (Flip(), PaddedCrop(), Warp(), ColorJitter(), Cutout()):
        with pytest.raises(UserError, match="needs images, but the data are VectorShape"):
            part.resolve(vectors)
    for part in (Normalize(), Mixup()):
        with pytest.raises(UserError, match="the data are"):
            part.resolve(tokens)
    with pytest.raises(UserError, match="no classes"):
        Mixup().resolve(vectors)
    with pytest.raises(UserError, match="images of 5 pixels can be shifted by at most 4"):
        PaddedCrop(padding=5).resolve(FACTS)
    with pytest.raises(UserError, match="2 numbers, but the data have 3 channels"):
        Normalize(mean=(0.0, 0.0), std=(1.0, 1.0)).resolve(FACTS)
    with pytest.raises(UserError, match=r"Mixup\.classes is 3, but the data have 4"):
        Mixup(classes=3).resolve(FACTS)
    assert Mixup().resolve(FACTS).classes == 4


def test_use_before_resolve_says_so() -> None:
    batch, keys = batch_of(2)
    for part in (Normalize(), Mixup()):
        with pytest.raises(ValueError, match=r"resolve\(facts\)"):
            part(batch, keys)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Flip(p=1.5),
        lambda: Flip(p=float("nan")),
        lambda: PaddedCrop(padding=-1),
        lambda: Normalize(mean=(0.0,), std=()),
        lambda: Normalize(mean=(0.0,), std=(0.0,)),
        lambda: Mixup(alpha=-0.1),
        lambda: Mixup(alpha=float("nan")),
        lambda: Mixup(classes=-1),
    ],
)
def test_settings_out_of_range_are_refused(make) -> None:
    with pytest.raises(ValueError, match=r"(Flip|PaddedCrop|Normalize|Mixup)\..* must"):
        make()
