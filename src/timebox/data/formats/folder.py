"""A folder of images: class folders, with or without train/ val/ test/ above them, or images that tables label."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from timebox.data.dataset import LoadedData
from timebox.data.folders.annotations import annotated_images
from timebox.data.folders.layout import FolderLayout, LayoutOptions, find_layout
from timebox.data.folders.names import is_system_name, split_of
from timebox.data.folders.tree import ImageFolder, Scan, is_image_name, scan
from timebox.data.folders.unread import unread_files
from timebox.data.formats.tables import images_of, load_tables
from timebox.data.left_out import LeftOut
from timebox.data.reading.encoded_images import EncodedImage, load_encoded
from timebox.data.reading.options import ReadOptions
from timebox.data.reading.text import printable, relative_name
from timebox.data.tables.beside_folders import (
    are_labels,
    table_decides,
    unlabelled_note,
    unnamed_images,
    unused_table_notes,
)
from timebox.data.tables.columns import NoImagesError
from timebox.data.tables.label_column import UnlabelledError
from timebox.data.tables.sources import find_tables, is_table
from timebox.errors import DataError


class Folder:
    name = "a folder of class folders (photos/cat/1.jpg), or of images with a table"

    def matches(self, path: Path) -> bool:
        return path.is_dir() and any(
            entry.is_dir() or is_table(entry) or is_image_name(entry.name)
            for entry in path.iterdir()
            if not is_system_name(entry.name)
        )

    def read(self, path: Path, options: ReadOptions) -> LoadedData:
        listed = scan(path, options.time.check)
        found = find_tables(listed.root, options)
        tables = [(table, images_of(table)) for table in found.labelled]
        layout, refusal = _layout(listed.root, options)
        if layout is None and (found.error and found.names_images):
            raise found.error
        if tables and (layout is None or table_decides(path, tables, layout)):
            if refusal and not are_labels(tables, listed.root):
                raise refusal
            loaded = load_tables(path, tables, options)
            unnamed_notes, unnamed = unnamed_images(listed.root, tables)
            loaded = replace(loaded, notes=(*loaded.notes, *unnamed_notes), left_out=(*loaded.left_out, *unnamed))
            notes = found.notes
        elif layout is not None:
            loaded, used = _load_layout(path, listed, layout, options)
            notes = (
                *found.notes,
                *unused_table_notes(found, [each for each in tables if each[0].files[0] not in used]),
            )
        else:
            raise _why_neither(listed.root, found.error, refusal)
        notes = (*(each.sentence for each in listed.left_out), *notes, *loaded.notes)
        return replace(loaded, notes=notes, left_out=(*listed.left_out, *loaded.left_out))


def _why_neither(root: ImageFolder, error: DataError | None, refusal: DataError | None) -> DataError:
    """Why neither tables nor folders label the images of a source."""
    if refusal is None or isinstance(error, UnlabelledError):
        return error or DataError(f"{root.path} holds no images in class folders")
    if isinstance(error, NoImagesError):
        return DataError(f"{refusal}. And {error}" if root.num_images else f"{error}{unread_files(root)}")
    return refusal


def _layout(root: ImageFolder, options: ReadOptions) -> tuple[FolderLayout | None, DataError | None]:
    """The layout of the folders, or why there is none."""
    names = None if options.class_names is None else frozenset(options.class_names)
    try:
        layout = find_layout(root, LayoutOptions(options.wanted_splits, options.class_depth, names))
    except DataError as error:
        return None, error
    train = layout.splits.get("train", {})
    if names is None and len(train) < 2:
        only = next(iter(train))
        return None, DataError(f"{root.path} has 1 class ({only!r}) with images: a classifier needs at least two")
    return layout, None


def _load_layout(path: Path, listed: Scan, layout: FolderLayout, options: ReadOptions) -> tuple[LoadedData, list[Path]]:
    """(the images in class folders, text files that label those of val or test)."""
    images = [image for split, classes in layout.splits.items() for image in _images(layout.base, split, classes)]
    notes: list[str] = []
    used: list[Path] = []
    for split, folder in layout.unlabelled.items():
        annotated = annotated_images(folder, listed.root, layout.base, split, layout.splits.get("train", {}))
        images += annotated.images if annotated else []
        used += [annotated.file] if annotated else []
        notes += annotated.notes if annotated else [unlabelled_note(path, split, folder)]
    loaded = load_encoded(path, "folder of class folders", images, options)
    class_names = loaded.splits.train.class_names
    empty = sorted(set(layout.splits.get("train", {})) - set(class_names)) + _empty_folders(listed.root, layout)
    left_out = (*layout.left_out, LeftOut.of("class folder", "without a readable training image", sorted(set(empty))))
    kept = tuple(each for each in left_out if each)
    notes = [*layout.notes, *_split_class_notes(class_names), *(each.sentence for each in kept), *notes]
    return replace(loaded, notes=(*notes, *loaded.notes), why=layout.why, left_out=kept), used


def _images(source: Path, split: str, classes: Mapping[str, Sequence[Path]]) -> Iterator[EncodedImage]:
    for name in sorted(classes):
        for path in classes[name]:
            yield EncodedImage(relative_name(path, source), path, split, name)


def _empty_folders(root: ImageFolder, layout: FolderLayout) -> list[str]:
    """Folders without images beside the class folders of train."""
    first = next((paths[0] for paths in layout.splits.get("train", {}).values() if paths), None)
    for folder in root.walk():
        if first is not None and any(first.is_relative_to(inner.path) for inner in folder.folders):
            inside = next(inner for inner in folder.folders if first.is_relative_to(inner.path))
            if printable(inside.name) in layout.splits.get("train", {}):
                return [printable(inner.name) for inner in folder.folders if not inner.num_images]
    return []


def _split_class_notes(class_names: Sequence[str]) -> Iterator[str]:
    for name in class_names:
        if split_of(name):
            yield f"{name}/ is taken for a class, not for a split: images lie directly in it, beside other classes"
