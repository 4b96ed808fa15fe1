"""What lies in a folder, by the names people give to images and splits. What is hidden is not there."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from timebox.data.images.decode import IMAGE_SUFFIXES

SPLITS = ("train", "val", "test")
_SPLIT_OF = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}

# What a folder of a split may be called besides: "train_images", "Training Set".
_FILLERS = {"images", "image", "imgs", "img", "photos", "set", "data", "dataset", "final", "seg"}
# Suffixes of what is for people to read.
_TEXTS = {"", ".txt", ".md", ".rst", ".pdf", ".html", ".yml", ".yaml", ".json", ".bib"}


def split_of(name: str) -> str | None:
    """The split that a folder's name, or a word in a table, means."""
    words = [word for word in re.findall("[^\\W_]+", name.lower()) if word not in _FILLERS]
    return _SPLIT_OF.get(words[0]) if len(words) == 1 else None


def entries(folder: Path) -> list[Path]:
    """Files and folders, in order."""
    return sorted(entry for entry in folder.iterdir() if not is_hidden(entry.name))


def subfolders(folder: Path) -> list[Path]:
    """Folders, in order."""
    return [entry for entry in entries(folder) if entry.is_dir()]


def image_paths(folder: Path) -> Iterator[Path]:
    """The images in a folder, however deep, folder by folder and then by name."""
    for parent, folders, names in os.walk(folder, onerror=_raise):
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        for name in sorted(names):
            if is_image(name):
                yield Path(parent, name)


def only_folder(folder: Path) -> Path | None:
    """The folder in a folder that holds nothing else but perhaps a text to read; None where there is more."""
    inside = entries(folder)
    folders = [entry for entry in inside if entry.is_dir() and not entry.is_symlink()]  # a link may lead in circles
    others_tell = all(entry.suffix.lower() in _TEXTS for entry in inside if entry not in folders)
    return folders[0] if len(folders) == 1 and others_tell else None


def holds_images(folder: Path) -> bool:
    """Whether there is an image right in a folder."""
    return any(is_image(entry.name) for entry in entries(folder) if entry.is_file())


def holds_class_folders(folder: Path) -> bool:
    """Whether two folders in it, or in its folder of train, hold images."""
    train = next((inner for inner in subfolders(folder) if split_of(inner.name) == "train"), folder)
    return sum(next(image_paths(inner), None) is not None for inner in subfolders(train)) > 1


def is_hidden(name: str) -> bool:
    """Whether a name is one that no user gave."""
    return name.startswith(".") or name == "__MACOSX"


def is_image(name: str) -> bool:
    """Whether a file is an image by its name."""
    return not is_hidden(name) and Path(name).suffix.lower() in IMAGE_SUFFIXES


def _raise(error: OSError) -> NoReturn:
    """A folder that cannot be listed must not pass for an empty one."""
    raise error
