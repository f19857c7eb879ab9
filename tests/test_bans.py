"""What no file of the package may contain: code that runs data, pickles, torchvision, catch-all modules, overlong files."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "torchstone"
FILES = sorted(SOURCE.rglob("*.py"))
MOST_LINES = 450

BANNED_IMPORTS = {
    "pickle": "data must never run code",
    "cPickle": "data must never run code",
    "cloudpickle": "data must never run code",
    "dill": "data must never run code",
    "joblib": "its files are pickles",
    "marshal": "data must never run code",
    "shelve": "its files are pickles",
    "torchvision": "never a dependency",
    "imp": "code is not imported by name",
}
BANNED_CALLS = {
    "eval": "runs data",
    "exec": "runs data",
    "__import__": "imports by name",
    "importlib.import_module": "imports by name",
    "importlib.util.spec_from_file_location": "imports by name",
    "torch.load": "reads pickles",
    "torch.save": "writes pickles; core/store writes tensors",
    "yaml.load": "runs data",
    "yaml.unsafe_load": "runs data",
    "os.system": "runs a shell",
    "os.popen": "runs a shell",
    "subprocess.getoutput": "runs a shell",
    "random.seed": "seeds a global generator",
    "np.random.seed": "seeds a global generator",
    "numpy.random.seed": "seeds a global generator",
}
BANNED_METHODS = {"extractall": "writes where the archive says", "import_module": "imports by name"}
BANNED_KEYWORDS = {"shell": "runs a shell", "allow_pickle": "data must never run code"}
# The one floor that draws; everybody below returns plain figure data.
ONLY_IN = {"matplotlib": "report", "jinja2": "report"}
# The package's front imports its own modules late, by names written in it: `import torchstone` stays free of torch.
SPARED = {("__init__.py", "importlib.import_module")}
CATCH_ALL = {"utils", "util", "common", "helpers", "helper", "misc"}


def dotted(node: ast.expr) -> str:
    """`a.b.c` as text, empty for what is no plain name."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        owner = dotted(node.value)
        return f"{owner}.{node.attr}" if owner else ""
    return ""


def imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
        return [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return []


def is_part(node: ast.AST) -> bool:
    """A dataclass made with kw_only=True: something the experiment tree reads."""
    decorators = node.decorator_list if isinstance(node, ast.ClassDef) else []
    return any(
        isinstance(d, ast.Call) and dotted(d.func).endswith("dataclass") and "kw_only" in {k.arg for k in d.keywords} for d in decorators
    )


def sins(tree: ast.Module, package: str) -> Iterator[str]:
    """Everything banned in one parsed file, as "line: what (why)"."""
    postponed = False
    for node in ast.walk(tree):
        for name in imported(node):
            top = name.split(".")[0]
            if top in BANNED_IMPORTS:
                yield f"{node.lineno}: import {top} ({BANNED_IMPORTS[top]})"
            if top in ONLY_IN and package != ONLY_IN[top]:
                yield f"{node.lineno}: import {top} (only {ONLY_IN[top]}/ may)"
            if name in BANNED_CALLS:
                yield f"{node.lineno}: from {name} ({BANNED_CALLS[name]})"
            postponed = postponed or name == "__future__.annotations"
        if isinstance(node, ast.Call):
            name = dotted(node.func)
            if name in BANNED_CALLS:
                yield f"{node.lineno}: {name}() ({BANNED_CALLS[name]})"
            if isinstance(node.func, ast.Attribute) and node.func.attr in BANNED_METHODS and name not in BANNED_CALLS:
                yield f"{node.lineno}: .{node.func.attr}() ({BANNED_METHODS[node.func.attr]})"
            for keyword in node.keywords:
                if keyword.arg in BANNED_KEYWORDS and not (isinstance(keyword.value, ast.Constant) and keyword.value.value is False):
                    yield f"{node.lineno}: {keyword.arg}= ({BANNED_KEYWORDS[keyword.arg]})"
    if postponed and any(is_part(node) for node in ast.walk(tree)):
        yield "1: from __future__ import annotations (the tree reads a part's real annotations)"


def where(path: Path) -> str:
    return path.relative_to(SOURCE).as_posix()


@pytest.mark.parametrize("path", FILES, ids=where)
def test_file_holds_nothing_banned(path: Path) -> None:
    package = path.relative_to(SOURCE).parts[0]
    spared = [f": {name}()" for file, name in SPARED if file == where(path)]
    found = [
        sin for sin in sins(ast.parse(path.read_text(encoding="utf-8"), filename=str(path)), package) if not any(s in sin for s in spared)
    ]
    assert not found, f"{where(path)}: " + "; ".join(found)


@pytest.mark.parametrize("path", FILES, ids=where)
def test_file_is_one_idea(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= MOST_LINES, f"{where(path)} has {lines} lines; {MOST_LINES} is the most"
    named = set(path.relative_to(SOURCE).with_suffix("").parts) & CATCH_ALL
    assert not named, f"{where(path)}: say what is in it instead of {named}"


def test_file_opens_with_what_it_is() -> None:
    silent = [where(path) for path in FILES if ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) is None]
    assert not silent


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from pickle import loads",
        "def f():\n    import torchvision.ops",
        "x = torch.load('f')",
        "from torch import load",
        "eval('1')",
        "exec(text)",
        "yaml.load(f)",
        "importlib.import_module(name)",
        "__import__(name)",
        "subprocess.run(c, shell=True)",
        "tar.extractall(p)",
        "np.load(f, allow_pickle=yes)",
        "import matplotlib.pyplot as plt",
        "from __future__ import annotations\n@dataclass(frozen=True, kw_only=True)\nclass A:\n    x: int = 0",
    ],
)
def test_the_ban_bites(text: str) -> None:
    assert list(sins(ast.parse(text), "train"))


@pytest.mark.parametrize(
    "text", ["model.eval()", "subprocess.run(c, shell=False)", "np.load(f, allow_pickle=False)", "from torch import nn"]
)
def test_the_ban_spares_what_is_fine(text: str) -> None:
    assert not list(sins(ast.parse(text), "train"))
