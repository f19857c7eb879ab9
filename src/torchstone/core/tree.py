"""The tree: one frozen dataclass that says everything about an experiment, read and written strictly. It imports no torch.

`parts` reads annotations; `codec` turns the tree into plain values and back; `documents` does TOML, JSON and the digest;
`paths` finds, reads and replaces places; `edits` is the language of the command line. Other packages import from here.
"""

from .codec import decode, encode, validated
from .documents import digest, from_json, from_toml, to_json, to_toml
from .edits import edit, parse_value
from .parts import FieldFacts, FilePath, Slot, choices, fields_of, is_part, kind_of, names_of, slot_of, slots_of
from .paths import Setting, diff, get, paths, put, resolve_path, settable

__all__ = [
    "FieldFacts",
    "FilePath",
    "Setting",
    "Slot",
    "choices",
    "decode",
    "diff",
    "digest",
    "edit",
    "encode",
    "fields_of",
    "from_json",
    "from_toml",
    "get",
    "is_part",
    "kind_of",
    "names_of",
    "parse_value",
    "paths",
    "put",
    "resolve_path",
    "settable",
    "slot_of",
    "slots_of",
    "to_json",
    "to_toml",
    "validated",
]
