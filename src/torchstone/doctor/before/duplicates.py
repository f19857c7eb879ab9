"""The same sample twice: across splits, where it flatters every measurement, and within what is trained on.

Pictures are compared by a difference hash (64 signs of the differences of neighboring pixels, 9 x 8 of them) and then by their pixels;
vectors byte by byte; text by its longer lines. Shapes: N samples.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, UInt64
from torch import Tensor
from torch.nn import functional as F

from torchstone.data.pixels import as_float
from torchstone.doctor.before.check import Seen, Skip, percent
from torchstone.doctor.before.leaving_out import HOW, without
from torchstone.doctor.before.patient import Patient
from torchstone.doctor.finding import Evidence, Finding, images, table

MOST = 12_000
"""Samples of a split that are compared."""
NEAR_BITS = 3
"""Bits in which the hashes of near duplicates may differ."""
NEAR_PIXELS = 0.1
"""Root of the mean squared difference of two thumbnails, over the standard deviation of all, up to which they are one picture."""
SIDE = 12
"""Pixels a side of a thumbnail."""
ACROSS_WARNING, ACROSS_ERROR = 0.005, 0.04
WITHIN = 0.05
LINE = 40
"""Bytes of a line from which on it counts."""
SHARED_LINES = 0.3
SHOWN = 12


def duplicates_across(patient: Patient) -> Seen:
    """Validation and test samples that are in the training split too."""
    if patient.is_text:
        return shared_lines(patient)
    splits = {name: keys_of(patient, name) for name in ("train", "validation", "test")}
    pairs: list[tuple[str, int, int]] = []
    copied: dict[int, str] = {}
    sizes = 0
    for name in ("validation", "test"):
        rows, train = splits[name].rows, splits["train"].rows
        found = alike(splits[name], splits["train"])
        pairs += [(name, int(rows[a]), int(train[b])) for a, b in nearest(found)]
        copied |= {int(train[b]): f"duplicates_across: {name} {rows[a]}" for a, b, _ in found}
        sizes += len(rows)
    share = len(pairs) / max(1, sizes)
    said = f"{len(pairs)} of {sizes} validation and test samples are in train too"
    if share < ACROSS_WARNING:
        return Seen(value=share, threshold=ACROSS_WARNING, said=said)
    finding = Finding(
        check="duplicates_across",
        severity="error" if share >= ACROSS_ERROR else "warning",
        summary=f"{len(pairs)} of {sizes} validation and test samples ({percent(share)}) are in the training split too",
        value=share,
        threshold=ACROSS_WARNING,
        because="they measure what was learnt by heart: a score moves by as much as their share",
        evidence=shown(patient, pairs),
        remedy=without(patient, "train", copied),
        advice=f"train without the copies{told(patient, splits['train'])}, or give them one group (an array `groups`, or data.groups), so "
        "that they stay on one side",
        rank=10,
    )
    return Seen(value=share, threshold=ACROSS_WARNING, said=said, findings=(finding,))


def duplicates_within(patient: Patient) -> Seen:
    """Training samples that are there more than once, and those whose copies have another label."""
    if patient.is_text:
        raise Skip("training windows of a text overlap")
    keys = keys_of(patient, "train")
    copies = within(keys)
    share = len(copies) / max(1, len(keys.rows))
    said = f"{len(copies)} of {len(keys.rows)} training samples repeat another"
    conflicts = contradicting(patient, keys, copies)
    if share < WITHIN and len(conflicts) < max(3, 0.005 * len(keys.rows)):
        return Seen(value=share, threshold=WITHIN, said=said)
    words = f", {len(conflicts)} of them under another label" if conflicts else ""
    disputed = members(copies, conflicts)
    later = {int(keys.rows[a]): f"duplicates_within: train {keys.rows[b]}" for a, b in copies}
    both = later | {int(keys.rows[a]): "duplicates_within: under two labels" for a in disputed}
    dropped = without(patient, "train", both)
    finding = Finding(
        check="duplicates_within",
        severity="warning",
        summary=f"{len(copies)} of {len(keys.rows)} training samples ({percent(share)}) repeat another one{words}",
        value=share,
        threshold=WITHIN,
        because="a sample that is there k times weighs k times, and folds or a random split put its copies on both sides",
        evidence=shown(patient, [("train", int(keys.rows[a]), int(keys.rows[b])) for a, b in (conflicts or copies)]),
        remedy=dropped or without(patient, "train", later),
        advice=f"train with one of each{told(patient, keys)}"
        + ("; settle the label of those that have two" + (" (the list keeps none of them)" if dropped else "") if conflicts else ""),
        rank=10.5 if conflicts else 32,
    )
    return Seen(value=share, threshold=WITHIN, said=said, findings=(finding,))


class Keys:
    """What makes samples alike: a hash each, and thumbnails where hashes alone do not decide."""

    def __init__(
        self, rows: np.ndarray, hashes: UInt64[np.ndarray, " N"], thumbnails: Float[np.ndarray, "N F"] | None, texture: float
    ) -> None:
        self.rows, self.hashes, self.thumbnails, self.texture = rows, hashes, thumbnails, texture


def keys_of(patient: Patient, name: str) -> Keys:
    """Of at most `MOST` samples of a split."""
    split = getattr(patient.prepared.splits, name)
    rows = np.sort(patient.generator("duplicates", name).permutation(len(split))[:MOST]).astype(np.int64)
    pieces = [patient.fetched(name, part)[0] for part in np.array_split(rows, -(-len(rows) // 512))]
    if not isinstance(pieces[0], Tensor):
        raise Skip("the inputs are no single tensor")
    if pieces[0].ndim == 4 and min(pieces[0].shape[2:]) >= 4:
        hashes = np.concatenate([difference_hash(piece) for piece in pieces])
        thumbnails = np.concatenate([thumbnail(piece) for piece in pieces])
        return Keys(rows, hashes, thumbnails, float(thumbnails.std(axis=0).mean()))
    return Keys(rows, np.concatenate([exact_hash(piece) for piece in pieces]), None, 0.0)


def difference_hash(pictures: Tensor) -> UInt64[np.ndarray, " N"]:
    """64 bits a picture [N, C, H, W]: whether each pixel of its gray 9 x 8 version is brighter than its left neighbor."""
    gray = as_float(pictures).float().mean(dim=1, keepdim=True)
    small = F.interpolate(gray, size=(8, 9), mode="bilinear", antialias=True, align_corners=False)[:, 0]
    bits = (small[:, :, 1:] > small[:, :, :-1]).flatten(1).numpy().astype(np.uint64)
    return (bits << np.arange(64, dtype=np.uint64)).sum(axis=1, dtype=np.uint64)


def thumbnail(pictures: Tensor) -> Float[np.ndarray, "N F"]:
    """Pictures of `SIDE` pixels a side at most, as float32 rows."""
    x = as_float(pictures).float()
    size = tuple(min(SIDE, side) for side in x.shape[2:])
    return F.interpolate(x, size=size, mode="bilinear", antialias=True, align_corners=False).flatten(1).numpy()


def exact_hash(rows: Tensor) -> UInt64[np.ndarray, " N"]:
    """64 bits of BLAKE2b over the bytes of each sample."""
    import hashlib

    plain = rows.contiguous().numpy()
    return np.array([int.from_bytes(hashlib.blake2b(row.tobytes(), digest_size=8).digest(), "big") for row in plain], dtype=np.uint64)


def told(patient: Patient, keys: Keys) -> str:
    """How to come by the list, and that there may be more of them."""
    count = len(patient.prepared.splits.train)
    more = f" (of {len(keys.rows):,} of {count:,} training samples: look again afterwards)" if len(keys.rows) < count else ""
    return more if patient.out is not None else f" ({HOW})"


def members(copies: Sequence[tuple[int, int]], of: Sequence[tuple[int, int]]) -> list[int]:
    """Every place that is tied by copies to one of the pairs `of`."""
    group: dict[int, int] = {}
    for place, earlier in copies:  # the earlier of a pair has its group already, or is its own
        group[place] = group.setdefault(earlier, earlier)
    wanted = {group[place] for place, _ in of}
    return sorted(place for place, first in group.items() if first in wanted)


def nearest(found: Sequence[tuple[int, int, float]]) -> list[tuple[int, int]]:
    """Of `alike` the pair of each first place that lies closest."""
    best: dict[int, tuple[float, int]] = {}
    for place, other, far in found:
        if far < best.get(place, (np.inf, 0))[0]:
            best[place] = (far, other)
    return [(place, other) for place, (_, other) in sorted(best.items())]


def alike(these: Keys, those: Keys) -> list[tuple[int, int, float]]:
    """(place in these, place in those, how far apart) of all that are one sample."""
    found = []
    for start in range(0, len(these.rows), 256):
        block = these.hashes[start : start + 256]
        if these.thumbnails is None or those.thumbnails is None:
            hits = np.flatnonzero(np.isin(block, those.hashes))
            found += [(start + a, b, 0.0) for a in hits.tolist() for b in np.flatnonzero(those.hashes == block[a]).tolist()]
            continue
        a, b = np.nonzero(np.bitwise_count(block[:, None] ^ those.hashes[None]) <= NEAR_BITS)
        far = distance(these.thumbnails[start + a], those.thumbnails[b])
        near = far <= NEAR_PIXELS * those.texture
        found += zip((start + a[near]).tolist(), b[near].tolist(), far[near].tolist(), strict=True)
    return found


def within(keys: Keys) -> list[tuple[int, int]]:
    """(place, an earlier place) of each sample that repeats an earlier one."""
    found = []
    if keys.thumbnails is None:
        first: dict[int, int] = {}
        for place, key in enumerate(keys.hashes.tolist()):
            if key in first:
                found.append((place, first[key]))
            first.setdefault(key, place)
        return found
    for start in range(0, len(keys.rows), 256):
        block = keys.hashes[start : start + 256]
        a, b = np.nonzero(np.bitwise_count(block[:, None] ^ keys.hashes[None, : start + len(block)]) <= NEAR_BITS)
        earlier = b < start + a
        a, b = start + a[earlier], b[earlier]
        near = distance(keys.thumbnails[a], keys.thumbnails[b]) <= NEAR_PIXELS * keys.texture
        best: dict[int, int] = {}
        for place, other in zip(a[near].tolist(), b[near].tolist(), strict=True):
            best.setdefault(place, other)
        found += sorted(best.items())
    return found


def distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Root of the mean squared difference of paired rows."""
    return np.sqrt(np.square(a - b).mean(axis=1))


