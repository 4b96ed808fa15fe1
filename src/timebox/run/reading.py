"""Reading the files of a run directory without trusting them."""

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from timebox.errors import RunError

MODEL, CONFIG, SUMMARY = "model.safetensors", "model.json", "summary.json"
METRICS, PREDICTIONS, SEEN = "metrics.jsonl", "predictions.npz", "trained_on.npy"


def read_json(path: Path) -> dict[str, object]:
    """A JSON object of a run. Raises RunError where there is none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise RunError(_absent(path)) from error
    except (OSError, ValueError) as error:
        raise RunError(f"{str(path)!r} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise RunError(f"{str(path)!r} cannot be read: it holds no JSON object")
    return value


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of model.safetensors. Raises RunError where they cannot be read."""
    try:
        return load_file(path / MODEL)
    except FileNotFoundError as error:
        raise RunError(_absent(path / MODEL)) from error
    except (OSError, SafetensorError) as error:
        raise RunError(f"{str(path / MODEL)!r} cannot be read: {error}") from error


def read_seen(path: Path) -> NDArray[np.uint64]:
    """Sorted hashes of the images a run was trained on; empty where none are kept."""
    try:
        seen = np.load(path / SEEN, allow_pickle=False)
    except FileNotFoundError:
        return np.zeros(0, np.uint64)
    except (OSError, ValueError, EOFError) as error:
        raise RunError(f"{str(path / SEEN)!r} cannot be read: {error}") from error
    if not isinstance(seen, np.ndarray) or seen.dtype != np.uint64 or seen.ndim != 1:
        raise RunError(f"{str(path / SEEN)!r} cannot be read: it holds no image hashes")
    return seen


def _absent(path: Path) -> str:
    run = path.parent
    if not run.is_dir():
        return f"run {str(run)!r} {'is no directory' if run.exists() else 'does not exist'}"
    if (run / METRICS).is_file():
        return f"run {str(run)!r} ended before a model was saved: nothing can be loaded from it"
    return f"{str(run)!r} is no run directory: it has no {path.name}"
