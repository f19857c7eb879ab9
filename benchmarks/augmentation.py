"""Augmentation of whole batches against albumentations and kornia: milliseconds a batch, one thread, the same bytes in, float32 out.

    python benchmarks/augmentation.py --peers PATH [ROUNDS]

`--peers` is a Python interpreter that has albumentations and kornia. Two workloads:
- `small`: crop after 4 pixels of zero padding, mirror, normalize; 2,048 images of 3 x 32 x 32. All sides draw from one distribution
  (the statistics of their outputs are written beside the times).
- `large`: random resized crop (35 % of the area or more), mirror, affine (10 degrees, shear 5 degrees, shift 5 %), brightness, contrast
  and saturation by 0.4, hue by 0.1, normalize; 32 images of 3 x 224 x 224. We sample once where the others do twice, and turn the hue
  in YIQ where they do in HSV.
Albumentations takes and gives images one by one as it is used (channels last, into one array); kornia and we whole batches.
Every side runs in a process of its own, in turn; a side's number is the median of a process, a ratio that of one round. Times are the
process's own (user and system): with one thread and no files that is the wall's on a quiet machine, and fair on a busy one.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import machine
import numpy as np

MEAN, STD = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)
SHAPES = {"small": (2048, 32), "large": (32, 224)}
SIDES = ("ours", "albumentations", "kornia")
TIMINGS = 7


def images(workload: str) -> np.ndarray:
    """[N, H, W, 3] bytes, smooth as photographs are: noise at an eighth of the size, enlarged."""
    count, side = SHAPES[workload]
    small = np.random.default_rng(0).integers(0, 256, (count, side // 8, side // 8, 3), dtype=np.uint8)
    return small.repeat(8, axis=1).repeat(8, axis=2)


def ours(workload: str) -> Callable[[], np.ndarray]:
    import torch

    from torchstone.core import random
    from torchstone.core.allocator import keep_freed_memory
    from torchstone.core.protocols import Batch
    from torchstone.data.batch_transforms import ColorJitter, Flip, Normalize, PaddedCrop, Warp, in_turn

    torch.set_num_threads(1)
    keep_freed_memory()  # as `experiment.prepare` does before every training
    normalize = Normalize(mean=MEAN, std=STD)
    parts = {
        "small": [PaddedCrop(padding=4), Flip(), normalize],
        "large": [
            Warp(crop_area=0.35, flip=0.5, rotation=10, shear=5, translation=0.05),
            ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1),
            normalize,
        ],
    }[workload]
    x = torch.from_numpy(images(workload)).permute(0, 3, 1, 2).contiguous()
    batch = Batch(x, torch.zeros(len(x)), torch.arange(len(x)), torch.ones(len(x)))
    epochs = iter(range(1_000_000))

    def work() -> np.ndarray:
        epoch = next(epochs)
        keys = (random.sample_keys(random.key(number, "augmentation", epoch), batch.index) for number in range(len(parts)))
        return in_turn(batch, zip(parts, keys, strict=True)).inputs.numpy()  # as the training step does

    return work


def albumentations(workload: str) -> Callable[[], np.ndarray]:
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # it would ask the network for a newer one
    import albumentations as A
    import cv2

    cv2.setNumThreads(1)
    normalize = A.Normalize(MEAN, STD)
    chain = A.Compose(
        {
            "small": [
                A.PadIfNeeded(40, 40, border_mode=cv2.BORDER_CONSTANT, fill=0),
                A.RandomCrop(32, 32),
                A.HorizontalFlip(p=0.5),
                normalize,
            ],
            "large": [
                A.RandomResizedCrop((224, 224), scale=(0.35, 1.0), ratio=(3 / 4, 4 / 3)),
                A.HorizontalFlip(p=0.5),
                A.Affine(rotate=(-10, 10), shear={"x": (-5, 5)}, translate_percent=(-0.05, 0.05), p=1, border_mode=cv2.BORDER_REFLECT_101),
                A.ColorJitter((0.6, 1.4), (0.6, 1.4), (0.6, 1.4), (-0.1, 0.1), p=1),
                normalize,
            ],
        }[workload]
    )
    x = images(workload)

    def work() -> np.ndarray:
        out = np.empty(x.shape, dtype=np.float32)
        for row, image in zip(out, x, strict=True):
            row[:] = chain(image=image)["image"]
        return out.transpose(0, 3, 1, 2)

    return work


def kornia(workload: str) -> Callable[[], np.ndarray]:
    import kornia.augmentation as K
    import torch

    torch.set_num_threads(1)
    normalize = K.Normalize(torch.tensor(MEAN), torch.tensor(STD))
    chain = torch.nn.Sequential(
        *{
            "small": [K.RandomCrop((32, 32), padding=4), K.RandomHorizontalFlip(p=0.5), normalize],
            "large": [
                K.RandomResizedCrop((224, 224), scale=(0.35, 1.0), ratio=(3 / 4, 4 / 3)),
                K.RandomHorizontalFlip(p=0.5),
                K.RandomAffine(10, translate=(0.05, 0.05), shear=5, p=1.0, padding_mode="reflection"),
                K.ColorJitter(0.4, 0.4, 0.4, 0.1, p=1.0),
                normalize,
            ],
        }[workload]
    )
    x = torch.from_numpy(images(workload)).permute(0, 3, 1, 2).contiguous()
    return lambda: chain(x.float() / 255).numpy()


def measure(work: Callable[[], np.ndarray]) -> dict[str, float]:
    """Median milliseconds of a batch, and what its outputs look like."""
    out = work()
    times = []
    for _ in range(TIMINGS):
        started = time.process_time()
        out = work()
        times.append(time.process_time() - started)
    corner = out[:, 0, :2, :2]
    return {
        "ms": statistics.median(times) * 1e3,
        "mean": float(out.mean(dtype=np.float64)),
        "std": float(out.std(dtype=np.float64)),
        "corner_std": float(corner.std(dtype=np.float64)),
    }


def compared(rounds: list[dict[str, dict[str, float]]]) -> dict[str, Any]:
    """Medians over the rounds, and of the rounds' ratios."""
    sides = {
        name: {key: round(statistics.median(one[name][key] for one in rounds), 3) for key in ("ms", "mean", "std", "corner_std")}
        for name in SIDES
    }
    ratios = {name: [one[name]["ms"] / one["ours"]["ms"] for one in rounds] for name in SIDES[1:]}
    return {
        "sides": sides,
        "times_faster": {name: round(statistics.median(values), 2) for name, values in ratios.items()},
        "times_faster_range": {name: [round(min(values), 2), round(max(values), 2)] for name, values in ratios.items()},
    }


