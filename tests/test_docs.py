"""What the README and the pages in docs/ say is there and is accepted."""

import re
import shlex
from pathlib import Path

import pytest
from msgspec import structs

from timebox.cli import parse
from timebox.run.summary import FinishedSummary

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NUM_PAGES = 19
TOPICS = (
    "your-photos",
    "reading-the-report",
    "security",
    "serving",
    "shipping",
    "recipes",
    "tuning",
    "scale",
    "callbacks",
    "own-code",
    "adding-a-reader",
    "run-format",
    "how-the-clock-works",
    "glossary",
)


def commands(page: Path) -> list[str]:
    """The calls of timebox in a page's shell blocks, comments left out."""
    blocks = re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line[line.index("timebox ") :] for line in lines if re.search(r"(^|\| )timebox ", line)]


def test_there_is_a_page_for_each_topic_and_the_readme_leads_to_it() -> None:
    assert len(PAGES) == NUM_PAGES
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for topic in TOPICS:
        assert f"(docs/{topic}.md)" in readme


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


def test_the_glossary_has_every_key_of_the_summary() -> None:
    glossary = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    keys = [field.encode_name for field in structs.fields(FinishedSummary)]
    assert len(keys) >= 40
    assert [key for key in keys if f"| `{key}` |" not in glossary] == []
