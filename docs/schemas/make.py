"""Writes the JSON Schemas of timebox's files: python docs/schemas/make.py [FOLDER]

They are generated from the types of the files; tests/test_schemas.py fails where the published ones differ.
"""

import inspect
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from timebox.benchmarking.directory import BenchmarkFile
from timebox.benchmarking.summary import BenchmarkSummary
from timebox.benchmarking.trials import FailedTrial, ScoredTrial
from timebox.diagnosis import findings
from timebox.file_versions import (
    BENCHMARK_FORMAT,
    BENCHMARK_SUMMARY_FORMAT,
    BENCHMARK_TRIAL_FORMAT,
    CHECKPOINT_FORMAT,
    DIAGNOSIS_FORMAT,
    FORMAT_KEY,
    METRICS_FORMAT,
    MODEL_FORMAT,
    RANKS_FORMAT,
    STATUS_FORMAT,
    SUMMARY_FORMAT,
    TUNE_FORMAT,
    TUNE_SUMMARY_FORMAT,
    TUNE_TRIAL_FORMAT,
    FileFormat,
)
from timebox.run.checkpoint import Manifest, ResumeState
from timebox.run.metrics_log import AbortLine, FormatLine, RollbackLine, StepLine, ValidationLine
from timebox.run.model_config import TrainedModelConfig
from timebox.run.ranks_file import RanksRecord
from timebox.run.summary import FinishedSummary, StoppedSummary, TrainingStatus
from timebox.tuning.directory import RepeatedTrial, SearchFile
from timebox.tuning.outcome import SearchSummary
from timebox.tuning.study import SearchTrial

HERE = Path(__file__).resolve().parent
DIALECT = "https://json-schema.org/draft/2020-12/schema"
# Each published schema: the file, and the types of which its content, or a line of it, is one.
TYPES: Mapping[str, tuple[FileFormat, Sequence[type]]] = {
    "model": (MODEL_FORMAT, (TrainedModelConfig,)),
    "summary": (SUMMARY_FORMAT, (FinishedSummary, StoppedSummary)),
    "status": (STATUS_FORMAT, (TrainingStatus,)),
    "metrics": (METRICS_FORMAT, (StepLine, ValidationLine, RollbackLine, AbortLine, FormatLine)),
    "checkpoint": (CHECKPOINT_FORMAT, (Manifest,)),
    "group": (RANKS_FORMAT, (RanksRecord,)),
    "tune": (TUNE_FORMAT, (SearchFile,)),
    "tune-trials": (TUNE_TRIAL_FORMAT, (SearchTrial, RepeatedTrial)),
    "tune-summary": (TUNE_SUMMARY_FORMAT, (SearchSummary,)),
    "benchmark": (BENCHMARK_FORMAT, (BenchmarkFile,)),
    "benchmark-trials": (BENCHMARK_TRIAL_FORMAT, (ScoredTrial, FailedTrial)),
    "benchmark-summary": (BENCHMARK_SUMMARY_FORMAT, (BenchmarkSummary,)),
    "doctor": (DIAGNOSIS_FORMAT, (findings.Diagnosis,)),
}

Schema = dict[str, Any]


def schema_of(name: str) -> Schema:
    """The JSON Schema of one kind of file."""
    file_format, types = TYPES[name]
    used = (*types, ResumeState) if Manifest in types else types
    references, definitions = msgspec.json.schema_components(used, ref_template="#/$defs/{name}")
    by_name = {kind.__name__: kind for kind in used}
    for name_of_type, definition in definitions.items():
        texts = [kind.__doc__ or "" for kind in by_name[name_of_type].__mro__] if name_of_type in by_name else []
        _describe(definition, [definition.get("description", ""), *texts])
    for kind in types:
        definition = definitions[kind.__name__]
        if file_format is not METRICS_FORMAT:  # whose number stands in a line of its own
            number = {"const": file_format.newest, "description": "The number of this file's format."}
            definition["properties"] = {FORMAT_KEY: number, **definition["properties"]}
            definition["required"] = [FORMAT_KEY, *definition["required"]]
    if Manifest in types:
        definitions["Manifest"]["properties"]["training_state"] = {"$ref": "#/$defs/ResumeState"}
    content: Schema = {"anyOf": list(references[: len(types)])} if len(types) > 1 else dict(references[0])
    is_line = ".jsonl" in file_format.file
    return {
        "$schema": DIALECT,
        "$id": f"urn:timebox-vision:{name}:{file_format.newest}",
        "title": f"{'A line of ' if is_line else ''}{file_format.file}, format {file_format.newest}",
        **content,
        "$defs": definitions,
    }


def text_of(name: str) -> str:
    """The content of a published schema."""
    return json.dumps(schema_of(name), indent=2, ensure_ascii=False) + "\n"


def _describe(definition: Schema, docstrings: Sequence[str]) -> None:
    """Describe a type by the first of its docstrings, and its properties by their lines under Attributes in any."""
    for docstring in docstrings:
        _, _, attributes = inspect.cleandoc(docstring).partition("\n\nAttributes:\n")
        for names, words in re.findall(r"^    ([\w, ]+): (.+(?:\n        .+)*)", attributes, re.MULTILINE):
            for name in names.split(", "):
                description = _plain(words)
                definition["properties"][name].setdefault("description", description[:1].upper() + description[1:])
    definition["description"] = _plain(inspect.cleandoc(docstrings[0]).partition("\n\nAttributes:\n")[0])


def _plain(text: str) -> str:
    """Text of a docstring in one line, without markup."""
    return " ".join(re.sub(r":\w+:`[~.\w]*?(\w+)`", r"\1", text).replace("``", "").split())


def main(folder: Path) -> None:
    for name in TYPES:
        (folder / f"{name}.schema.json").write_text(text_of(name), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
