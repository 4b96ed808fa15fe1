"""Corrected pictures, kept in class folders that ``timebox train`` reads."""

import hashlib
import io
from pathlib import Path

from timebox.data.images.decode import read_header
from timebox.errors import OutputError
from timebox.files import write_whole
from timebox.serving.http.bodies import Picture
from timebox.serving.http.errors import RequestError

NAME_LENGTH = 20
SUFFIXES = {"JPEG": ".jpg", "MPO": ".jpg", "JPEG2000": ".jp2", "TIFF": ".tif", "PPM": ".ppm", "DIB": ".bmp"}


class Feedback:
    """A folder of class folders. A picture's file is named after its content, so that it is kept once.

    Args:
        folder: made when the first picture is saved.
    """

    def __init__(self, folder: Path, class_names: tuple[str, ...]) -> None:
        self.folder, self._class_names = folder, class_names

    def save(self, picture: Picture, label: str) -> Path:
        """Save a picture as one of a class, or move it there from the class that it was saved as before.

        Raises RequestError for an unknown class, and OutputError where the file cannot be written.
        """
        if label not in self._class_names:
            raise RequestError(400, f"{label!r} is no class of this model; GET /model lists them")
        kind = read_header(io.BytesIO(picture.content)).format
        name = hashlib.sha256(picture.content).hexdigest()[:NAME_LENGTH] + SUFFIXES.get(kind, f".{kind.lower()}")
        path = self._class_folder(label) / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            earlier = [self._class_folder(other) / name for other in self._class_names if is_folder_name(other)]
            for other in earlier:
                if other != path and other.is_file():
                    other.replace(path)
            if not path.is_file():
                write_whole(path, picture.content)
        except OSError as error:
            raise OutputError(f"{str(path)!r} cannot be written: {error.strerror or error}") from error
        return path

    def _class_folder(self, label: str) -> Path:
        if not is_folder_name(label):
            raise RequestError(400, f"{label!r} cannot be the name of a folder: save the picture yourself")
        return self.folder / label


def is_folder_name(label: str) -> bool:
    """Whether a class can have a folder of its name, inside of the folder of all classes."""
    parts = label.split("/")
    return "\0" not in label and "\\" not in label and all(part.strip() not in ("", ".", "..") for part in parts)
