"""What must hold of a run directory, whatever happened to the training that wrote it."""

import json
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import timebox
from scenarios.table import joined
from timebox.errors import RunError
from timebox.run.checkpoint import read_checkpoint

MODEL, SUMMARY, CHECKPOINT = "model.safetensors", "summary.json", "checkpoint"
FILES = {
    "examples.npz",
    "group.json",
    "metrics.jsonl",
    "model.json",
    MODEL,
    "predictions.npz",
    "replacement.txt",  # where a process was killed just after it had put the run in another's place
    "report.html",
    SUMMARY,
    "trained_on.npy",
}


@cache
def some_images() -> NDArray[np.uint8]:
    """Four images of the digits' shape."""
    return np.random.default_rng(0).integers(0, 255, (4, 8, 8), np.uint8)


def load_problem(run: Path) -> str:
    """Empty where a run loads and predicts; otherwise why not."""
    try:
        probabilities = timebox.load(run, device="cpu").predict_proba(some_images())
        read_checkpoint(run / CHECKPOINT)
    except RunError as error:
        return str(error)
    except Exception as error:  # whatever else comes out is a defect to be shown
        return f"{type(error).__name__}: {error}"
    return "" if np.isfinite(probabilities).all() else "predictions are not finite"


def says_nothing_saved(problem: str, run: Path) -> bool:
    """Whether a load failed because nothing was saved yet."""
    empty = not run.exists() or not any(run.iterdir())
    return empty or "ended before a model was saved" in problem


def step_of(run: Path) -> int:
    """How far a run has come: the step of its checkpoint; -1 without one."""
    checkpoint = read_checkpoint(run / CHECKPOINT)
    return checkpoint.step if checkpoint else -1


def strays(run: Path, while_writing: bool) -> str:
    """What lies in or beside a run directory and should not.

    Args:
        while_writing: the process was killed and may leave one unfinished file in each folder, and beside the
            checkpoint the manifest names, the one that was to replace it.
    """
    problems = []
    inside = [path.name for path in run.iterdir()] if run.is_dir() else []
    unknown = [name for name in inside if name not in FILES and name != CHECKPOINT]
    folder = run / CHECKPOINT
    kept = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    unfinished = [name for name in kept if name.endswith(".tmp")]
    tensors = [name for name in kept if name.endswith(".safetensors")]
    odd = [name for name in kept if name not in (*unfinished, *tensors, "manifest.json")]
    allowed = 1 if while_writing else 0
    if len(unknown) > allowed or any(not name.endswith(".tmp") for name in unknown):
        problems.append(f"stray files {unknown}")
    if len(unfinished) > allowed or len(tensors) > 1 + allowed or odd:
        problems.append(f"stray files in checkpoint/ {sorted(kept)}")
    return ", ".join(problems)


def hidden_beside(run: Path) -> list[str]:
    """Names beside a run directory that begin with a dot."""
    return sorted(path.name for path in run.parent.iterdir() if path.name.startswith("."))


def summary_of(run: Path) -> dict[str, object]:
    """summary.json; empty where there is none."""
    path = run / SUMMARY
    return json.loads(path.read_text()) if path.is_file() else {}


def is_finished(run: Path) -> bool:
    """Whether a run came to its end."""
    summary = summary_of(run)
    return bool(summary) and not summary.get("stopped")


def finished_problem(run: Path, steps: int | None = None) -> str:
    """Why a run that ended by itself is not whole; empty where it is."""
    summary = summary_of(run)
    checks = {
        "the summary is not complete": isinstance(summary.get("test_accuracy"), float) and not summary.get("stopped"),
        "the schedule did not reach its end": isinstance(summary.get("final_lr"), float) and summary["final_lr"] < 1e-3,
        f"it took {summary.get('steps')} steps": steps is None or summary.get("steps") == steps,
        "checkpoint/ is still there": not (run / CHECKPOINT).exists(),
    }
    problems = [text for text, right in checks.items() if not right]
    return joined(*problems, load_problem(run), strays(run, while_writing=False))


def weights(run: Path) -> bytes:
    """The final weights, as they lie on disk; empty where there are none."""
    path = run / MODEL
    return path.read_bytes() if path.is_file() else b""
