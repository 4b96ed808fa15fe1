"""Corrected pictures, kept in class folders that ``timebox train`` reads."""

import hashlib
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PureWindowsPath

from timebox.data.folders.class_folders import clean_name
from timebox.data.folders.names import UNLABELLED, is_system_name, split_of
from timebox.data.images.decode import read_header
from timebox.errors import OutputError
from timebox.files import write_whole
from timebox.serving.http.bodies import Picture
from timebox.serving.http.errors import RequestError

NAME_LENGTH = 20
MAX_FOLDER_BYTES = 255
MAX_NAME_SHOWN = 40
SUFFIXES = {"JPEG": ".jpg", "MPO": ".jpg", "JPEG2000": ".jp2", "TIFF": ".tif", "PPM": ".ppm", "DIB": ".bmp"}


class Feedback:
    """A folder of class folders. A picture's file is named after its content, so that it is kept once.

    Args:
        folder: made when the first picture is saved.
    """

    def __init__(self, folder: Path, class_names: tuple[str, ...]) -> None:
        self.folder, self._class_names = folder, class_names
        self._folders = {label: folder / label for label in class_names if not folder_problem(label)}

    def save(self, picture: Picture, label: str) -> tuple[Path, str | None]:
        """Save a picture as one of a class, or move it there from the class that it was saved as before.

        Returns the file, and the class that the picture was saved as before, None for none. Raises RequestError for
        an unknown class or one that no folder can stand for, and OutputError where the file cannot be written.
        """
        if label not in self._class_names:
            raise RequestError(400, f"{label!r} is no class of this model; GET /model lists them")
        if problem := folder_problem(label):
            shown = label if len(label) <= MAX_NAME_SHOWN else f"{label[:MAX_NAME_SHOWN]}…"
            raise RequestError(400, f"pictures of {shown!r} cannot be kept: {problem}; those of other classes can")
        path = self._folders[label] / _file_name(picture)
        with _written(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            previous = None
            for other, earlier in self._saved(path.name):
                previous = previous or other
                if earlier != path:
                    earlier.replace(path)
            if not path.is_file():
                write_whole(path, picture.content)
        return path, previous

    def remove(self, picture: Picture) -> list[Path]:
        """Remove the file of a picture that was saved; returns the files removed: none where it was not saved.

        Raises OutputError where it cannot be removed.
        """
        files = [path for _, path in self._saved(_file_name(picture))]
        for path in files:
            with _written(path):
                path.unlink(missing_ok=True)
        return files

    def _saved(self, name: str) -> list[tuple[str, Path]]:
        """The classes that a picture is saved as, and its files."""
        return [(label, folder / name) for label, folder in self._folders.items() if (folder / name).is_file()]


def folder_problem(label: str) -> str:
    """Why ``timebox train`` would not read this class from a folder of its name; empty if it would."""
    if not label or any(sign in label for sign in "/\\\0") or label in (".", ".."):
        return "its name cannot be that of a folder"
    if len(os.fsencode(label)) > MAX_FOLDER_BYTES:
        return f"its name has over {MAX_FOLDER_BYTES} bytes, the most that a folder's may have"
    if os.name == "nt" and (PureWindowsPath(label).is_reserved() or label.endswith(".") or set('<>:"|?*') & set(label)):
        return "Windows allows no folder of its name"
    if is_system_name(label) or split_of(label) or label.lower() in UNLABELLED or clean_name(label) != label:
        return "a folder of its name would not be read as this class"
    return ""


def _file_name(picture: Picture) -> str:
    kind = read_header(io.BytesIO(picture.content)).format
    return hashlib.sha256(picture.content).hexdigest()[:NAME_LENGTH] + SUFFIXES.get(kind, f".{kind.lower()}")


@contextmanager
def _written(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"{str(path)!r} cannot be written: {error.strerror or error}") from error
