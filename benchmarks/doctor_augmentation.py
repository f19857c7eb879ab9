"""The threshold of the doctor's check of augmentation, on data it was not chosen on: what harmless and harmful augmentations reach.

python benchmarks/doctor_augmentation.py

Of each set the check's own judge is trained once and asked about every augmentation. Harmless keeps what a picture shows (small shifts and
turns, mirrored clothing); "another class" shows one (shoes that face left or right, mirrored; bags upright or on their heads, turned). What
leaves next to nothing of a picture makes no class into another: it is listed by itself, and the check is not made for it.
"""

import tempfile
from pathlib import Path
from typing import Any

import machine
import numpy as np

from torchstone import recipes
from torchstone.core import tree
from torchstone.data import IDX
from torchstone.data.batch_transforms import ColorJitter, Cutout, Flip, PaddedCrop, Warp
from torchstone.doctor.before.augment import CHANGED, CROSSED, JUDGE, Among, changes
from torchstone.doctor.before.patient import Patient
from torchstone.experiment import prepare
from torchstone.experiment.preparing import filled

DATA = next(folder / "shared" / "data" for folder in Path(__file__).resolve().parents if (folder / "shared" / "data").is_dir())
TRAIN, TEST = 400, 120
"""Pictures of each class; half of the second validates."""
STILL = {"crop_area": 1.0, "flip": 0.0, "rotation": 0.0, "translation": 0.0}
HARMLESS: dict[str, Any] = {
    "shifts of 2 pixels": PaddedCrop(padding=2),
    "turns of 10 degrees, shifts of a twentieth": Warp(**STILL | {"rotation": 10.0, "translation": 0.05}),
    "crops of four fifths": Warp(**STILL | {"crop_area": 0.8}),
    "cutout of a quarter of the side": Cutout(size=0.25),
}
MIRRORED = {"mirrored": Flip()}
HEADS = {"turns of 180 degrees": Warp(**STILL | {"rotation": 180.0})}
NOTHING_LEFT = {"cutout of nearly everything": Cutout(size=1.0), "crops of a hundredth": Warp(**STILL | {"crop_area": 0.01})}
COLORS = {"a little brighter or darker": ColorJitter(brightness=0.2, contrast=0.2)}


def fashion(classes: tuple[int, ...], *, mirrored: bool = False, turned: bool = False) -> dict[str, np.ndarray]:
    """Some classes of Fashion-MNIST; `mirrored`, `turned`: every class once more, mirrored or on its head, as a class of its own."""
    splits = IDX(path=str(DATA / "fashion-mnist")).open()
    parts = {}
    for name, each in (("train", TRAIN), ("test", TEST)):
        split: Any = getattr(splits, name)
        target = split.target.numpy()
        rows = np.concatenate([np.flatnonzero(target == label)[:each] for label in classes])
        x = split.fetch(rows)[0].numpy()[:, 0]
        y = np.repeat(np.arange(len(classes)), each)
        again = [x[:, ::-1, ::-1]] if turned else [x[:, :, ::-1]] if mirrored else []
        parts[name] = (np.concatenate([x, *again]), np.concatenate([y, *(y + len(classes) for _ in again)]))
    return arrays(parts)


