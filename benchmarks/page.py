"""Makes docs/numbers.md from benchmarks/results/*.json: no number on that page is typed.

python benchmarks/page.py
"""

import json
from pathlib import Path

HERE = Path(__file__).parent


def page() -> str:
    parts = ["# Numbers\n\nMade by `python benchmarks/page.py` from `benchmarks/results/`; each section names its script.\n"]
    for path in sorted((HERE / "results").glob("*.json")):
        document = json.loads(path.read_text())
        machine = document.pop("machine")
        parts.append(f"## {path.stem}\n\n{document.pop('what')} (`benchmarks/{path.stem}.py`).\n")
        parts.append("| number | value |\n|---|---|")
        parts += [f"| {name} | {value} |" for name, value in flattened(document)]
        facts = ", ".join(f"{name} {value}" for name, value in machine.items())
        parts.append(f"\nMachine: {facts}.\n")
    return "\n".join(parts)


def flattened(document: dict, prefix: str = "") -> list[tuple[str, str]]:
    rows = []
    for name, value in document.items():
        if isinstance(value, dict):
            rows += flattened(value, f"{prefix}{name}: ")
        else:
            rows.append((prefix + name, ", ".join(map(str, value)) if isinstance(value, list) else str(value)))
    return rows


if __name__ == "__main__":
    (HERE.parent / "docs" / "numbers.md").write_text(page())
