"""The published JSON Schemas are those of the types, and the golden runs' files agree with them."""

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest

from golden.conftest import HERE, VERSIONS, unpack
from timebox.file_versions import FORMAT_KEY, METRICS_FORMAT, STATUS_FORMAT

SCHEMAS = Path(__file__).parents[1] / "docs" / "schemas"
# The file that each schema describes, in the golden directories of that kind, and how many of them a version has.
FILES = {
    "model": ("run", "model.json", 16),
    "summary": ("run", "summary.json", 15),
    "metrics": ("run", "metrics.jsonl", 15),
    "status": ("run", "status.json", 1),
    "checkpoint": ("run", "checkpoint/manifest.json", 3),
    "group": ("run", "group.json", 1),
    "tune": ("tuned", "tune.json", 1),
    "tune-trials": ("tuned", "trials.jsonl", 1),
    "tune-summary": ("tuned", "summary.json", 1),
    "benchmark": ("benchmarked", "benchmark.json", 1),
    "benchmark-trials": ("benchmarked", "trials.jsonl", 1),
    "benchmark-summary": ("benchmarked", "summary.json", 1),
}
PRINTED = {"doctor": "doctor --json"}  # no file; tests/diagnosis/test_findings.py compares it with its type
OTHERS = ("tuned", "benchmarked", "lr-find")  # golden directories that are no runs


@pytest.fixture(scope="module")
def make() -> ModuleType:
    """docs/schemas/make.py."""
    spec = importlib.util.spec_from_file_location("make_schemas", SCHEMAS / "make.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module", params=VERSIONS)
def directories(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """All golden directories of a version."""
    folder = tmp_path_factory.mktemp("golden")
    names = [file.name.removesuffix(".tar.xz") for file in sorted((HERE / request.param).glob("*.tar.xz"))]
    return [unpack(request.param, name, folder) for name in names]


def contents(file: Path) -> Iterator[dict[str, Any]]:
    """The JSON object of a file, or of each of its lines."""
    text = file.read_text(encoding="utf-8")
    yield from map(json.loads, text.splitlines() if file.suffix == ".jsonl" else [text])


def test_the_published_schemas_are_those_of_the_types(make: ModuleType) -> None:
    assert set(make.TYPES) == {*FILES, *PRINTED}
    assert {path.name for path in SCHEMAS.glob("*.json")} == {f"{name}.schema.json" for name in make.TYPES}
    for name in make.TYPES:
        published = (SCHEMAS / f"{name}.schema.json").read_text(encoding="utf-8")
        assert published == make.text_of(name), "run python docs/schemas/make.py"


def test_every_schema_and_property_is_described(make: ModuleType) -> None:
    for name, described in {**{name: file for name, (_, file, _) in FILES.items()}, **PRINTED}.items():
        schema = json.loads((SCHEMAS / f"{name}.schema.json").read_text(encoding="utf-8"))
        assert schema["$schema"] == make.DIALECT
        assert schema["$id"].startswith(f"urn:timebox-vision:{name}:")
        assert described in schema["title"]
        for definition in schema["$defs"].values():
            assert definition["description"]
            assert "``" not in json.dumps(definition)


@pytest.mark.parametrize("name", FILES)
def test_golden_files_have_the_types(
    request: pytest.FixtureRequest, make: ModuleType, directories: list[Path], name: str
) -> None:
    file_format, types = make.TYPES[name]
    kind_of_directory, file_name, num_files = FILES[name]
    chosen = [one for one in directories if (one.name if one.name in OTHERS else "run") == kind_of_directory]
    files = [directory / file_name for directory in chosen if (directory / file_name).is_file()]
    is_first = "0.1.0" in str(request.node.name)
    assert len(files) == (0 if is_first and file_format is STATUS_FORMAT else num_files)
    for file in files:
        for values in contents(file):
            if file_format is METRICS_FORMAT:
                upgraded = values
            else:
                upgraded = file_format.upgraded(values, str(file))
                del upgraded[FORMAT_KEY]
            kind = next(kind for kind in types if _is_one(upgraded, kind))
            assert set(upgraded) <= set(kind.__struct_encode_fields__), "the schema lacks a key"


def _is_one(values: dict[str, Any], kind: type[msgspec.Struct]) -> bool:
    try:
        msgspec.convert(values, kind)
    except msgspec.ValidationError:
        return False
    return True


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("summary", "test_accuracy", 3.0),
        ("summary", "steps", -1),
        ("model", "seed", -1),
        ("summary", "temperature", 9.0),
    ],
)
def test_a_damaged_value_has_no_type(
    make: ModuleType, directories: list[Path], name: str, key: str, value: object
) -> None:
    (run,) = (run for run in directories if run.name == "auto")
    file_format, types = make.TYPES[name]
    (values,) = contents(run / FILES[name][1])
    upgraded = file_format.upgraded(values, "a file")
    assert any(_is_one(upgraded, kind) for kind in types)
    assert not any(_is_one({**upgraded, key: value}, kind) for kind in types)
