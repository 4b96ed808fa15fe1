"""Where a new run may be written: a new or empty directory, or one whose run is to be replaced."""

import time
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from timebox.errors import OutputError, UsageError, option_text
from timebox.files import written
from timebox.files.folders import Folder
from timebox.run.directories.locks import check_metrics_unlocked, lock_folder
from timebox.run.directories.own_files import foreign_entry, is_run

RUNS = Path("runs")


@dataclass(frozen=True, eq=False)
class ClaimedOutput:
    """A directory that this process holds for a new run.

    Attributes:
        folder: the directory, locked.
        replaces: whether it holds a run that is to be replaced; else it is empty.
        is_new: whether it was made for the run; ``new_parents``: folders that were, the innermost first.
    """

    folder: Folder
    replaces: bool
    is_new: bool
    new_parents: tuple[Path, ...] = ()

    def give_up(self) -> None:
        """Let other processes have the directory; it is removed where it was made for the run and is empty."""
        if self.is_new:
            with suppress(OSError):
                self.folder.path.rmdir()
                for parent in self.new_parents:
                    parent.rmdir()  # unless another run is there now
        self.folder.close()


def resolve_link(path: Path) -> Path:
    """``path``, or where it leads if it is a link: only once, as a link may lead elsewhere later."""
    if not path.is_symlink():
        return path
    try:
        resolved = path.resolve()
    except (OSError, RuntimeError):
        resolved = path
    if resolved.is_symlink():  # it leads to itself, which Python 3.13 does not refuse
        raise UsageError(f"{str(path)!r} is a symbolic link that leads nowhere; give a directory")
    return resolved


def check_output_directory(out: Path, overwrite: bool) -> bool:
    """Whether a run in ``out`` is to be replaced. Raises UsageError for a place that must not be written to."""
    if out.exists() and not out.is_dir():
        raise UsageError(f"output {str(out)!r} is a file; give a directory that is new or empty")
    try:
        if not out.exists():
            return False
        if not any(out.iterdir()) or not overwrite:
            with Folder(out) as folder:
                return _is_replaced(folder, overwrite)
        with lock_folder(out) as folder:
            return _is_replaced(folder, overwrite)
    except OSError as error:
        raise OutputError(f"output directory {str(out)!r} cannot be read: {error.strerror or error}") from error


def _is_replaced(folder: Folder, overwrite: bool) -> bool:
    """Whether a directory holds a run to be replaced; False where it is empty. Raises UsageError for anything else."""
    out = folder.path
    if not folder.names():
        return False
    if not overwrite:
        overwriting = option_text("overwrite", True)
        raise UsageError(f"output directory {str(out)!r} is not empty; give another, or {overwriting} to replace a run")
    check_metrics_unlocked(folder)
    if not is_run(folder):
        raise UsageError(f"output directory {str(out)!r} holds something that is no timebox run; it is not overwritten")
    if foreign := foreign_entry(folder):
        raise UsageError(
            f"output directory {str(out)!r} holds {foreign!r}, which timebox has not written; it is not overwritten: "
            "move that elsewhere, or give another directory"
        )
    if out.resolve() == Path.cwd():
        raise UsageError(f"output directory {str(out)!r} is the current one and cannot be replaced; give another")
    return True


def claim_output(out: Path, overwrite: bool) -> ClaimedOutput:
    """Make a directory or take an empty one, or with ``overwrite`` one with a run, and hold it.

    Raises UsageError for a place that must not be written to or that another process holds, OutputError for one that
    cannot be written to.
    """
    check_output_directory(out, overwrite)
    new_parents = tuple(parent for parent in out.parents if not parent.exists())
    with written(f"output directory {str(out)!r}"):
        out.parent.mkdir(parents=True, exist_ok=True)
        try:
            out.mkdir()
            is_new = True
        except FileExistsError:
            is_new = False
        folder = lock_folder(out)
        try:
            # Another process may have filled it before it was locked.
            return ClaimedOutput(folder, _is_replaced(folder, overwrite), is_new, new_parents)
        except BaseException:
            folder.close()
            raise


def claim_default_output(name: str) -> ClaimedOutput:
    """A new directory in ``runs/``, named after data and the time of day, that no other process has; held."""
    new_parents = () if RUNS.exists() else (RUNS,)
    with written(f"output directory {str(RUNS)!r}"):
        path = make_default_directory(name)
        return ClaimedOutput(lock_folder(path), replaces=False, is_new=True, new_parents=new_parents)


def make_default_directory(name: str) -> Path:
    """Make ``runs/NAME-DATE-TIME``, or with ``-2``, ``-3``, … at its end where another process was first."""
    path = RUNS / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    with written(f"output directory {str(path)!r}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        for number in count(1):
            numbered = path if number == 1 else path.with_name(f"{path.name}-{number}")
            with suppress(FileExistsError):
                numbered.mkdir()
                return numbered
    raise AssertionError("unreachable")
