"""IDX: what the MNIST family is published as comes back byte for byte; whatever is not whole is refused with its file."""

import gzip
import hashlib
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from torchstone.core.errors import UserError
from torchstone.core.protocols import ImageShape
from torchstone.data.sources import IDX

RNG = np.random.default_rng(0)
TRAIN, TEST = (
    (RNG.integers(0, 256, (60, 5, 4), dtype=np.uint8), np.arange(60) % 3),
    (RNG.integers(0, 256, (9, 5, 4), dtype=np.uint8), np.arange(9) % 3),
)


def images_of(pixels: np.ndarray) -> bytes:
    return struct.pack(">iiii", 0x803, *pixels.shape) + pixels.tobytes()


def labels_of(labels: np.ndarray) -> bytes:
    return struct.pack(">ii", 0x801, len(labels)) + labels.astype(np.uint8).tobytes()


def made(folder: Path, mark: str = "-", test: str = "t10k", zipped: bool = False, **content: bytes) -> Path:
    """A set of four files; `content` replaces some (train_images, train_labels, test_images, test_labels)."""
    whole = {
        "train_images": images_of(TRAIN[0]),
        "train_labels": labels_of(TRAIN[1]),
        "test_images": images_of(TEST[0]),
        "test_labels": labels_of(TEST[1]),
    } | content
    for name, data in whole.items():
        split, what = name.split("_")
        stem = f"{'train' if split == 'train' else test}-{what}{mark}{'idx3' if what == 'images' else 'idx1'}-ubyte"
        if zipped:
            (folder / f"{stem}.gz").write_bytes(gzip.compress(data))
        else:
            (folder / stem).write_bytes(data)
    return folder


def everything(split) -> tuple[torch.Tensor, torch.Tensor]:
    return split.fetch(np.arange(len(split), dtype=np.int64))


@pytest.mark.parametrize("mark,test,zipped", [("-", "t10k", False), (".", "t10k", False), ("-", "test", True), (".", "t10k", True)])
def test_every_way_to_name_them(tmp_path: Path, mark: str, test: str, zipped: bool) -> None:
    folder = made(tmp_path, mark, test, zipped)
    splits = IDX(path=str(folder)).open()
    assert splits.facts.inputs == ImageShape(1, 5, 4)
    assert splits.facts.sizes == (("train", 55), ("validation", 5), ("test", 9))
    assert splits.facts.classes == ("0", "1", "2")
    inputs, target = everything(splits.test)
    assert inputs.dtype == torch.uint8
    assert np.array_equal(inputs[:, 0].numpy(), TEST[0]) and np.array_equal(target.numpy(), TEST[1])
    rest = torch.cat([everything(split)[0] for split in (splits.train, splits.validation)])
    assert sorted(row.tobytes() for row in rest.numpy()) == sorted(row.tobytes() for row in TRAIN[0])
    pixels = everything(splits.train)[0].double() / 255
    np.testing.assert_allclose(splits.facts.mean[0], pixels.mean(), rtol=1e-6)
    np.testing.assert_allclose(splits.facts.std[0], pixels.std(correction=0), rtol=1e-6)


def test_classes_are_named_and_the_file_may_be_given(tmp_path: Path) -> None:
    made(tmp_path, zipped=True)
    facts = IDX(path=str(tmp_path / "train-images-idx3-ubyte.gz"), classes=("a", "b", "c")).open().facts
    assert facts.classes == ("a", "b", "c")
    assert facts.class_counts == (18, 18, 19) or sum(facts.class_counts) == 55
    assert "validation is 5 of 60" in facts.split_rule and "stratified" in facts.split_rule


def bad(folder: Path, **content: bytes) -> str:
    with pytest.raises(UserError) as refused:
        IDX(path=str(made(folder, **content))).open()
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_damage_is_refused_with_the_file(tmp_path: Path) -> None:
    images, labels = images_of(TRAIN[0]), labels_of(TRAIN[1])
    assert "train-images-idx3-ubyte: promises 1200 bytes of images, and holds only 1199" in bad(tmp_path, train_images=images[:-1])
    assert "train-images-idx3-ubyte: promises 1200 bytes of images, and holds more" in bad(tmp_path, train_images=images + b"x")
    assert "train-labels-idx1-ubyte: holds 59 labels for 60 images" in bad(tmp_path, train_labels=labels_of(TRAIN[1][:-1]))
    assert "train-images-idx3-ubyte: begins with 0x00000801" in bad(tmp_path, train_images=labels)
    assert "t10k-labels-idx1-ubyte: ends within its header" in bad(tmp_path, test_labels=b"\0\0\x08\x01\0")
    assert "test images are not" in bad(tmp_path, test_images=images_of(TEST[0][:, :4]))
    assert "label 3, which no training image has" in bad(tmp_path, test_labels=labels_of(np.full(9, 3)))
    huge = struct.pack(">iiii", 0x803, 2**31 - 1, 2**31 - 1, 2**31 - 1)
    assert "at most" in bad(tmp_path, train_images=huge)
    assert "none may be empty" in bad(tmp_path, train_images=struct.pack(">iiii", 0x803, -5, 5, 4))
    large = struct.pack(">iiii", 0x803, 2**20, 64, 64) + bytes(100)  # 4 GiB promised: nothing is allocated for it
    assert "holds only 100" in bad(tmp_path, train_images=large)


def test_a_torn_or_garbled_gzip_file_is_refused(tmp_path: Path) -> None:
    made(tmp_path, zipped=True)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    whole = path.read_bytes()
    middle = len(whole) // 2
    for content in (whole[:middle], whole[:-4], whole[:middle] + b"\xff" * 8 + whole[middle + 8 :], whole[:12], b"\x1f\x8b"):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"train-images-idx3-ubyte.gz: .*download it again"):
            IDX(path=str(tmp_path)).open()


def test_missing_files_and_names_that_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data.path must be given"):
        IDX().open()
    with pytest.raises(UserError, match="has no train-images-idx3-ubyte"):
        IDX(path=str(tmp_path)).open()
    made(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(UserError, match="has no t10k-labels-idx1-ubyte"):
        IDX(path=str(tmp_path)).open()
    made(tmp_path)
    with pytest.raises(UserError, match=r"holds label 2; data.classes names 2"):
        IDX(path=str(tmp_path), classes=("a", "b")).open()
    with pytest.raises(ValueError, match=r"IDX.validation must be between 0 and 1, got 1.5"):
        IDX(validation=1.5)


@pytest.mark.slow
def test_fashion_mnist_is_the_published_set(shared_data: Path) -> None:
    splits = IDX(path=str(shared_data / "fashion-mnist")).open()
    assert splits.facts.sizes == (("train", 55_000), ("validation", 5_000), ("test", 10_000))
    assert splits.facts.class_counts == (5_500,) * 10
    assert splits.facts.mean[0] == pytest.approx(0.2860, abs=5e-4) and splits.facts.std[0] == pytest.approx(0.3530, abs=5e-4)
    inputs, target = everything(splits.test)
    raw = gzip.decompress((shared_data / "fashion-mnist" / "t10k-images-idx3-ubyte.gz").read_bytes())
    assert hashlib.sha256(inputs.numpy().tobytes()).digest() == hashlib.sha256(raw[16:]).digest()
    assert torch.bincount(target).tolist() == [1_000] * 10
