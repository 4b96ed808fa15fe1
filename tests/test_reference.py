"""The site that `make docs` builds, with a reference of all public names."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import timebox

ROOT = Path(__file__).parents[1]
REFERENCE = ROOT / "docs" / "reference"
NAMES = [name for name in timebox.__all__ if name != "__version__"]


def test_every_public_name_is_on_one_page_of_the_reference() -> None:
    pages = "".join(page.read_text(encoding="utf-8") for page in REFERENCE.glob("*.md"))
    assert sorted(re.findall(r"^::: timebox\.(\w+)$", pages, re.MULTILINE)) == sorted(NAMES)


def test_every_page_is_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("nav:")[2]
    pages = {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")}
    assert set(re.findall(r"[\w/-]+\.md", navigation)) == pages


@pytest.mark.integration
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="mkdocs is not installed")
    pytest.importorskip("mkdocstrings", reason="mkdocstrings is not installed")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    env = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    html = "".join(page.read_text(encoding="utf-8") for page in (tmp_path / "reference").glob("*.html"))
    assert [name for name in NAMES if f'id="timebox.{name}"' not in html] == []
    loaded = re.findall(r'<(?:script|link|img)[^>]*(?:src|href)="(https?://[^"]+)"', html)
    assert [address for address in loaded if 'rel="canonical"' not in address] == []
    assert ":func:" not in html and ":class:" not in html
    assert "&gt;&gt;&gt;" in html
