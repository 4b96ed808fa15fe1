"""The workflows and templates of the repository: they parse, and name targets, Pythons and versions that exist."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
OTHER_FILES = [
    *sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml")),
    ROOT / ".pre-commit-config.yaml",
    ROOT / "CITATION.cff",
]
TARGETS = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def loaded(path: Path) -> dict[str, Any]:
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert isinstance(values, dict)
    return values


def jobs() -> Iterator[tuple[str, dict[str, Any]]]:
    for path in WORKFLOWS:
        for name, job in loaded(path)["jobs"].items():
            yield f"{path.name}: {name}", job


def test_all_are_found() -> None:
    assert [path.stem for path in WORKFLOWS] == ["docs", "package", "test", "weekly"]
    assert len(OTHER_FILES) == 5
    assert len(dict(jobs())) == 7


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_may_read_and_is_not_run_twice(path: Path) -> None:
    values = loaded(path)
    assert values["permissions"] == {"contents": "read"}
    assert values["concurrency"]["cancel-in-progress"] is True
    assert values[True], "YAML reads the key `on` as true"


@pytest.mark.parametrize(("name", "job"), list(jobs()))
def test_a_job_ends_and_its_steps_exist(name: str, job: dict[str, Any]) -> None:
    assert 0 < job["timeout-minutes"] <= 180
    for step in job["steps"]:
        assert ("uses" in step) != ("run" in step), name
        if "uses" in step:
            assert re.fullmatch(r"[\w-]+/[\w-]+@v\d+", step["uses"]), name
        for targets in re.findall(r"\bmake ([a-z ]+)", step.get("run", "")):
            assert set(targets.split()) <= TARGETS, name


def test_the_pythons_are_those_of_the_package() -> None:
    tested = {
        version
        for _, job in jobs()
        for version in [
            *job.get("strategy", {}).get("matrix", {}).get("python", []),
            *(one["python"] for one in job.get("strategy", {}).get("matrix", {}).get("include", [])),
        ]
    }
    declared = {
        found[1]
        for one in PROJECT["classifiers"]
        if (found := re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", one))
    }
    assert declared <= tested, "a Python that is declared is tested; newer ones may be tested before they are declared"
    assert PROJECT["requires-python"] == f">={min(declared, key=lambda one: int(one.partition('.')[2]))}"


def test_the_lowest_torch_is_tested() -> None:
    lowest = next(re.search(r">=(\d+\.\d+)", one) for one in PROJECT["dependencies"] if one.startswith("torch"))
    assert lowest
    assert f'torch: "=={lowest[1]}.*"' in (ROOT / ".github" / "workflows" / "test.yml").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", OTHER_FILES, ids=lambda path: path.name)
def test_other_files_parse(path: Path) -> None:
    assert loaded(path)


def test_the_templates_of_issues_ask_for_something() -> None:
    for path in OTHER_FILES:
        if path.parent.name == "ISSUE_TEMPLATE" and path.name != "config.yml":
            fields = loaded(path)["body"]
            assert all(field["attributes"]["label"] for field in fields)
            assert any(field.get("validations", {}).get("required") for field in fields)
