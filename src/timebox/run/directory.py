"""Writing a run directory so that it is never half there."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray
from safetensors.torch import save
from torch import nn

from timebox.errors import OutputError, UsageError
from timebox.run.reading import CONFIG, METRICS, MODEL, PREDICTIONS, SEEN, SUMMARY


class RunWriter:
    """Writes one run directory.

    A new directory is filled in place. With ``overwrite`` an existing run is replaced, by a rename, only when the
    new one is whole.

    Args:
        out: the directory to make. One that holds anything is refused, unless ``overwrite`` and it is a run.
    Raises:
        UsageError: for a place that is taken. OutputError: for one that cannot be written to.
    """

    def __init__(self, out: Path, overwrite: bool) -> None:
        self.out = out
        self._replaces = check_free(out, overwrite)
        self._created = not out.exists() or self._replaces
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            if self._replaces:
                self.path = Path(tempfile.mkdtemp(prefix=f".{out.name}.new-", dir=out.parent))
                shutil.copymode(out, self.path)
            else:
                self.path = out
                out.mkdir(exist_ok=True)
            self._metrics = (self.path / METRICS).open("w", encoding="utf-8")
        except OSError as error:
            raise OutputError(
                f"output directory {str(out)!r} cannot be written to: {error.strerror or error}"
            ) from error

    def log(self, entry: Mapping[str, object]) -> None:
        """Append one line to metrics.jsonl."""
        self._metrics.write(json.dumps(entry) + "\n")

    def save_model(self, model: nn.Module, config: Mapping[str, object]) -> None:
        """Write weights and configuration: from here on the run can be loaded."""
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
        self._write(CONFIG, lambda file: file.write(to_json(config)))
        self._write(MODEL, lambda file: file.write(save(tensors)))

    @property
    def has_model(self) -> bool:
        """Whether there is something to load already."""
        return (self.path / MODEL).is_file()

    def save_seen(self, hashes: NDArray[np.uint64]) -> None:
        """Write the hashes of the images trained on, sorted."""
        self._write(SEEN, lambda file: np.save(file, np.sort(hashes)))

    def save_predictions(self, columns: Mapping[str, NDArray[np.generic]]) -> None:
        """Write predictions.npz, one row per scored image."""
        self._write(PREDICTIONS, lambda file: np.savez(file, **columns))  # type: ignore[arg-type]

    def save_summary(self, summary: Mapping[str, object]) -> None:
        """Write summary.json and let the metrics reach the disk."""
        self._metrics.flush()
        self._write(SUMMARY, lambda file: file.write(to_json(summary)))

    def finish(self) -> None:
        """Put the whole run where it belongs."""
        self._metrics.close()
        if not self._replaces:
            return
        try:
            old = Path(tempfile.mkdtemp(prefix=f".{self.out.name}.old-", dir=self.out.parent))
            self.out.rename(old / "run")
            self.path.rename(self.out)
        except OSError as error:
            raise OutputError(f"{str(self.out)!r} cannot be replaced: {error.strerror or error}") from error
        self.path = self.out
        shutil.rmtree(old, ignore_errors=True)

    def give_up(self) -> bool:
        """Keep what can be loaded, and say whether there is; without a model leave nothing behind."""
        self._metrics.close()
        if self.has_model:
            return True
        if self._created:
            shutil.rmtree(self.path, ignore_errors=True)
        else:
            for file in (METRICS, SEEN, CONFIG):
                (self.path / file).unlink(missing_ok=True)
        return False

    def _write(self, name: str, write: Callable[[IO[bytes]], object]) -> None:
        """A file is there whole or not at all, also after a power cut."""
        temporary = self.path / f".{name}.tmp"
        try:
            with temporary.open("wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self.path / name)
        except OSError as error:
            raise OutputError(f"{name} cannot be written in {str(self.out)!r}: {error.strerror or error}") from error
        finally:
            temporary.unlink(missing_ok=True)


def to_json(value: object) -> bytes:
    """Readable JSON, ending in a newline."""
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def check_free(out: Path, overwrite: bool) -> bool:
    """Whether an existing run is to be replaced; raises UsageError where the place is taken."""
    if out.exists() and not out.is_dir():
        raise UsageError(f"output {str(out)!r} is a file; give a directory that is new or empty")
    try:
        taken = out.is_dir() and any(out.iterdir())
    except OSError as error:
        raise OutputError(f"output directory {str(out)!r} cannot be read: {error.strerror or error}") from error
    if not taken:
        return False
    if not overwrite:
        raise UsageError(f"output directory {str(out)!r} is not empty; give another, or --overwrite to replace a run")
    if not (out / CONFIG).is_file() and not (out / SUMMARY).is_file():
        raise UsageError(f"output directory {str(out)!r} holds something that is no timebox run; it is not overwritten")
    if out.resolve() == Path.cwd():
        raise UsageError(f"output directory {str(out)!r} is the current one and cannot be replaced; give another")
    return True
