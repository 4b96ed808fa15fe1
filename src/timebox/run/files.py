"""The files of a run directory: their names, and reading them without trusting their content."""

import json
import lzma
import os
import zipfile
import zlib
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from timebox.data.arrays.npy import ArrayArchive, read_npy
from timebox.errors import RunError, as_unicode
from timebox.file_versions import FIRST_FORMAT, FORMAT_KEY, FileFormat
from timebox.files import check_readable, open_regular, parse_json_object, read_regular
from timebox.run.json_values import to_values

MODEL, CONFIG, SUMMARY = "model.safetensors", "model.json", "summary.json"
PRETRAINED = "pretrained.safetensors"  # the classifier on pretrained features, where there is one
METRICS, PREDICTIONS, TRAINING_HASHES, CHECKPOINT = "metrics.jsonl", "predictions.npz", "trained_on.npy", "checkpoint"
EXAMPLES, REPORT, RANKS = "examples.npz", "report.html", "group.json"
STATUS = "status.json"  # while a training runs
SUSPECTS = "suspects.npz"  # training images whose label the training doubts
THUMBNAILS = "thumbnails.npz"  # of the scored images, for the report
REPLACEMENT = "replacement.txt"  # while a run is to replace another, see timebox.run.directories.replacement
ESTIMATOR, CLASSES = "estimator.json", "classes.npy"  # what a saved TimeboxClassifier adds
# What `timebox export` writes unless it is given another output.
MODEL_EXPORTS = ("model.onnx", "model.int8.onnx", "model.pt2")

# A model.json with the names of ImageNet's 21,841 classes has half a megabyte; with the most that class names may take
# (timebox.data.dataset.MAX_NAMES_BYTES), each byte as a JSON escape of six, it has 200.
MAX_JSON_BYTES = 256 << 20


def read_object(path: Path) -> dict[str, object] | None:
    """The JSON object in a file, None where there is no file. Raises RunError where it cannot be read."""
    try:
        return parse_json_object(read_regular(path, MAX_JSON_BYTES, follow=False))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise RunError(f"{str(path)!r} cannot be read: {error}") from error


def read_json(path: Path, file_format: FileFormat) -> dict[str, object]:
    """The JSON object in a file of a run, in its newest format. Raises RunError where it is missing or damaged."""
    if (values := read_object(path)) is None:
        raise RunError(_describe_absence(path))
    return file_format.upgraded(values, repr(str(path)))


def to_file(structure: Struct, file_format: FileFormat) -> bytes:
    """The content of a JSON file with a structure and the number of its format."""
    return to_json(file_format.numbered(to_values(structure)))


def to_json(value: object) -> bytes:
    """Readable JSON, ending in a newline. A path that is not UTF-8 is written with JSON's escapes for its bytes.

    Raises OutputError for a content that :func:`read_object` would refuse.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    return check_readable(as_unicode(text).encode("utf-8", "backslashreplace"), MAX_JSON_BYTES, "a JSON file")


def to_npy(array: NDArray[np.generic]) -> bytes:
    """The content of a .npy file, without pickle. Raises ValueError for an array of Python objects."""
    buffer = BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def to_npz(columns: Mapping[str, NDArray[np.generic]], file_format: FileFormat) -> bytes:
    """The content of an .npz file with these arrays and the number of its format."""
    buffer = BytesIO()
    np.savez(buffer, **{FORMAT_KEY: np.array(file_format.newest, np.int64)}, **columns)  # type: ignore[arg-type]
    return buffer.getvalue()


def read_arrays(path: Path, file_format: FileFormat) -> dict[str, NDArray[np.generic]]:
    """The arrays in an .npz file of a run, in its newest format; empty where there is none. Raises RunError."""
    try:
        with open_regular(path, follow=False) as file, zipfile.ZipFile(file) as archive:
            arrays = ArrayArchive(archive, path)
            columns = {name: arrays.read(name.lower()) for name in arrays.names()}
    except FileNotFoundError:
        return {}
    except (OSError, EOFError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error, lzma.LZMAError) as error:
        raise RunError(f"{str(path)!r} cannot be read: {error}") from error
    number = columns.pop(FORMAT_KEY, np.array(FIRST_FORMAT))
    upgraded = file_format.upgraded({**columns, FORMAT_KEY: number.tolist()}, repr(str(path)))
    return {name: column for name, column in upgraded.items() if isinstance(column, np.ndarray)}


def read_training_hashes(path: Path) -> NDArray[np.uint64]:
    """The sorted hashes in a run's trained_on.npy; empty where there is no such file. Raises RunError."""
    path = path / TRAINING_HASHES
    try:
        with open_regular(path, follow=False) as file:
            hashes = read_npy(file, os.fstat(file.fileno()).st_size)
    except FileNotFoundError:
        return np.zeros(0, np.uint64)
    except (OSError, ValueError, MemoryError) as error:
        raise RunError(f"{str(path)!r} cannot be read: {error}") from error
    if hashes.dtype != np.uint64 or hashes.ndim != 1:
        raise RunError(f"{str(path)!r} cannot be read: it holds no image hashes")
    return hashes.astype(np.uint64)


def in_use(run: Path) -> str:
    """The message for a run that another process holds."""
    return f"run {str(run)!r} is still being trained by another process; wait until that has ended, or stop it"


def _describe_absence(path: Path) -> str:
    """Why a file of a run is not there, in words: no run, not yet a model, or another kind of directory."""
    run = path.parent
    if not run.is_dir():
        return f"run {str(run)!r} {'is no directory' if run.exists() else 'does not exist'}"
    if (run / METRICS).is_file():
        return f"run {str(run)!r} ended before a model was saved: nothing can be loaded from it"
    return f"{str(run)!r} is no run directory: it has no {path.name}"
