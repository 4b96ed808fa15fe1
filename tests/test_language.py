"""The words of the code are those of the field: names that were replaced do not come back."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = sorted((ROOT / "src" / "timebox").rglob("*.py"))
MIN_MODULES = 150

# What was said before, and the word to use; docs/glossary.md defines the terms.
REPLACED = {
    "told": "broadcast", "gathered": "all_gather", "in_step": "broadcast_timed", "collected": "all_gather_timed",
    "average_": "all_reduce_mean_", "copy_from_leader_": "broadcast_parameters_", "leader": "main rank",
    "leading": "main rank", "follower": "worker rank", "following": "worker rank", "telling": "messages",
    "roll_call": "heartbeat", "RollCall": "Heartbeat", "losses_noticed": "raise_on_rank_failure",
    "note_lost": "record_rank_failures", "members": "ensemble_size or ranks", "Watch": "TrainingMonitor",
    "Keeper": "AsyncCheckpointer", "keeper": "checkpointer", "SafetyNet": "RollbackGuard", "safety": "guard",
    "FinishedWork": "AsyncScalars", "figures": "metrics", "Task": "TrainingJob or DatasetProfile", "Rung": "ModelScale",
    "ladder": "scales", "Asked": "...Config", "asked": "config", "Request": "TrainConfig", "Source": "DataConfig",
    "hopeful": "worth measuring", "worthwhile": "fastest", "landing": "warmdown", "conductor": "search runner",
    "Conductor": "SearchRunner", "crew": "worker pool", "Crew": "WorkerPool", "near": "pattern_search",
    "guest": "preserve_torch_state", "conforming": "align_labels", "conform": "align_labels",
    "fused": "pool_norm_gelu", "fusing": "kernels", "blurring": "BlurPool",
    "blended": "mixup", "NotFiniteError": "NonFiniteError", "bench": "benchmark", "Bench": "ThroughputBenchmark",
    "Decision": "StepPlan", "judged": "a verb", "Begun": "StartedRun", "tell": "notify",
}  # fmt: skip
# Ensemble's list of networks is in the names of saved weights; Optuna's study.tell is Optuna's.
ALLOWED = {("models/ensemble.py", "members")}
# Archives have members.
ARCHIVES = "data/"


def defined_names(source: str) -> Iterator[str]:
    """Every name that a source defines: classes, functions, parameters, variables, attributes of self."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr


def is_allowed(module: str, name: str) -> bool:
    return (module, name) in ALLOWED or (name == "members" and module.startswith(ARCHIVES))


def docstrings(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and (text := ast.get_docstring(node)):
            yield text


def test_no_replaced_name_comes_back() -> None:
    assert len(MODULES) >= MIN_MODULES
    found = {
        f"{path.relative_to(ROOT)}: {name}, say {REPLACED[name]}"
        for path in MODULES
        for name in {name.strip("_") if name != "average_" else name for name in defined_names(path.read_text("utf-8"))}
        if name in REPLACED and not is_allowed(path.relative_to(ROOT / "src" / "timebox").as_posix(), name)
    }
    assert sorted(found) == []


def test_no_module_has_a_replaced_name() -> None:
    assert {path.stem for path in MODULES} & set(REPLACED) == set()


@pytest.mark.parametrize("opening", ["What", "Who", "Whoever", "Whose"])
def test_docstrings_begin_with_their_subject(opening: str) -> None:
    """The subject of a sentence is the thing, not "what" or "who"."""
    found = [
        f"{path.relative_to(ROOT)}: {text.splitlines()[0]}"
        for path in MODULES
        for text in docstrings(path.read_text(encoding="utf-8"))
        if re.match(rf"{opening}\b", text)
    ]
    assert found == []


def test_the_checks_see_what_they_look_for() -> None:
    source = 'class Keeper:\n    """What is kept."""\n    def told(self, asked):\n        self.crew = asked\n'
    assert {"Keeper", "told", "asked", "crew"} <= set(defined_names(source))
    assert list(docstrings(source)) == ["What is kept."]
