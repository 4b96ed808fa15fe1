"""Whether a run directory may be written, and replacing one by another in one instant."""

import ctypes
import glob
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from timebox.errors import OutputError, UsageError, option_text
from timebox.run.files import CHECKPOINT, CONFIG, METRICS, RANKS, SUMMARY, TRAINING_HASHES
from timebox.run.metrics_log import MetricsLog

# Of Linux's renameat2.
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


def default_directory(name: str) -> Path:
    """A new directory in ``runs/``, named after data and the time of day."""
    return Path("runs") / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"


def check_output_directory(out: Path, overwrite: bool) -> bool:
    """Whether a run in ``out`` is to be replaced. Raises UsageError for a place that must not be written to."""
    if out.exists() and not out.is_dir():
        raise UsageError(f"output {str(out)!r} is a file; give a directory that is new or empty")
    try:
        if not out.is_dir() or not any(out.iterdir()):
            return False
    except OSError as error:
        raise OutputError(f"output directory {str(out)!r} cannot be read: {error.strerror or error}") from error
    if not overwrite:
        overwriting = option_text("overwrite", True)
        raise UsageError(f"output directory {str(out)!r} is not empty; give another, or {overwriting} to replace a run")
    if not ((out / CONFIG).is_file() or (out / SUMMARY).is_file() or _is_run_without_checkpoint(out)):
        raise UsageError(f"output directory {str(out)!r} holds something that is no timebox run; it is not overwritten")
    if out.resolve() == Path.cwd():
        raise UsageError(f"output directory {str(out)!r} is the current one and cannot be replaced; give another")
    return True


def replace_directory(out: Path, new: Path) -> Path:
    """Put the directory ``new`` in the place of ``out``; returns where the old one lies then.

    Where the system cannot exchange two names at once, there is a moment in which nothing is at ``out``.
    """
    if _exchange_names(out, new):
        return new
    old = Path(tempfile.mkdtemp(prefix=f".{out.name}.old-", dir=out.parent))
    out.rename(old / "run")
    new.rename(out)
    return old


def remove_abandoned(out: Path) -> None:
    """Remove the temporary directories beside ``out`` that killed replacements of it have left."""
    for path in out.parent.glob(f".{glob.escape(out.name)}.old-*"):
        shutil.rmtree(path, ignore_errors=True)
    for path in out.parent.glob(f".{glob.escape(out.name)}.new-*"):
        try:
            MetricsLog(path / METRICS).close()
        except (OSError, UsageError):  # locked by a training that still writes it
            continue
        shutil.rmtree(path, ignore_errors=True)


def _exchange_names(one: Path, other: Path) -> bool:
    """Exchange the names of two paths in one instant; False where the system cannot."""
    rename = getattr(ctypes.CDLL(None), "renameat2", None) if sys.platform == "linux" else None
    if rename is None:
        return False
    status: int = rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE)
    return status == 0


def _is_run_without_checkpoint(out: Path) -> bool:
    """Whether a directory holds nothing but files of a training that was killed before its first checkpoint."""
    names = {path.name for path in out.iterdir()}
    unfinished = {f".{name}.tmp" for name in (TRAINING_HASHES, CONFIG, RANKS)}
    return METRICS in names and names <= {METRICS, TRAINING_HASHES, RANKS, CHECKPOINT, *unfinished}
