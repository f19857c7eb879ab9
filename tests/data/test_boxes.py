"""Cutout and Cutmix against the papers' loops over single images."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from torchstone.core import random
from torchstone.core.errors import UserError
from torchstone.core.protocols import Batch, Facts, ImageShape, VectorShape
from torchstone.data.batch_transforms import Cutmix, Cutout

FACTS = Facts(inputs=ImageShape(3, 10, 14), classes=("a", "b", "c", "d"), mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.1))


def batch_of(n: int, dtype: torch.dtype = torch.uint8) -> tuple[Batch, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randint(1, 256, (n, 3, 10, 14), dtype=torch.uint8, generator=generator)
    inputs = inputs if dtype == torch.uint8 else inputs.to(dtype) / 255
    index = torch.arange(n)
    target = torch.randint(4, (n,), generator=generator)
    return Batch(inputs, target, index, torch.ones(n)), random.sample_keys(random.key(0, "boxes"), index)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_cutout_is_the_papers_loop(dtype: torch.dtype) -> None:
    batch, keys = batch_of(60, dtype)
    ours = Cutout(size=0.5, p=0.8, fill="zero")(batch, keys).inputs
    for image, result, (apply, y, x) in zip(batch.inputs.numpy(), ours.numpy(), random.uniform(keys, 3).tolist(), strict=True):
        expected = image.copy()
        row, column = int(y * 10), int(x * 14)
        if apply < 0.8:
            expected[:, max(row - 2, 0) : row + 3, max(column - 2, 0) : column + 3] = 0  # 5 of 10 rows, about the pixel
        np.testing.assert_array_equal(result, expected)
    assert ours.dtype == dtype


def test_cutout_fills_with_the_mean() -> None:
    batch, keys = batch_of(50)
    part = Cutout(size=1.0).resolve(FACTS)
    assert part.mean == FACTS.mean
    out, floats = part(batch, keys).inputs, part(replace(batch, inputs=batch.inputs / 255), keys).inputs
    hidden = out != batch.inputs
    levels = torch.tensor([128, 102, 76], dtype=torch.uint8).view(1, 3, 1, 1).expand_as(out)
    assert torch.equal(out[hidden], levels[hidden])
    torch.testing.assert_close(floats, out / 255, atol=0.51 / 255, rtol=0)
    with pytest.raises(ValueError, match=r"resolve\(facts\)"):
        Cutout()(batch, keys)


def test_cutout_happens_with_its_probability_at_every_pixel() -> None:
    batch, keys = batch_of(4000)
    out = Cutout(size=0.1, p=0.3, fill="zero")(batch, keys).inputs  # a single pixel
    places = (out == 0).all(dim=1).flatten(1)
    assert stats.binomtest(int(places.any(dim=1).sum()), 4000, 0.3).pvalue > 0.01
    assert stats.chisquare(places.sum(dim=0)).pvalue > 0.01


@pytest.mark.parametrize("n", [8, 9])
def test_cutmix_is_the_papers_loop(n: int) -> None:
    batch, keys = batch_of(n)
    mixed = Cutmix(alpha=1.0, classes=4)(batch, keys)
    lams, places = random.beta(keys[: n // 2 * 2 : 2], 1.0).tolist(), random.uniform(keys, 4)[::2, 2:].tolist()
    expected, target = batch.inputs.numpy().copy(), np.eye(4)[batch.target.numpy()]
    hard = target.copy()
    for pair, lam in enumerate(lams):
        a, b = 2 * pair, 2 * pair + 1
        row, column = int(places[pair][0] * 10), int(places[pair][1] * 14)
        high, wide = round(10 * (1 - lam) ** 0.5), round(14 * (1 - lam) ** 0.5)
        box = np.zeros((10, 14), dtype=bool)
        box[max(row - high // 2, 0) : max(row - high // 2 + high, 0), max(column - wide // 2, 0) : max(column - wide // 2 + wide, 0)] = True
        expected[a] = np.where(box, batch.inputs[b], batch.inputs[a])
        expected[b] = np.where(box, batch.inputs[a], batch.inputs[b])
        kept = 1 - box.mean()
        target[a], target[b] = kept * hard[a] + (1 - kept) * hard[b], kept * hard[b] + (1 - kept) * hard[a]
    np.testing.assert_array_equal(mixed.inputs.numpy(), expected)
    np.testing.assert_allclose(mixed.target.numpy(), target, atol=1e-6)
    assert mixed.inputs.dtype == torch.uint8


def test_cutmix_never_mixes_padding_in() -> None:
    batch, keys = batch_of(6, torch.float32)
    batch.weight[torch.tensor([1, 4])] = 0
    batch.inputs[1] = float("nan")
    mixed = Cutmix(alpha=1.0, classes=4)(batch, keys)
    for row in (0, 4, 5):
        assert torch.equal(mixed.inputs[row], batch.inputs[row])
        assert mixed.target[row].tolist() == np.eye(4)[batch.target[row]].tolist()
    assert not torch.equal(mixed.inputs[2], batch.inputs[2])


def test_settings_and_data_that_do_not_fit_are_refused() -> None:
    for make in (
        lambda: Cutout(size=-0.1),
        lambda: Cutout(size=1.1),
        lambda: Cutout(p=float("nan")),
        lambda: Cutmix(alpha=-1.0),
        lambda: Cutmix(classes=-1),
    ):
        with pytest.raises(ValueError, match=r"(Cutout|Cutmix)\..* must be"):
            make()
    for part in (Cutout(), Cutmix()):
        with pytest.raises(UserError, match="needs images, but the data are VectorShape"):
            part.resolve(Facts(inputs=VectorShape(4), classes=("a", "b")))
    with pytest.raises(UserError, match=r"Cutmix\.classes is 3, but the data have 4"):
        Cutmix(classes=3).resolve(FACTS)
    assert Cutmix().resolve(FACTS).classes == 4
    with pytest.raises(ValueError, match=r"Cutmix\.classes is 0: resolve\(facts\)"):
        Cutmix()(*batch_of(2))
