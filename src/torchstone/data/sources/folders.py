"""What lies in a folder of class folders: every picture file with its class, and what was left aside. Nothing is opened here."""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from torchstone.core.errors import UserError, clean, plural
from torchstone.data.decode import SUFFIXES

SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
"""Names (in any case) of the folder that holds a split."""
NEVER = frozenset({"__MACOSX", "lost+found", "Thumbs.db"})
"""Left aside like hidden files."""
MOST_CLASSES = 100_000
ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar")
LAYOUT = "the layout is <class>/<picture>, or train/<class>/<picture> with val and test beside train"


@dataclass(frozen=True, slots=True)
class Found:
    """One picture file."""

    name: str
    """Relative to the folder, with "/"."""
    size: int
    mtime_ns: int
    """Both -1 for what cannot be looked at (a link to nowhere): decoding will say why."""


@dataclass(slots=True)
class Listing:
    """The picture files of a folder by split and class."""

    splits: dict[str, dict[str, list[Found]]] = field(default_factory=dict)
    """Split -> class -> its files, all in the order of their names. A folder without splits is all "train"."""
    folders: dict[str, str] = field(default_factory=dict)
    """Split -> the name of its folder; empty for a folder without splits."""
    ignored: Counter[str] = field(default_factory=Counter)
    """Ending -> files that are no pictures by their name, hidden ones apart."""
    outside: int = 0
    """Pictures that lie in no class folder."""
    empty: list[str] = field(default_factory=list)
    """Class folders without a picture."""
    aside: list[str] = field(default_factory=list)
    """Folders beside those of the splits."""


def listed(root: Path) -> Listing:
    """Raises UserError for a folder that is not there, has no pictures, or is laid out in a way that has no one meaning."""
    try:
        listing = _listed(root)
    except OSError as error:
        place = Path(error.filename or root)
        archive = " (an archive: unpack it first)" if _ending(root.name) in ARCHIVES else ""
        inside = f", and every folder in {root} is taken for a class with its pictures" if root in place.parents else ""
        raise UserError(f"{place} cannot be read ({error.strerror}){archive}{inside}; {LAYOUT}") from error
    if not any(listing.splits.values()):
        raise UserError(f"{root}: holds no pictures in class folders{_hint(listing)}; {LAYOUT}")
    return listing


def _listed(root: Path) -> Listing:
    listing = Listing()
    top = _entries(root)
    folders = [entry.name for entry in top if _is_folder(entry)]
    listing.folders = _split_folders(root, folders)
    for split, name in (listing.folders or {"train": ""}).items():
        listing.splits[split] = _classes(root, name, listing)
    if listing.folders:
        listing.aside = sorted(set(folders) - set(listing.folders.values()))
        _take_files(top, listing)
    return listing


def _hint(listing: Listing) -> str:
    if listing.outside:
        return f" (but {listing.outside} beside them)"
    archives = sum(count for ending, count in listing.ignored.items() if ending in ARCHIVES)
    return f" (but {plural(archives, 'archive')}: unpack {'it' if archives == 1 else 'them'} first)" if archives else ""


def _split_folders(root: Path, folders: list[str]) -> dict[str, str]:
    """Split -> folder. A folder "train" that holds no folders is a class (of vehicles, say)."""
    named: dict[str, str] = {}
    for name in folders:
        split = next((split for split, names in SPLIT_NAMES.items() if name.lower() in names), None)
        if split is None or not any(_is_folder(entry) for entry in _entries(root / name)):
            continue
        if split in named:
            raise UserError(f"{root}: holds {named[split]} and {name}, which both mean {split}; keep one of them")
        named[split] = name
    if named and "train" not in named:
        raise UserError(f"{root}: holds {' and '.join(named.values())}, but no train/<class>/<picture>; name the training folder train")
    return {split: named[split] for split in SPLIT_NAMES if split in named}


def _classes(root: Path, below: str, listing: Listing) -> dict[str, list[Found]]:
    classes: dict[str, list[Found]] = {}
    entries = _entries(root / below)
    _take_files(entries, listing)
    for entry in entries:
        if not _is_folder(entry):
            continue
        try:
            entry.name.encode()
        except UnicodeEncodeError:
            raise UserError(f"{root / below}: the folder {os.fsencode(entry.name)!r} is not named in UTF-8; rename it") from None
        prefix = f"{below}/{entry.name}" if below else entry.name
        found = sorted(_pictures(root, prefix, listing, {_identity(root), _identity(root / below)}), key=lambda file: file.name)
        if found:
            classes[entry.name] = found
        else:
            listing.empty.append(prefix)
    if len(classes) > MOST_CLASSES:
        raise UserError(f"{root / below}: {len(classes)} class folders; at most {MOST_CLASSES} are read")
    return classes


def _take_files(entries: list[os.DirEntry[str]], listing: Listing) -> None:
    """Counts the files that lie beside the class folders."""
    for entry in entries:
        if _is_folder(entry):
            continue
        if _ending(entry.name) in SUFFIXES:
            listing.outside += 1
        else:
            listing.ignored[_ending(entry.name)] += 1


def _pictures(root: Path, below: str, listing: Listing, seen: set[tuple[int, int]]) -> Iterator[Found]:
    """The files of a class, those of folders inside it included. Links are followed, but no folder is entered twice."""
    folders = [below]
    while folders:  # not by recursion: a hostile folder is deeper than Python's stack
        below = folders.pop()
        identity = _identity(root / below)
        if identity in seen:
            continue
        seen.add(identity)
        for entry in _entries(root / below):
            name = f"{below}/{entry.name}"
            if _is_folder(entry):
                folders.append(name)
            elif _ending(entry.name) in SUFFIXES:
                yield _found(name, entry)
            else:
                listing.ignored[_ending(entry.name)] += 1


def _found(name: str, entry: os.DirEntry[str]) -> Found:
    try:
        facts = entry.stat()
    except OSError:
        return Found(name, -1, -1)
    return Found(name, facts.st_size, facts.st_mtime_ns)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """What is in it, hidden things aside, in the order of the names."""
    with os.scandir(folder) as found:
        return sorted(
            (entry for entry in found if not entry.name.startswith(".") and entry.name not in NEVER), key=lambda entry: entry.name
        )


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _identity(folder: Path) -> tuple[int, int]:
    facts = os.stat(folder)
    return facts.st_dev, facts.st_ino


def _ending(name: str) -> str:
    return clean(os.path.splitext(name)[1].lower())[:12] or "(none)"
