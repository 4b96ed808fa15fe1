"""Class folders of images, with or without train/ val/ test/ above them; images of any size and mode."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from timebox.data.dataset import LoadedData
from timebox.data.reading.encoded_images import EncodedImage, load_encoded
from timebox.data.reading.listing import (
    SPLITS,
    entries,
    holds_images,
    image_paths,
    is_image,
    only_subfolder,
    split_of,
    subfolders,
)
from timebox.data.reading.options import ReadOptions
from timebox.data.reading.text import abbreviate_list, pluralize, printable
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
        why = f"images lie in the folders {abbreviate_list(class_names)}"
        return replace(loaded, notes=(*_skipped_notes(path, folders, class_names), *loaded.notes), why=why)


def _split_folders(path: Path) -> dict[str, Path]:
    """The folder of each split: `path` itself as train where its subfolders are classes, even if one is named train."""
    splits: dict[str, Path] = {}
    others: list[Path] = []
    for folder in subfolders(path):
        split = split_of(folder.name)
        if split is None:
            if next(image_paths(folder), None):
                others.append(folder)
        elif split in splits:
            raise DataError(
                f"{path} has {splits[split].name}/ and {folder.name}/, both of which mean {split}: keep one"
            )
        else:
            inner = only_subfolder(folder)  # may hold the class folders
            splits[split] = inner if inner and subfolders(inner) else folder
    if not splits or any(holds_images(folder) for folder in others):
        return {"train": path}
    if "train" not in splits or not subfolders(splits["train"]):
        if others:
            return {"train": path}
        lacking = f"class folders in {splits['train'].name}/" if "train" in splits else "train/ to learn from"
        raise DataError(f"{path} has {'/ and '.join(folder.name for folder in splits.values())}/ but no {lacking}")
    return dict(sorted(splits.items(), key=lambda item: SPLITS.index(item[0])))


def _images(source: Path, folder: Path, split: str) -> Iterator[EncodedImage]:
    """The images in and below each class folder, sorted by class, folder and name."""
    for class_folder in subfolders(folder):
        for path in image_paths(class_folder):
            name = printable(path.relative_to(source).as_posix())
            yield EncodedImage(name, path, split, printable(class_folder.name))


def _skipped_notes(path: Path, folders: dict[str, Path], class_names: tuple[str, ...]) -> Iterator[str]:
    """Notes on images and folders that were left out."""
    train = folders["train"]
    if stray := [entry.name for entry in entries(train) if entry.is_file() and is_image(entry.name)]:
        yield f"{pluralize(len(stray), 'image')} outside any class folder left out: {abbreviate_list(stray)}"
    names = [printable(folder.name) for folder in subfolders(train)]
    if empty := [name for name in names if name not in class_names]:
        folders_text = pluralize(len(empty), "class folder")
        yield f"{folders_text} without a readable training image left out: {abbreviate_list(empty)}"
    for split, folder in folders.items():
        if not subfolders(folder):
            yield f"{folder.relative_to(path)}/ has no class folders, so nothing there is labelled: no {split} split"
    used = {place for folder in folders.values() for place in (folder, *folder.parents)}
    if train != path and (beside := [folder.name for folder in subfolders(path) if folder not in used]):
        yield f"{pluralize(len(beside), 'folder')} beside {train.name}/ left out: {abbreviate_list(beside)}"
