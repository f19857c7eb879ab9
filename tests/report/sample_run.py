"""A run folder as a training of pictures leaves it, written by hand: every file the report reads, and none of the weights."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors.numpy import save_file

CLASSES = ["T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"]

EXPERIMENT = """
[data]
kind = "image_folder"
path = "/data/clothes"
cache_side = 28
on_bad = "skip"

[task]
kind = "classify"

[model]
kind = "fast_conv_net"
widths = [48, 96, 192]
activation = "gelu"

[method]
kind = "method"
sample_transforms = []
stop = "none"

[[method.batch_transforms]]
kind = "flip"
p = 0.5

[[method.batch_transforms]]
kind = "mixup"
alpha = 0.4

[method.loss]
kind = "cross_entropy"
smoothing = 0.1
class_weights = []

[method.optimizer]
kind = "muon"
lr = 0.02
momentum = 0.95

[method.optimizer.rest]
kind = "adamw"
lr = 0.003

[[method.schedules]]
kind = "cosine"
path = "optimizer.lr"
warmup = 0.1

[method.averaging]
kind = "ema"
decay = 0.99

[run]
kind = "run"
seed = 0
epochs = 8
batch_size = 256
precision = "bf16"
"""

EDITS = [
    {"path": "method.averaging", "before": "none", "after": "ema"},
    {"path": "method.batch_transforms.mixup.alpha", "before": "0.2", "after": "0.4"},
    {"path": "run.epochs", "before": "12", "after": "8"},
]


def scores(n: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(outputs float32 [n, classes], target int64 [n]): mostly right, wrong more often between neighbors."""
    draw = np.random.default_rng(seed)
    target = np.arange(n, dtype=np.int64) % classes
    outputs = draw.normal(size=(n, classes)).astype(np.float32)
    outputs[np.arange(n), target] += 5
    hard = (target % 3 == 0) & (draw.random(n) < 0.4)
    outputs[hard, (target[hard] + 2) % classes] += 5
    return outputs, target


def confusion_of(outputs: np.ndarray, target: np.ndarray) -> np.ndarray:
    classes = outputs.shape[1]
    return np.bincount(target * classes + outputs.argmax(axis=1), minlength=classes**2).reshape(classes, classes)


def drawn(label: int, draw: np.random.Generator) -> Image.Image:
    """A small gray picture."""
    pixels = draw.integers(0, 60, size=(28, 28))
    pixels[4 + label : 24, 8 : 12 + label] += 150
    return Image.fromarray(pixels.astype(np.uint8), "L")


def sample_run(
    folder: Path,
    *,
    n: int = 2000,
    classes: list[str] = CLASSES,
    picture: Callable[[int, np.random.Generator], Image.Image] = drawn,
) -> Path:
    """Makes the run folder; returns it."""
    folder.mkdir(parents=True)
    outputs, target = scores(n, len(classes))
    counts = confusion_of(outputs, target)
    save_file({"index": np.arange(n), "outputs": outputs, "target": target}, folder / "predictions.safetensors")
    (folder / "experiment.toml").write_text(EXPERIMENT)
    write_json(folder / "environment.json", environment())
    write_json(folder / "artifact.json", artifact(classes, n))
    write_json(folder / "metrics.json", metrics(counts, classes))
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log()))
    write_pictures(folder / "pictures", outputs, target, classes, picture)
    return folder


def write_json(path: Path, document: Any) -> None:
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def environment() -> dict[str, Any]:
    rows = [
        ("fp32", "contiguous", False, 2, 0.2218),
        ("fp32", "channels_last", False, 2, 0.1742),
        ("bf16", "contiguous", False, 2, 0.1205),
        ("bf16", "channels_last", False, 2, 0.0873),
        ("bf16", "channels_last", True, 2, 0.0691),
    ]
    names = ("precision", "memory_format", "compile", "threads", "seconds_per_step")
    return {
        "torchstone": "0.1.0",
        "python": "3.11.7",
        "platform": "Linux-6.1-x86_64-with-glibc2.36",
        "packages": {"torch": "2.13.0+cpu", "numpy": "2.4.6", "pillow": "13.0.0"},
        "processor": "AMD EPYC",
        "cores": 2,
        "threads": 2,
        "memory_gb": 25.3,
        "cpu_capability": "AVX512",
        "accelerators": [],
        "git": "9cbb057",
        "recipe": "fashion",
        "edits": EDITS,
        "speed": {"rows": [dict(zip(names, row, strict=True)) | {"chosen": row == rows[-1]} for row in rows], "seconds": 8.4},
        "notes": [["skipped pictures", 2], ["pictures in two splits", 1]],
    }


