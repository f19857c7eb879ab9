"""Subset: how many samples are left and of which classes, that smaller ones lie inside larger ones, and that the rest is untouched."""

import numpy as np
import pytest
import torch

from torchstone import recipes
from torchstone.core.edits import edit
from torchstone.core.errors import UserError
from torchstone.data import Arrays, Digits, LabelNoise, PlainText, StdlibText, Subset
from torchstone.data.facts import fingerprint, mean_and_std
from torchstone.data.sources.subset import order

WHOLE = Digits().open()


def test_three_hundred_digits_with_every_class_in_its_share():
    left = Subset(samples=300).open()
    assert len(left.train) == 300 and dict(left.facts.sizes) == {**dict(WHOLE.facts.sizes), "train": 300}
    counts = np.array(left.facts.class_counts)
    assert counts.tolist() == torch.bincount(left.train.target).tolist()
    share = np.array(WHOLE.facts.class_counts) * 300 / len(WHOLE.train)
    assert (abs(counts - share) < 1.5).all() and counts.sum() == 300
    assert (left.facts.mean, left.facts.std) == mean_and_std(left.train)
    assert left.facts.fingerprint != WHOLE.facts.fingerprint and left.facts.split_rule.startswith("300 of 1257 training samples; ")
    for name in ("validation", "test"):
        assert torch.equal(getattr(WHOLE, name).inputs, getattr(left, name).inputs)


def test_a_smaller_one_lies_inside_a_larger_one_of_its_seed_alone():
    rows = [set(map(bytes, Subset(samples=n).open().train.inputs.flatten(1).numpy())) for n in (20, 200, 1000)]
    assert rows[0] < rows[1] < rows[2]
    other = set(map(bytes, Subset(samples=200, seed=1).open().train.inputs.flatten(1).numpy()))
    assert not other <= rows[2] and Subset(samples=200, seed=1).open().facts.fingerprint != Subset(samples=200).open().facts.fingerprint


@pytest.mark.parametrize("words", [{"share": 1.0}, {"samples": len(WHOLE.train)}])
def test_all_of_it_is_the_source_bit_for_bit(words):
    left = Subset(**words).open()
    assert left.facts == WHOLE.facts
    assert fingerprint({"x": left.train.inputs}) == fingerprint({"x": WHOLE.train.inputs})


def test_every_beginning_of_the_order_has_the_classes_in_their_shares():
    labels = np.repeat([0, 1, 2], [1, 30, 300])
    rows = order(len(labels), labels, key=5)
    assert sorted(rows.tolist()) == list(range(len(labels)))
    assert set(labels[rows[:3]]) == {0, 1, 2}
    for count in range(3, len(rows)):
        kept = np.bincount(labels[rows[:count]], minlength=3)
        assert kept.min() >= 1 and abs(kept[1] - kept[2] / 10) <= 1.1


def test_pictures_of_a_regression_and_their_groups(tmp_path):
    x = np.arange(400, dtype=np.float32).reshape(100, 4)
    np.savez(tmp_path / "all.npz", x=x, y=x[:, 0], groups=np.arange(100) // 2)
    whole, left = Arrays(path=str(tmp_path / "all.npz")).open(), Subset(source=Arrays(path=str(tmp_path / "all.npz")), share=0.5).open()
    kept = np.isin(whole.train.target.numpy(), left.train.target.numpy())
    assert kept.sum() == len(left.train) == round(len(whole.train) / 2)
    assert left.facts.class_counts == ()
    assert left.groups is not None and whole.groups is not None
    assert left.groups.tolist() == [*whole.groups[: len(whole.train)][kept], *whole.groups[len(whole.train) :]]


def test_a_text_keeps_its_beginning():
    text = StdlibText(max_bytes=4000, context=16)
    whole, left = text.open(), Subset(source=text, share=0.25).open()
    assert len(left.train) == round(len(whole.train) / 4) == dict(left.facts.sizes)["train"]
    rows = np.arange(len(left.train))
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(left.train.fetch(rows), whole.train.fetch(rows), strict=True))
    assert left.facts.fingerprint != whole.facts.fingerprint
    assert Subset(source=text, share=1.0).open().facts == whole.facts


def test_of_noisy_labels_and_through_edits():
    edited = edit(recipes.digits_mini(), ["data=subset", "data.samples=100", "data.source=label_noise", "data.source.share=0.5"])
    assert edited.data == Subset(source=LabelNoise(share=0.5), samples=100)
    assert len(edited.data.open().train) == 100


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({}, "give one of data.samples and data.share"),
        ({"samples": 5, "share": 0.5}, "give only one of data.samples and data.share"),
        ({"samples": 5000}, "data.samples=5000: data=digits has 1257 training samples"),
        ({"samples": 9}, "data.samples=9: at least 10 must be left, one of each of 10 classes"),
        ({"share": 0.001}, "data.share=0.001 of 1257 samples: at least 10 must be left"),
        ({"source": PlainText(), "share": 0.5}, "must be given: a text file"),
        ({"source": StdlibText(max_bytes=4000, context=16), "share": 0.0001}, "of 199 windows is none"),
    ],
)
def test_what_cannot_be_left(words, said):
    with pytest.raises(UserError, match=said):
        Subset(**words).open()


@pytest.mark.parametrize("words", [{"samples": 0}, {"share": 0.0}, {"share": 1.5}, {"share": float("nan")}, {"samples": 10, "seed": -1}])
def test_values_that_mean_nothing(words):
    with pytest.raises(ValueError, match=r"Subset\.(samples|share|seed) must be"):
        Subset(**words)
