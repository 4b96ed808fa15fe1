"""A folder of class folders, with or without train/ val/ test/ above them; images of any size and mode."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from timebox.data.dataset import LoadedData
from timebox.data.formats.base import ReadOptions
from timebox.data.reading.encoded_images import EncodedImage, load_encoded
from timebox.data.reading.listing import (
    SPLITS,
    entries,
    holds_images,
    image_paths,
    is_image,
    only_folder,
    split_of,
    subfolders,
)
from timebox.data.reading.wording import count, printable, some
from timebox.errors import DataError


class Folder:
    name = "a folder of class folders (photos/cat/1.jpg, photos/dog/2.png), with or without train/ val/ test/ above"

    def matches(self, path: Path) -> bool:
        return path.is_dir() and bool(subfolders(path))

    def read(self, path: Path, options: ReadOptions) -> LoadedData:
        folders = _split_folders(path)
        images = [image for split, folder in folders.items() for image in _images(path, folder, split)]
        if not any(image.split == "train" for image in images):
            raise DataError(f"{path} holds no images in class folders: put them as {path}/CLASS/IMAGE.jpg")
        loaded = load_encoded(path, "folder of class folders", images, options)
        class_names = loaded.splits.train.class_names
        why = f"images lie in the folders {some(class_names)}"
        return replace(loaded, notes=(*_layout_notes(path, folders, class_names), *loaded.notes), why=why)


def _split_folders(path: Path) -> dict[str, Path]:
    """The folder of each split: `path` itself where its folders are classes, one of which may be called "train"."""
    found: dict[str, Path] = {}
    others: list[Path] = []
    for folder in subfolders(path):
        split = split_of(folder.name)
        if split is None:
            if next(image_paths(folder), None):
                others.append(folder)
        elif split in found:
            raise DataError(f"{path} has {found[split].name}/ and {folder.name}/, both of which mean {split}: keep one")
        else:
            found[split] = _unwrapped(folder)
    if not found or any(holds_images(folder) for folder in others):
        return {"train": path}
    if "train" not in found or not subfolders(found["train"]):
        if others:
            return {"train": path}
        lacking = f"class folders in {found['train'].name}/" if "train" in found else "train/ to learn from"
        raise DataError(f"{path} has {'/ and '.join(folder.name for folder in found.values())}/ but no {lacking}")
    return dict(sorted(found.items(), key=lambda item: SPLITS.index(item[0])))


def _unwrapped(folder: Path) -> Path:
    """The folder of class folders: itself, or the only one in it."""
    only = only_folder(folder)
    return only if only and subfolders(only) else folder


def _images(source: Path, folder: Path, split: str) -> Iterator[EncodedImage]:
    """The images under each class folder, however deep, class by class and then by name."""
    for class_folder in subfolders(folder):
        for path in image_paths(class_folder):
            name = printable(path.relative_to(source).as_posix())
            yield EncodedImage(name, path, split, printable(class_folder.name))


def _layout_notes(path: Path, folders: dict[str, Path], class_names: tuple[str, ...]) -> Iterator[str]:
    """What was passed over."""
    train = folders["train"]
    if stray := [entry.name for entry in entries(train) if entry.is_file() and is_image(entry.name)]:
        yield f"{count(len(stray), 'image')} outside any class folder left out: {some(stray)}"
    names = [printable(folder.name) for folder in subfolders(train)]
    if empty := [name for name in names if name not in class_names]:
        yield f"{count(len(empty), 'class folder')} without a readable training image left out: {some(empty)}"
    for split, folder in folders.items():
        if not subfolders(folder):
            yield f"{folder.relative_to(path)}/ has no class folders, so nothing there is labelled: no {split} split"
    used = {place for folder in folders.values() for place in (folder, *folder.parents)}
    if train != path and (beside := [folder.name for folder in subfolders(path) if folder not in used]):
        yield f"{count(len(beside), 'folder')} beside {train.name}/ left out: {some(beside)}"
