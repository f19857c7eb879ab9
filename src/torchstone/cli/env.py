"""`torchstone env`: versions and machine, for a bug report; which extras are there, and how to get the others."""

import argparse
from importlib import metadata
from typing import Any

from torchstone.cli import output
from torchstone.cli.parsing import Parser, add_json

HELP = "versions, machine, and which extras are installed"
EXAMPLES = """  torchstone env
  torchstone env --json > environment.json"""

EXTRAS = {
    "vision": ("opencv-python-headless",),
    "text": ("tokenizers",),
    "tables": ("pyarrow",),
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "quant": ("torchao",),
    "tune": ("optuna",),
    "serve": ("starlette", "uvicorn"),
    "hub": ("huggingface-hub",),
    "ray": ("ray",),
    "mlflow": ("mlflow-skinny",),
    "kernels": ("numba",),
}
"""Extra -> its packages, as in pyproject.toml; a test compares the two."""


def add(parser: Parser) -> None:
    add_json(parser, "the environment")


def run(arguments: argparse.Namespace) -> int:
    from torchstone.train.environment import environment

    document: dict[str, Any] = {**environment(), "extras": {name: extra(name) for name in EXTRAS}}
    if arguments.json:
        output.say_json(document)
        return output.DONE
    rows = [(name, shown(value)) for name, value in document.items() if name not in ("packages", "extras")]
    rows += [(f"  {name}", version) for name, version in document["packages"].items()]
    for line in output.table(rows):
        output.say(line)
    output.say("extras")
    for line in output.table([(name, versions(each)) for name, each in document["extras"].items()], indent="  "):
        output.say(line)
    return output.DONE


def extra(name: str) -> dict[str, Any]:
    packages = {package: version_of(package) for package in EXTRAS[name]}
    present = all(packages.values())
    return {"present": present, "packages": packages, "install": None if present else command(name)}


def versions(found: dict[str, Any]) -> str:
    """What is there, or how to get it."""
    if not found["present"]:
        return f"missing: {found['install']}"
    return ", ".join(f"{package} {version}" for package, version in found["packages"].items())


def command(name: str) -> str:
    return f"pip install 'torchstone[{name}]'"


def version_of(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)
