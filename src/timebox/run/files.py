"""The files of a run directory: their names, and reading them without trusting them."""

import json
import lzma
import os
import zipfile
import zlib
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor, nn

from timebox.data.arrays.npy import read_npy
from timebox.data.arrays.npz import ArrayArchive
from timebox.errors import RunError
from timebox.file_versions import KEY, UNNUMBERED, FileFormat
from timebox.files import open_regular, parse_json_object, read_regular
from timebox.run.tensors import read_tensors

MODEL, CONFIG, SUMMARY = "model.safetensors", "model.json", "summary.json"
METRICS, PREDICTIONS, TRAINING_HASHES, CHECKPOINT = "metrics.jsonl", "predictions.npz", "trained_on.npy", "checkpoint"
EXAMPLES, REPORT, RANKS = "examples.npz", "report.html", "group.json"

MAX_JSON_BYTES = 16 << 20  # a model.json with the names of ImageNet's 21,841 classes has about half a megabyte


def read_json(path: Path, form: FileFormat) -> dict[str, object]:
    """A JSON object of a run in its newest format. Raises RunError where there is none, or none that can be read."""
    try:
        values = parse_json_object(read_regular(path, MAX_JSON_BYTES))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise RunError(_absent(path)) from error
    except (OSError, ValueError) as error:
        raise RunError(f"{str(path)!r} cannot be read: {error}") from error
    return form.upgraded(values, repr(str(path)))


def to_json(value: object) -> bytes:
    """Readable JSON, ending in a newline."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    # A path may hold bytes that are no UTF-8; JSON has an escape for what stands for them.
    return text.encode("utf-8", "backslashreplace")


def to_safetensors(model: nn.Module) -> bytes:
    """The weights of a network, as model.safetensors holds them."""
    return save({name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()})


def read_weights(path: Path, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of model.safetensors, as :func:`read_tensors` reads them. Raises RunError where they cannot be."""
    try:
        return read_tensors(path / MODEL, expected)
    except FileNotFoundError as error:
        raise RunError(_absent(path / MODEL)) from error


def to_npz(columns: Mapping[str, NDArray[np.generic]], form: FileFormat) -> bytes:
    """Arrays as :func:`read_arrays` reads them, with the number of their format beside them."""
    buffer = BytesIO()
    np.savez(buffer, **{KEY: np.array(form.newest, np.int64)}, **columns)  # type: ignore[arg-type]
    return buffer.getvalue()


def read_arrays(path: Path, form: FileFormat) -> dict[str, NDArray[np.generic]]:
    """The arrays in a file of a run, as they are in its newest format; none where there is no such file.

    Raises RunError where it cannot be read.
    """
    try:
        with open_regular(path) as file, zipfile.ZipFile(file) as archive:
            arrays = ArrayArchive(archive, path)
            columns = {name: arrays.read(name.lower()) for name in arrays.names()}
    except FileNotFoundError:
        return {}
    except (OSError, EOFError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error, lzma.LZMAError) as error:
        raise RunError(f"{str(path)!r} cannot be read: {error}") from error
    number = columns.pop(KEY, np.array(UNNUMBERED))
    found = form.upgraded({**columns, KEY: number.tolist()}, repr(str(path)))
    return {name: column for name, column in found.items() if isinstance(column, np.ndarray)}


def read_training_hashes(path: Path) -> NDArray[np.uint64]:
    """Sorted hashes of the images a run was trained on; empty where none are kept."""
    try:
        with open_regular(path / TRAINING_HASHES) as file:
            seen = read_npy(file, os.fstat(file.fileno()).st_size)
    except FileNotFoundError:
        return np.zeros(0, np.uint64)
    except (OSError, ValueError, MemoryError) as error:
        raise RunError(f"{str(path / TRAINING_HASHES)!r} cannot be read: {error}") from error
    if seen.dtype != np.uint64 or seen.ndim != 1:
        raise RunError(f"{str(path / TRAINING_HASHES)!r} cannot be read: it holds no image hashes")
    return seen.astype(np.uint64)


def _absent(path: Path) -> str:
    run = path.parent
    if not run.is_dir():
        return f"run {str(run)!r} {'is no directory' if run.exists() else 'does not exist'}"
    if (run / METRICS).is_file():
        return f"run {str(run)!r} ended before a model was saved: nothing can be loaded from it"
    return f"{str(run)!r} is no run directory: it has no {path.name}"