def artifact(classes: list[str], n: int) -> dict[str, Any]:
    return {
        "version": 1,
        "task": {"kind": "classify"},
        "model": {"kind": "fast_conv_net", "widths": [48, 96, 192]},
        "facts": {
            "inputs": {"kind": "image_shape", "channels": 1, "height": 28, "width": 28},
            "classes": classes,
            "class_counts": [5000 - 37 * (i % 7) for i in range(len(classes))],
            "sizes": [["train", 49_000], ["validation", 9_000], ["test", n]],
            "split_rule": "the folders train and test as they are; 15 % of train validate, stratified by class, the same for every seed",
            "fingerprint": "c0c526e1ecea7a37fbcbc6f90ab412b57bcd7112a890bee507607df2c5225a12",
            "notes": [["skipped pictures", 2], ["pictures in two splits", 1]],
        },
        "weights": {"checkpoint": "best", "file": "average"},
    }


def metrics(counts: np.ndarray, classes: list[str]) -> dict[str, Any]:
    right, truth, said = np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)
    f1 = 2 * right / (truth + said)
    per_class = [
        {"class": name, "count": int(truth[i]), "precision": right[i] / said[i], "recall": right[i] / truth[i], "f1": f1[i]}
        for i, name in enumerate(classes)
    ]
    final = {
        "loss": 0.2317,
        "accuracy": float(right.sum() / truth.sum()),
        "top_5_accuracy": 0.9984,
        "balanced_accuracy": float((right / truth).mean()),
        "macro_f1": float(f1.mean()),
        "calibration_error": 0.0213,
        "confusion": counts.tolist(),
        "per_class": per_class,
    }
    cost = {"seconds": 302.7, "samples_per_s": 1295.2, "peak_memory_mb": 1840.3, "parameters": 1_972_792, "macs": 87_220_224}
    best = {"step": 1440, "selected_by": "accuracy", "loss": 0.21, "accuracy": 0.94}
    return {"final": final, "best": best, "cost": cost, "status": "done", "steps": 1536, "skipped": 0, "ending": "done"}


def log(steps: int = 1536, every: int = 192) -> list[dict[str, Any]]:
    """Lines as the tracker jsonl writes them."""
    draw = np.random.default_rng(1)
    lines: list[dict[str, Any]] = []
    for step in range(1, steps + 1):
        fall = math.exp(-step / 260)
        if step == 1 or step % 10 == 0:
            rate = 0.02 * min(step / 150, 0.5 + 0.5 * math.cos(math.pi * step / steps))
            noise = float(draw.normal())
            lines.append({"step": step, "loss": 0.52 + 1.75 * fall + 0.03 * noise, "lr": rate, "samples_per_s": 1290.0, "norm": 0.4 + fall})
        if step % every == 0:
            known = {"accuracy": 0.94 - 0.3 * fall, "balanced_accuracy": 0.938 - 0.32 * fall, "macro_f1": 0.937 - 0.33 * fall}
            lines.append({"step": step, "eval": {"loss": 0.21 + 0.9 * fall, **known, "calibration_error": 0.02 + 0.05 * fall}})
    return lines


def write_pictures(
    folder: Path, outputs: np.ndarray, target: np.ndarray, classes: list[str], picture: Callable[[int, np.random.Generator], Image.Image]
) -> None:
    folder.mkdir()
    draw = np.random.default_rng(2)
    probability = np.exp(outputs) / np.exp(outputs).sum(axis=1, keepdims=True)
    said = outputs.argmax(axis=1)
    wrong = sorted(np.flatnonzero(said != target).tolist(), key=lambda i: -probability[i].max())[:18]
    index: dict[str, list[dict[str, Any]]] = {"mistakes": [], "augmented": [], "originals": []}
    for k, i in enumerate(wrong):
        picture(int(target[i]), draw).save(folder / f"mistake-{k:02}.png")
        index["mistakes"].append(
            {
                "file": f"mistake-{k:02}.png",
                "index": i,
                "truth": classes[target[i]],
                "label": classes[said[i]],
                "probability": float(probability[i].max()),
                "truth_probability": float(probability[i, target[i]]),
                "name": f"test/{classes[target[i]]}/{i:05}.png",
            }
        )
    for k in range(12):
        label = k % len(classes)
        original = picture(label, draw)
        turned = original.transpose(Image.Transpose.FLIP_LEFT_RIGHT).rotate(8)
        for kind, file, shown in (("originals", f"original-{k:02}.png", original), ("augmented", f"augmented-{k:02}.png", turned)):
            shown.save(folder / file)
            index[kind].append({"file": file, "label": classes[label]})
    write_json(folder / "index.json", index)
