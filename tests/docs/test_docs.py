"""What the pages say works: every command parses, every edit resolves, every Python block runs, every link leads somewhere.

A placeholder is `…` or `<name>`: of a command that holds one, only the verb is checked. In running text a verb alone is a mention of it.
"""

import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from time import process_time
from types import ModuleType

import pytest

from torchstone.cli import train
from torchstone.cli.main import VERBS
from torchstone.cli.parsing import Parser
from torchstone.core import tree
from torchstone.core.errors import UserError
from torchstone.recipes import RECIPES

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMAND = re.compile(r"(?:^|\|\s*|-m )torchstone\b")
"""In a line of a block: at its start, behind a pipe, or run by `torchrun`."""
PLACEHOLDER = re.compile(r"…|<\w+>")
EDIT = re.compile(r"[a-z_]+(?:\.\w+)+[+-]?=\S+")
"""An edit of a nested setting; shorter ones look like Python's keyword arguments."""
MIXED = "batch_transforms=[flip,warp,color_jitter,cutout,mixup,cutmix,normalize]"
"""So that an edit of any augmentation finds its part."""
MOST_SECONDS = 60.0
"""Of the processor, for the Python blocks of one page."""


@dataclass(frozen=True)
class Block:
    """The lines between two fences."""

    language: str
    line: int
    """Of the page, where its first line stands; from 1."""
    lines: tuple[str, ...]


def blocks(text: str) -> tuple[list[Block], str]:
    """The fenced blocks of a page, and the page without them."""
    found, prose, inside, language, start = [], [], None, "", 0
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("```"):
            if inside is None:
                inside, language, start = [], line.removeprefix("```").strip(), number + 1
            else:
                found.append(Block(language, start, tuple(inside)))
                inside = None
        elif inside is None:
            prose.append(line)
        else:
            inside.append(line)
    assert inside is None, f"the block at line {start - 1} is not closed"
    return found, "\n".join(prose)


def commands(text: str) -> Iterator[tuple[str, list[str]]]:
    """(as written, its words from the verb on) of each torchstone command in a page, in blocks and in `code`."""
    fenced, prose = blocks(text)
    lines = [line for block in fenced if block.language in ("", "bash", "sh") for line in block.lines if COMMAND.search(line)]
    lines += [span if span.count(" ") > 1 else f"{span} …" for span in spans(prose) if span.startswith("torchstone ")]
    for line in lines:
        start = COMMAND.search(line)
        assert start is not None
        words = shlex.split(line[start.end() :], comments=True)
        if words:
            yield line, words


def spans(prose: str) -> list[str]:
    """The `code` in running text."""
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose)]


def check_command(line: str, words: list[str]) -> None:
    """Raises UserError or AssertionError for a command that the program would refuse without looking at the disk."""
    name, *rest = words
    if name in ("--help", "--version") or name == "VERB":
        return
    assert name in VERBS, f"there is no verb {name!r}: {line}"
    if PLACEHOLDER.search(line.split("#")[0]):
        return
    verb = VERBS[name]
    parser = Parser(name, verb.HELP, verb.EXAMPLES)
    verb.add(parser)
    arguments = parser.parse(rest)
    if name != "train" or arguments.recipe == "RECIPE":
        return
    file = Path(arguments.recipe)
    recipe = train.file_recipe(file) if file.suffix == ".toml" else arguments.recipe
    if file.suffix == ".toml" and recipe not in RECIPES:  # of a run in a folder of its own: its recipe is not known
        return
    experiment, _ = train.find_recipe(recipe)
    tree.edit(experiment, [*arguments.edits, *train.option_edits(arguments)])


def resolves(edit: str) -> bool:
    """Whether an edit fits the tree of any recipe, as it is or with every augmentation in it."""
    for recipe in RECIPES.values():
        for before in ([], [MIXED], ["model.body=resnet"]):
            try:
                tree.edit(recipe(), [*before, edit])
            except UserError:
                continue
            return True
    return False


def anchors(page: Path) -> set[str]:
    """What `#…` may lead to: its headings, as GitHub spells them."""
    headings = re.findall(r"^#+ (.*)$", blocks(page.read_text(encoding="utf-8"))[1], re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


def links(page: Path) -> list[str]:
    """Where the page's relative links lead."""
    prose = blocks(page.read_text(encoding="utf-8"))[1]
    found = re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", re.sub(r"`[^`]+`", "", prose))
    return [link for link in found if not re.match(r"\w+:", link)]


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_commands(page: Path):
    wrong = []
    for line, words in commands(page.read_text(encoding="utf-8")):
        try:
            check_command(line, words)
        except (UserError, AssertionError) as error:
            wrong.append(f"{line}\n    {error}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_edits_in_the_text(page: Path):
    edits = [span for span in spans(blocks(page.read_text(encoding="utf-8"))[1]) if EDIT.fullmatch(span) and not PLACEHOLDER.search(span)]
    wrong = [edit for edit in edits if not resolves(edit)]
    assert not wrong, f"fit no recipe: {', '.join(wrong)}"


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links(page: Path):
    wrong = []
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            wrong.append(link)
    assert not wrong, f"lead nowhere: {', '.join(wrong)}"


def test_every_page_is_linked():
    reached = {(page.parent / link.partition("#")[0]).resolve() for page in PAGES for link in links(page)}
    lost = [named(page) for page in PAGES[1:] if page not in reached and page != ROOT / "docs" / "README.md"]
    assert not lost, f"no page links to {', '.join(lost)}"


def with_python(pages: list[Path]) -> list[Path]:
    return [page for page in pages if any(block.language == "python" for block in blocks(page.read_text(encoding="utf-8"))[0])]


@pytest.mark.slow
@pytest.mark.parametrize("page", with_python(PAGES), ids=named)
def test_python(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The page's blocks in order, in one namespace, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    module = ModuleType(f"page_{page.stem.replace('-', '_')}")
    monkeypatch.setitem(sys.modules, module.__name__, module)  # a dataclass looks its annotations up there
    started = process_time()
    for block in blocks(page.read_text(encoding="utf-8"))[0]:
        if block.language == "python":
            source = "\n" * (block.line - 1) + "\n".join(block.lines)  # an error names the line of the page
            exec(compile(source, str(page), "exec"), module.__dict__)
    assert process_time() - started < MOST_SECONDS


# --- the checks themselves -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        "torchstone trian digits",
        "torchstone train digit",
        "torchstone train digits optimizer.rate=1",
        "torchstone train digits optimizer=sdg   # a comment",
        "torchstone train runs/digits/run/experiment.toml optimizer.rate=1",
        "torchstone train digits --sead 1",
        "torchstone train digits run.seed=1 --seed 2",
        "find . | torchstone predict",
        "torchrun --nproc-per-node 2 -m torchstone train digits run.epochs=0",
    ],
)
def test_a_wrong_command_is_found(line: str):
    [(written, words)] = commands(f"```\n{line}\n```\n")
    with pytest.raises((UserError, AssertionError)):
        check_command(written, words)


def test_what_is_a_command():
    block = "```\ntorchstone train digits …\nnext torchstone eval RUN\n```\n```python\ntorchstone.load()\n```\n"
    page = f"Say `torchstone runs`, or just `torchstone`.\n{block}"
    assert [words for _, words in commands(page)] == [["train", "digits", "…"], ["runs", "…"]]


def test_wrong_edits_are_found():
    assert resolves("run.epochs=3") and resolves("cutmix.alpha=0.5") and resolves("model.body.depth=18")
    assert not resolves("run.epoch=3") and not resolves("optimizer.lr=fast")
