"""What the README and the pages in docs/ say is there and is accepted."""

import ast
import importlib
import re
import shlex
from pathlib import Path

import pytest
from msgspec import structs

from timebox.cli import parse
from timebox.run.summary import FinishedSummary
from timebox.version import VERSION

ROOT = Path(__file__).parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md")), ROOT / "examples" / "README.md"]
NUM_PAGES = 44
MAX_README_WORDS = 950
# Headings of the troubleshooting page: said by pip, a shell and Python.
MESSAGES_OF_OTHER_PROGRAMS = [
    "error: externally-managed-environment",
    "timebox: command not found",
    "has no attribute 'train'",
]


def commands(page: Path) -> list[str]:
    """The calls of timebox in a page's shell blocks, comments left out."""
    blocks = re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line[line.index("timebox ") :] for line in lines if re.search(r"(^|\| )timebox ", line)]


def test_all_pages_are_found() -> None:
    assert len(PAGES) == NUM_PAGES


def test_the_readme_is_short_and_leads_to_every_guide_and_explanation() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(readme.split()) <= MAX_README_WORDS
    pages = [page for folder in ("", "guides", "explanation") for page in (ROOT / "docs" / folder).glob("*.md")]
    links = {f"docs/{page.relative_to(ROOT / 'docs').as_posix()}" for page in pages} - {"docs/index.md"}
    assert len(links) > 15
    assert [link for link in sorted(links) if f"({link})" not in readme] == []
    for command in ("make train", "make test"):
        assert command in readme


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    for link in links:
        if not link.startswith("http"):
            assert (page.parent / link.partition("#")[0]).exists(), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_are_accepted(page: Path) -> None:
    for command in commands(page):
        words = shlex.split(command, comments=True)
        args = parse(words[1 : words.index(">")] if ">" in words else words[1:])
        assert args.verb == words[1]


def test_commands_are_found() -> None:
    assert sum(len(commands(page)) for page in PAGES) > 20


def source_texts() -> str:
    """All string constants of the package, in which each message is found up to its placeholders."""
    trees = (ast.parse(path.read_text(encoding="utf-8")) for path in (ROOT / "src" / "timebox").rglob("*.py"))
    constants = (node.value for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant))
    return "\n".join(text for text in constants if isinstance(text, str))


def test_troubleshooting_quotes_messages_that_exist() -> None:
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    quoted = re.findall(r"^### `([^`]+)`$", page, re.MULTILINE)
    assert len(quoted) >= 20
    texts = source_texts()
    assert [message for message in quoted if message not in texts] == MESSAGES_OF_OTHER_PROGRAMS


def test_the_page_of_the_command_line_is_that_of_the_verbs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "docs" / "site")
    command_line = importlib.import_module("command_line")
    assert command_line.page() == command_line.PAGE.read_text(encoding="utf-8"), "run make reference"


def test_versions_agree() -> None:
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {VERSION}\n" in citation
    assert re.search(rf"^## {re.escape(VERSION)} \(", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)


def test_the_glossary_has_every_key_of_the_summary() -> None:
    glossary = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    keys = [field.encode_name for field in structs.fields(FinishedSummary)]
    assert len(keys) >= 40
    assert [key for key in keys if f"| `{key}` |" not in glossary] == []
