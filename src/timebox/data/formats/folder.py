"""A folder of images: class folders, with or without train/ val/ test/ above them, or images that tables label."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from timebox.data.dataset import LoadedData
from timebox.data.folders.layout import FolderLayout, LayoutOptions, find_layout
from timebox.data.folders.names import held_out_split, is_system_name, split_of
from timebox.data.folders.tree import ImageFolder, Scan, is_image_name, scan
from timebox.data.formats.tables import images_of, load_tables
from timebox.data.left_out import LeftOut
from timebox.data.reading.encoded_images import EncodedImage, load_encoded
from timebox.data.reading.options import ReadOptions
from timebox.data.reading.text import pluralize, printable
from timebox.data.tables.annotations import annotated_images
from timebox.data.tables.labelled_images import LabelledImages
from timebox.data.tables.sources import FoundTables, LabelTable, find_tables, is_table
from timebox.errors import DataError

_LabelledTables = Sequence[tuple[LabelTable, LabelledImages]]


class Folder:
    name = (
        "a folder of class folders (photos/cat/1.jpg, photos/dog/2.png), with or without train/ val/ test/ above, or "
        "of "
        "images with a table of their labels"
    )

    def matches(self, path: Path) -> bool:
        return path.is_dir() and any(
            entry.is_dir() or is_table(entry) or is_image_name(entry.name)
            for entry in path.iterdir()
            if not is_system_name(entry.name)
        )

    def read(self, path: Path, options: ReadOptions) -> LoadedData:
        listed = scan(path)
        found = find_tables(listed.root, options)
        tables = [(table, images_of(table)) for table in found.labelled]
        layout, refusal = _layout(listed.root, options)
        if layout is not None and options.class_names is None and len(layout.splits["train"]) < 2:
            only = next(iter(layout.splits["train"]))
            refusal = DataError(f"{path} has 1 class ({only!r}) with images: a classifier needs at least two")
            layout = None
        if layout is None and refusal and not _are_labels(tables, listed.root):
            tables = []
        if tables and (layout is None or _table_decides(path, tables, layout)):
            loaded = load_tables(path, tables, options)
            unnamed_notes, unnamed = _unnamed_images(listed.root, tables)
            loaded = replace(loaded, notes=(*loaded.notes, *unnamed_notes), left_out=(*loaded.left_out, *unnamed))
        elif layout is not None:
            loaded = _load_layout(path, listed, layout, options)
        else:
            raise found.error or refusal or DataError(f"{path} holds no images in class folders")
        notes = (*(each.sentence for each in listed.left_out), *_table_notes(found, tables, loaded), *loaded.notes)
        return replace(loaded, notes=notes, left_out=(*listed.left_out, *loaded.left_out))


def _layout(root: ImageFolder, options: ReadOptions) -> tuple[FolderLayout | None, DataError | None]:
    """The layout of the folders, or why there is none."""
    names = None if options.class_names is None else frozenset(options.class_names)
    try:
        return find_layout(root, LayoutOptions(options.wanted_splits, options.class_depth, names)), None
    except DataError as error:
        return None, error


def _table_decides(path: Path, tables: _LabelledTables, layout: FolderLayout) -> bool:
    """Whether labels come from the tables rather than from class folders; they agree, or one covers few images.

    Raises DataError where they disagree.
    """
    by_folder = {
        str(image): name for classes in layout.splits.values() for name, paths in classes.items() for image in paths
    }
    pairs = [
        (by_folder[key], image.class_name)
        for _, labelled in tables
        for image in labelled.images
        if isinstance(image.content, Path) and (key := str(image.content)) in by_folder
    ]
    if not pairs or 2 * len(pairs) < len(by_folder):
        named = {str(image.content) for _, labelled in tables for image in labelled.images}
        return len(named) > len(by_folder) and not pairs
    if len(set(pairs)) == len({first for first, _ in pairs}) == len({second for _, second in pairs}):
        return {image.split for _, labelled in tables for image in labelled.images} > set(layout.splits)
    file = tables[0][0].files[0]
    first, second = next((pair for pair in pairs if pair[0] != pair[1]), pairs[0])
    raise DataError(
        f"{path}: the labels of {file.name} are not those of the folders (an image in {first}/ has the label "
        f"{second!r}): "
        f"give {file} to learn the table's, or move that file away to learn the folders'"
    )


def _are_labels(tables: _LabelledTables, root: ImageFolder) -> bool:
    """Whether tables have a column named for labels, or name most of the images: others may be about other things."""
    num_named = sum(len(labelled.images) for _, labelled in tables)
    return any(table.roles.is_label_named for table, _ in tables) or 2 * num_named > root.num_images


def _unnamed_images(root: ImageFolder, tables: _LabelledTables) -> tuple[list[str], list[LeftOut]]:
    """(notes, records) of the images that no row of the tables names, apart from those in val and test folders."""
    contents = [image.content for _, labelled in tables for image in labelled.images]
    named = {str(content) for content in contents if isinstance(content, Path)}
    if not named:  # the tables hold the images themselves
        return [], []
    notes: list[str] = []
    unnamed: list[str] = []

    def visit(folder: ImageFolder) -> None:
        split = held_out_split(folder.name)
        if split and folder is not root and not any(str(path) in named for path in folder.all_images()):
            notes.append(_unlabelled_note(root.path, split, folder))
            return
        unnamed.extend(
            printable(path.relative_to(root.path).as_posix()) for path in folder.images if str(path) not in named
        )
        for inner in folder.folders:
            visit(inner)

    visit(root)
    files = ", ".join(table.files[0].name for table, _ in tables)
    record = LeftOut.of("image", f"that {files} does not name", unnamed)
    return [*notes, *([record.sentence] if record else [])], [record] if record else []


def _table_notes(found: FoundTables, tables: _LabelledTables, loaded: LoadedData) -> Iterator[str]:
    yield from found.notes
    if tables and "table" not in loaded.format:
        yield f"{tables[0][0].files[0].name} is not read: the class folders say as much, or more"
    elif found.error and not tables:
        yield f"a table beside the class folders is not read: {found.error}"


def _load_layout(path: Path, listed: Scan, layout: FolderLayout, options: ReadOptions) -> LoadedData:
    images = [image for split, classes in layout.splits.items() for image in _images(layout.base, split, classes)]
    notes: list[str] = []
    for split, folder in layout.unlabelled.items():
        annotated = annotated_images(folder, listed.root, layout.base, split, layout.splits["train"])
        images += annotated.images if annotated else []
        notes += annotated.notes if annotated else [_unlabelled_note(path, split, folder)]
    loaded = load_encoded(path, "folder of class folders", images, options)
    class_names = loaded.splits.train.class_names
    empty = sorted(set(layout.splits["train"]) - set(class_names)) + _empty_folders(listed.root, layout)
    left_out = (*layout.left_out, LeftOut.of("class folder", "without a readable training image", sorted(set(empty))))
    kept = tuple(each for each in left_out if each)
    notes = [*layout.notes, *_split_class_notes(class_names), *(each.sentence for each in kept), *notes]
    return replace(loaded, notes=(*notes, *loaded.notes), why=layout.why, left_out=kept)


def _images(source: Path, split: str, classes: Mapping[str, Sequence[Path]]) -> Iterator[EncodedImage]:
    for name in sorted(classes):
        for path in classes[name]:
            yield EncodedImage(printable(path.relative_to(source).as_posix()), path, split, name)


def _empty_folders(root: ImageFolder, layout: FolderLayout) -> list[str]:
    """Folders without images beside the class folders of train."""
    first = next((paths[0] for paths in layout.splits["train"].values() if paths), None)
    for folder in root.walk():
        if first is not None and any(first.is_relative_to(inner.path) for inner in folder.folders):
            inside = next(inner for inner in folder.folders if first.is_relative_to(inner.path))
            if printable(inside.name) in layout.splits["train"]:
                return [printable(inner.name) for inner in folder.folders if not inner.num_images]
    return []


def _split_class_notes(class_names: Sequence[str]) -> Iterator[str]:
    for name in class_names:
        if split_of(name):
            yield f"{name}/ is taken for a class, not for a split: images lie directly in it, beside other classes"


def _unlabelled_note(source: Path, split: str, folder: ImageFolder) -> str:
    where = printable(folder.path.relative_to(source).as_posix())
    first = next(folder.all_images(), None)
    if first is None:
        return f"{where}/ holds no images: no {split} split"
    example = printable(first.relative_to(source).as_posix())
    return (
        f"{where}/ holds {pluralize(folder.num_images, 'image')} without labels, such as {example}: left for timebox "
        f"predict; no {split} split"
    )
