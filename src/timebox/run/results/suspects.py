"""Training images whose label the training itself doubts: those of suspects.npz."""

from typing import TYPE_CHECKING

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from timebox.errors import RunError
from timebox.file_versions import SUSPECTS_FORMAT
from timebox.run.files import SUSPECTS, read_arrays
from timebox.run.results.predictions import damaged
from timebox.run.results.table import Column, Table, as_objects, to_table

if TYPE_CHECKING:
    from timebox.run.run import Run


class Suspects(Struct, frozen=True, eq=False):
    """Suspect training images, the most suspect first.

    Attributes:
        ids: str (N,), the path of each image relative to the data, or its position in them.
        labels: int64 (N,), class indices.
        rivals: int64 (N,), the class that the network preferred.
        margins: float32 (N,), below 0.
    """

    ids: NDArray[np.generic]
    labels: NDArray[np.int64]
    rivals: NDArray[np.int64]
    margins: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.labels)

    def columns(self) -> dict[str, NDArray[np.generic]]:
        """The arrays of suspects.npz."""
        return {"id": self.ids, "label": self.labels, "rival": self.rivals, "margin": self.margins}


def suspects_table(run: "Run") -> Table:
    """The table of :meth:`Run.suspects`."""
    return to_table(suspect_columns(run))


def suspect_columns(run: "Run") -> dict[str, Column]:
    """The columns of :meth:`Run.suspects`. Raises RunError where the run has none, or the file is damaged."""
    suspects, names = read_suspects(run), as_objects(run.class_names)
    return {
        "file": suspects.ids.astype(object),
        "label": names[suspects.labels],
        "looks_like": names[suspects.rivals],
        "margin": suspects.margins,
    }


def read_suspects(run: "Run") -> Suspects:
    """The suspect images of a run. Raises RunError where none were looked for, or the file is damaged."""
    path = run.path / SUSPECTS
    columns = read_arrays(path, SUSPECTS_FORMAT)
    if not columns:
        raise RunError(
            f"run {str(run.path)!r} has no {SUSPECTS}: it ended early, had no time for a report, scored nothing, "
            "was trained on several ranks, or by a version before 0.2.0"
        )
    try:
        ids, labels, rivals, margins = (columns[name] for name in ("id", "label", "rival", "margin"))
    except KeyError as error:
        raise damaged(path, f"it lacks the column {error}") from error
    if {column.shape for column in (ids, labels, rivals, margins)} != {(len(labels),)}:
        raise damaged(path, "its columns are not of one length")
    classes = np.arange(len(run.class_names))
    if not all(one.dtype == np.int64 and np.isin(one, classes).all() for one in (labels, rivals)):
        raise damaged(path, f"it holds classes outside 0...{len(classes) - 1}")
    if margins.dtype != np.float32 or (len(ids) and ids.dtype.kind != "U") or not np.isfinite(margins).all():
        raise damaged(path, "its names are no texts, or its margins no finite numbers")
    return Suspects(ids.astype(str), labels.astype(np.int64), rivals.astype(np.int64), margins.astype(np.float32))