def cifar(classes: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Some classes of CIFAR-10."""
    import io

    from PIL import Image

    parts = {}
    for name, each in (("train", 3 * TRAIN), ("test", TEST)):
        stored = np.load(DATA / "cifar10-jpeg" / f"cifar10_jpeg_{name}.npz")
        blob, offsets, labels = stored["jpeg"], stored["offsets"], stored["labels"]
        rows = np.concatenate([np.flatnonzero(labels == label)[:each] for label in classes])
        pictures = [np.asarray(Image.open(io.BytesIO(blob[offsets[i] : offsets[i + 1]].tobytes())).convert("RGB")) for i in rows]
        parts[name] = (np.stack(pictures).transpose(0, 3, 1, 2), np.repeat(np.arange(len(classes)), each))
    return arrays(parts)


def arrays(parts: dict[str, tuple[np.ndarray, np.ndarray]]) -> dict[str, np.ndarray]:
    """train, and the test cut into validation and test, as a .npz file of `data=arrays` has them."""
    (x, y), (held_x, held_y) = parts["train"], parts["test"]
    made = {"x_train": x, "y_train": y}
    for start, name in enumerate(("validation", "test")):
        made |= {f"x_{name}": held_x[start::2], f"y_{name}": held_y[start::2]}
    return {name: np.ascontiguousarray(array) for name, array in made.items()}


SETS: dict[str, tuple[Any, dict[str, Any], dict[str, Any]]] = {
    "clothing: trousers, bags, boots": (lambda: fashion((1, 8, 9)), HARMLESS | MIRRORED, {}),
    "clothing: dresses, sandals, bags": (lambda: fashion((3, 5, 8)), HARMLESS | MIRRORED, {}),
    "sneakers that face left and right": (lambda: fashion((7,), mirrored=True), HARMLESS, MIRRORED),
    "boots and sandals, left and right": (lambda: fashion((5, 9), mirrored=True), HARMLESS, MIRRORED),
    "bags upright and on their heads": (lambda: fashion((8, 3), turned=True), HARMLESS, HEADS),
    "photographs: ships, frogs": (lambda: cifar((8, 6)), HARMLESS | MIRRORED | COLORS, {}),
}


def main() -> None:
    found: dict[str, Any] = {}
    for name, (load, harmless, changing) in SETS.items():
        with tempfile.TemporaryDirectory() as folder:
            np.savez(f"{folder}/data.npz", **load())
            model = ["model=conv_net", "model.widths=[16,32]"] if name.startswith("photographs") else []
            edits = ["data=arrays", f"data.path={folder}/data.npz", *model, "run.threads=1", "run.trackers=[]"]
            experiment = tree.edit(recipes.digits_mini(), edits)
            patient = Patient(prepared=prepare(experiment, must_fit=False), asked=experiment, patience=20.0)
            found[name] = measured(patient, {"harmless": harmless, "another class": changing, "next to nothing left": NOTHING_LEFT})
        print(name, found[name], flush=True)
        machine.save("doctor_augmentation", document(found))
    machine.write("doctor_augmentation", document(found))


def measured(patient: Patient, kinds: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """By kind and augmentation the largest share of a class that is confidently taken for one other; and that also lies among it."""
    validation, truth = patient.samples("validation"), patient.labels("validation")
    clean = patient.probabilities(patient.practised.model, validation.inputs, validation.target)
    right = clean.argmax(axis=1) == truth
    thresholds = np.array([clean[truth == k, k].mean() for k in range(clean.shape[1])])

    among = Among(patient)

    def share(transform: Any) -> dict[str, float]:
        found = changes(patient, filled(transform, patient.facts), thresholds, right, among)
        return {
            "taken": round(max((row[2] for row in found), default=0.0), 4),
            "among": round(max((row[3] for row in found), default=0.0), 4),
        }

    shares = {kind: {name: share(transform) for name, transform in each.items()} for kind, each in kinds.items()}
    return {"judge": round(float(right.mean()), 3), "asked": bool(right.mean() >= JUDGE), **shares}


def document(found: dict[str, Any]) -> dict[str, Any]:
    asked = [each for each in found.values() if each["asked"]]
    kept, changed = ([share for each in asked for share in each[kind].values()] for kind in ("harmless", "another class"))
    return {
        "what": "largest share of a class that an augmentation makes the doctor's judge confidently take for one other class",
        "machine": machine.facts(),
        "threshold": CHANGED,
        "threshold_of_a_warning": CROSSED,
        "harmless": len(kept),
        "harmless_warned_of": sum(share["among"] >= CROSSED for share in kept),
        "harmless_noted": sum(share["among"] < CROSSED and share["taken"] >= CHANGED for share in kept),
        "harmless_largest_among": max((share["among"] for share in kept), default=None),
        "another_class": len(changed),
        "another_class_warned_of": sum(share["among"] >= CROSSED for share in changed),
        "another_class_smallest_among": min((share["among"] for share in changed), default=None),
        "each": found,
    }


if __name__ == "__main__":
    main()
