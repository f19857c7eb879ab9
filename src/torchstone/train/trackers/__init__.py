"""What watches a run and cannot change it: a live line, a log, a table, TensorBoard, probes.

A part says what to watch; `open(folder)` gives the object that does it for one run (`core.protocols.Tracker`). Only rank 0 opens any.
Their order does not matter, and a run without them trains the same weights.

| part | writes |
|---|---|
| `Console` | the progress line, on stderr |
| `Jsonl` | `log.jsonl`: a line every few updates, a line an evaluation |
| `Csv` | `results.csv`: a row an evaluation |
| `TensorBoard` | `tensorboard/`: event files |
| `Probes` | `probes.jsonl`: gradients, updates and activations by depth, at a few updates |
"""

from torchstone.train.trackers.console import Console
from torchstone.train.trackers.csv import Csv
from torchstone.train.trackers.jsonl import Jsonl
from torchstone.train.trackers.probes import Probes
from torchstone.train.trackers.tensorboard import TensorBoard

Tracker = Console | Jsonl | Csv | TensorBoard | Probes

__all__ = ["Console", "Csv", "Jsonl", "Probes", "TensorBoard", "Tracker"]
