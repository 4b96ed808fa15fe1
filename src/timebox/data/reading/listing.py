"""Lists the images and folders of a source, and recognises split folders by name. Hidden files are ignored."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from timebox.data.images.decode import IMAGE_SUFFIXES

SPLITS = ("train", "val", "test")
_SPLIT_OF = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test",
    "testing": "test",
}  # fmt: skip
# Words that the name of a split folder may hold besides: "train_images", "Training Set".
_FILLER_WORDS = {"images", "image", "imgs", "img", "photos", "set", "data", "dataset", "final", "seg"}
# Suffixes of documents and metadata, which may lie beside the only folder of a source.
_DOCUMENT_SUFFIXES = {"", ".txt", ".md", ".rst", ".pdf", ".html", ".yml", ".yaml", ".json", ".bib"}


def split_of(name: str) -> str | None:
    """The split that a folder name, or a cell of a table, stands for: "train", "val", "test" or None."""
    words = [word for word in re.findall("[^\\W_]+", name.lower()) if word not in _FILLER_WORDS]
    return _SPLIT_OF.get(words[0]) if len(words) == 1 else None


def entries(folder: Path) -> list[Path]:
    """The files and folders in a folder, sorted."""
    return sorted(entry for entry in folder.iterdir() if not is_hidden(entry.name))


def subfolders(folder: Path) -> list[Path]:
    """The folders in a folder, sorted."""
    return [entry for entry in entries(folder) if entry.is_dir()]


def image_paths(folder: Path) -> Iterator[Path]:
    """The images in a folder and all folders below it, sorted by folder, then by name."""
    for parent, folders, names in os.walk(folder, onerror=_raise):
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        for name in sorted(names):
            if is_image(name):
                yield Path(parent, name)


def only_subfolder(folder: Path) -> Path | None:
    """The subfolder of a folder that holds nothing else, except perhaps documents; else None."""
    inside = entries(folder)
    folders = [entry for entry in inside if entry.is_dir() and not entry.is_symlink()]  # links may form a cycle
    rest_is_documents = all(entry.suffix.lower() in _DOCUMENT_SUFFIXES for entry in inside if entry not in folders)
    return folders[0] if len(folders) == 1 and rest_is_documents else None


def holds_images(folder: Path) -> bool:
    """Whether a folder holds an image, not counting those in subfolders."""
    return any(is_image(entry.name) for entry in entries(folder) if entry.is_file())


def holds_class_folders(folder: Path) -> bool:
    """Whether at least two subfolders, of the folder or of its train folder, hold images."""
    train = next((inner for inner in subfolders(folder) if split_of(inner.name) == "train"), folder)
    return sum(next(image_paths(inner), None) is not None for inner in subfolders(train)) > 1


def is_hidden(name: str) -> bool:
    """Whether a file is hidden, or one that macOS adds to archives."""
    return name.startswith(".") or name == "__MACOSX"


def is_image(name: str) -> bool:
    """Whether a file name has the suffix of an image."""
    return not is_hidden(name) and Path(name).suffix.lower() in IMAGE_SUFFIXES


def is_image_path(text: str) -> bool:
    """Whether a cell of a table ends with the file name of an image, after / or a Windows separator."""
    return is_image(text.strip().replace("\\", "/").rpartition("/")[2])


def _raise(error: OSError) -> NoReturn:
    """Fail on a folder that cannot be listed: os.walk would treat it as empty."""
    raise error
