"""Digits: the split is fixed, stratified and complete, and the facts are those of the training split."""

import hashlib

import numpy as np
import torch
from sklearn.datasets import load_digits

from torchstone.core.protocols import ImageShape, Split
from torchstone.data import Digits


def everything(split):
    return split.fetch(np.arange(len(split), dtype=np.int64))


def test_the_three_splits_are_the_bundled_images_each_once() -> None:
    splits = Digits().open()
    images, labels = zip(*(everything(s) for s in (splits.train, splits.validation, splits.test)), strict=True)
    ours = torch.cat(images).reshape(-1, 64).numpy()
    pixels, target = load_digits(return_X_y=True)
    theirs = (pixels / 16).astype(np.float32)
    mine = sorted((row.tobytes(), int(label)) for row, label in zip(ours, torch.cat(labels), strict=True))
    assert mine == sorted((row.tobytes(), int(label)) for row, label in zip(theirs, target, strict=True))
    assert isinstance(splits.train, Split)
    assert splits.facts.sizes == (("train", 1257), ("validation", 270), ("test", 270))


def test_every_class_has_its_share_everywhere() -> None:
    splits = Digits().open()
    for split in (splits.train, splits.validation, splits.test):
        share = torch.bincount(everything(split)[1], minlength=10) / len(split)
        assert share.min() > 0.09
        assert share.max() < 0.11


def test_facts_are_those_of_the_training_split() -> None:
    facts = Digits().open().facts
    images, labels = everything(Digits().open().train)
    assert facts.inputs == ImageShape(1, 8, 8)
    assert facts.classes == tuple("0123456789")
    assert facts.class_counts == tuple(np.bincount(labels.numpy()))
    np.testing.assert_allclose(facts.mean, [images.numpy().mean(dtype=np.float64)], rtol=1e-12)
    np.testing.assert_allclose(facts.std, [images.numpy().astype(np.float64).std()], rtol=1e-12)
    assert images.dtype == torch.float32
    assert labels.dtype == torch.int64


def test_the_split_is_pinned_and_leaves_global_generators_alone() -> None:
    before = (np.random.get_state()[1].copy(), torch.get_rng_state())
    first, second = Digits().open().facts, Digits().open().facts
    assert first == second
    assert len(first.fingerprint) == len(hashlib.sha256().hexdigest())
    # Pinned: another split would make every stored run a run on other data.
    assert first.fingerprint.startswith("c0c526e1ecea7a37")
    np.testing.assert_array_equal(before[0], np.random.get_state()[1])
    assert torch.equal(before[1], torch.get_rng_state())
