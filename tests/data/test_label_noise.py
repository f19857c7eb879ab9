"""Label noise: how many labels are wrong, that nothing else is touched, and that no noise is the source itself."""

import pytest
import torch

from torchstone.core.errors import UserError
from torchstone.data import Digits, LabelNoise, StdlibText
from torchstone.data.facts import fingerprint


def test_a_tenth_of_the_training_labels_is_shuffled_and_nothing_else():
    clean, noisy = Digits().open(), LabelNoise(share=0.1).open()
    wrong = (clean.train.target != noisy.train.target).sum().item()
    chosen = round(0.1 * len(clean.train))
    # Of ten classes of equal size a shuffled sample keeps its class once in ten: 9/10 of 126 with a deviation of about 3.4.
    assert abs(wrong - 0.9 * chosen) < 14 and wrong <= chosen
    assert torch.equal(clean.train.target.bincount(), noisy.train.target.bincount())
    assert torch.equal(clean.train.inputs, noisy.train.inputs)
    for name in ("validation", "test"):
        assert torch.equal(getattr(clean, name).target, getattr(noisy, name).target)
    assert ("training samples with a wrong class by data=label_noise", wrong) in noisy.facts.notes
    assert noisy.facts.fingerprint != clean.facts.fingerprint
    assert noisy.facts.class_counts == clean.facts.class_counts


def test_all_of_them():
    clean, noisy = Digits().open(), LabelNoise(share=1.0).open()
    kept = (clean.train.target == noisy.train.target).float().mean().item()
    assert abs(kept - 0.1) < 0.04  # 1257 samples: 0.04 is nearly five deviations


def test_no_share_is_the_source_bit_for_bit():
    clean, none = Digits().open(), LabelNoise(share=0.0).open()
    assert none.facts == clean.facts
    assert fingerprint({"x": none.train.inputs, "y": none.train.target}) == fingerprint({"x": clean.train.inputs, "y": clean.train.target})


def test_its_seed_alone_decides_who():
    one, same, other = (LabelNoise(seed=seed).open().train.target for seed in (3, 3, 4))
    assert torch.equal(one, same) and not torch.equal(one, other)


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_a_share_is_in_0_to_1(share):
    with pytest.raises(ValueError, match=r"LabelNoise.share must be in \[0, 1\]"):
        LabelNoise(share=share)


def test_a_text_has_no_labels():
    with pytest.raises(UserError, match="no samples with classes"):
        LabelNoise(source=StdlibText(max_bytes=4000, context=16)).open()
