"""Bits per byte of the recipe `gpt-bytes` on a text of yours, and how long it took.

python benchmarks/gpt_bytes.py TEXT [EDIT ...]      trains with all cores, then writes the result
python benchmarks/gpt_bytes.py --read RUN           writes the result of a finished run
"""

import json
import sys
import tempfile
from pathlib import Path

import machine


def main(words: list[str]) -> None:
    facts = machine.facts()
    if words[0] == "--read":
        write(Path(words[1]), facts)
        return
    import torchstone

    with tempfile.TemporaryDirectory() as folder:
        text, *edits = words
        edits = ["data=plain_text", f"data.path={text}", "data.stride=64", *edits]
        write(torchstone.train(torchstone.recipes.gpt_bytes(), *edits, out=Path(folder) / "run").folder, facts)


def write(run: Path, facts: dict) -> None:
    metrics = json.loads((run / "metrics.json").read_text())
    environment = json.loads((run / "environment.json").read_text())
    machine.write(
        "gpt_bytes",
        {
            "what": "recipe gpt-bytes (4 layers, 256 wide, fp32, Muon + AdamW, rotary): bits per byte of tiny Shakespeare, split 80/10/10",
            "machine": facts | {"threads": environment.get("threads")},
            "steps": metrics["steps"],
            "seconds": metrics["cost"]["seconds"],
            "parameters": metrics["cost"]["parameters"],
            "test_bits_per_byte": round(metrics["final"]["bits_per_byte"], 3),
            "validation_bits_per_byte": round(metrics["best"]["bits_per_byte"], 3),
        },
    )


if __name__ == "__main__":
    main(sys.argv[1:])
