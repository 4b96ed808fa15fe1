"""The template environment: escaping, undefined variables, lazy import."""

import subprocess
import sys
from pathlib import Path

import jinja2
import pytest

import timebox.reporting
from timebox.reporting.rendering import render, stylesheet

TEMPLATES = Path(timebox.reporting.__file__).parent / "templates"


def test_missing_variable_is_an_error():
    with pytest.raises(jinja2.UndefinedError, match="'names' is undefined"):
        render("comparison.html.j2", rows=[], curves=[], differing_fields=[])


def test_only_charts_are_marked_as_safe():
    marked = [line for path in TEMPLATES.glob("*.j2") for line in path.read_text().splitlines() if "| safe" in line]
    assert len(marked) == 4
    assert all(
        name in "".join(marked) for name in ("chart.svg", "timeline", "evaluation.matrix", "parallel_coordinates")
    )


def test_stylesheet_is_valid_inside_an_svg_file():
    assert not set("<&") & set(stylesheet())


@pytest.mark.parametrize("code", ["import timebox", "import timebox.cli; timebox.cli.parse(['recipes'])"])
def test_jinja2_is_imported_only_for_a_page(code):
    command = [sys.executable, "-c", f"import sys; {code}; sys.exit('jinja2' in sys.modules)"]
    assert subprocess.run(command, check=False).returncode == 0