def versions(interpreter: str) -> dict[str, str]:
    names = ("albumentations", "kornia", "opencv-python-headless", "torch", "numpy")
    code = f"import json; from importlib.metadata import version; print(json.dumps({{name: version(name) for name in {names}}}))"
    return json.loads(subprocess.run([interpreter, "-c", code], capture_output=True, text=True, check=True).stdout)


def main(peers: str, count: int) -> None:
    interpreters = {"ours": sys.executable, "albumentations": peers, "kornia": peers}
    document: dict[str, Any] = {
        "what": "bytes to augmented, normalized float32; ms of processor time a batch, one thread, each side in its own process, in turn",
        "machine": machine.facts(),
        "peers": versions(peers),
        "rounds": count,
    }
    for workload, (images_, pixels) in SHAPES.items():
        options = ("--workload", workload)
        rounds = [{name: machine.side(__file__, name, *options, interpreter=interpreters[name]) for name in SIDES} for _ in range(count)]
        document[workload] = {"images": images_, "side": pixels} | compared(rounds)
    machine.write("augmentation", document)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("rounds", nargs="?", type=int, default=5)
    parser.add_argument("--peers", help="a Python interpreter with albumentations and kornia")
    parser.add_argument("--side", choices=SIDES)
    parser.add_argument("--workload", choices=SHAPES)
    settings = parser.parse_args()
    if settings.side:
        print(json.dumps(measure({"ours": ours, "albumentations": albumentations, "kornia": kornia}[settings.side](settings.workload))))
    elif settings.peers:
        main(settings.peers, settings.rounds)
    else:
        parser.error("--peers PATH is needed")