def contradicting(patient: Patient, keys: Keys, copies: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Those of the copies that have another class than what they repeat."""
    if not patient.has_classes or not copies:
        return []
    target = patient.fetched("train", keys.rows)[1].numpy()
    return [(a, b) for a, b in copies if target[a] != target[b]]


def shown(patient: Patient, pairs: Sequence[tuple[str, int, int]]) -> Evidence:
    """Some pairs: as pictures where they are wanted, else as a table."""
    files, captions = [], []
    for number, (name, one, other) in enumerate(pairs[:SHOWN] if patient.is_pictures else ()):
        for split, row, like in ((name, one, ""), ("train", other, "as ")):
            file = patient.picture(f"copy-{name}-{number:02d}-{split}-{row}.png", split, row)
            if file is not None:
                files.append(file)
                captions.append(f"{like}{split} {row}")
    if files:
        return images(files, captions)
    return table(["split", "sample", "training sample"], [list(pair) for pair in pairs[:SHOWN]])


def shared_lines(patient: Patient) -> Seen:
    """Share of the longer lines of the validation text that stand in the training text, word for word."""
    known = set(lines_of(patient, "train"))
    lines = lines_of(patient, "validation")
    if len(lines) < 20:
        raise Skip(f"the validation text looked at has {len(lines)} whole lines of {LINE} bytes or more")
    again = [line for line in lines if line in known]
    share = len(again) / len(lines)
    said = f"{percent(share)} of {len(lines)} longer lines of the validation text stand in the training text"
    if share < SHARED_LINES:
        return Seen(value=share, threshold=SHARED_LINES, said=said)
    finding = Finding(
        check="duplicates_across",
        severity="error" if share >= 0.6 else "warning",
        summary=f"{percent(share)} of the longer lines of the validation text ({len(again)} of {len(lines)}) stand in the "
        f"training text too",
        value=share,
        threshold=SHARED_LINES,
        because=f"lines of {LINE} bytes or more rarely repeat by chance; what is copied is recited, not predicted",
        evidence=table(["line"], [[line.decode(errors="replace")[:100]] for line in again[:SHOWN]]),
        advice="take the copies out of the text",
        rank=10,
    )
    return Seen(value=share, threshold=SHARED_LINES, said=said, findings=(finding,))


def lines_of(patient: Patient, name: str) -> list[bytes]:
    """Whole lines inside the windows of a split, up to about two million bytes."""
    split = getattr(patient.prepared.splits, name)
    width = max(1, split.fetch(np.zeros(1, dtype=np.int64))[0].shape[1])
    rows = np.arange(min(len(split), 2_000_000 // width), dtype=np.int64)
    lines: list[bytes] = []
    for part in np.array_split(rows, -(-len(rows) // 1024)):
        for row in split.fetch(part)[0].to(torch.uint8).numpy():
            lines += [line for line in row.tobytes().split(b"\n")[1:-1] if len(line.strip()) >= LINE]
    return lines
