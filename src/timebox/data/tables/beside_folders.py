"""Tables beside folders of images: which of the two says the labels, and which images neither says anything about."""

from collections.abc import Sequence
from pathlib import Path

from timebox.data.folders.layout import FolderLayout
from timebox.data.folders.names import held_out_split
from timebox.data.folders.tree import ImageFolder
from timebox.data.left_out import LeftOut
from timebox.data.reading.text import relative_name
from timebox.data.tables.labelled_images import LabelledImages
from timebox.data.tables.sources import FoundTables, LabelTable
from timebox.errors import DataError
from timebox.formatting import plural

LabelledTables = Sequence[tuple[LabelTable, LabelledImages]]


def are_labels(tables: LabelledTables, root: ImageFolder) -> bool:
    """Whether tables label the images below a folder: by the names of their columns, or as they name most images.

    Images in folders of val and test, which often have no labels, do not count.
    """
    if any(table.roles.is_label_named or table.split == "train" for table, _ in tables):
        return True
    num_named = sum(len(labelled.images) for _, labelled in tables)
    held_out = sum(folder.num_images for folder in root.folders if held_out_split(folder.name))
    return 2 * num_named > root.num_images - held_out


def table_decides(path: Path, tables: LabelledTables, layout: FolderLayout) -> bool:
    """Whether labels come from tables rather than from class folders, which agree or where the tables say little.

    Raises DataError where they disagree.
    """
    if not any(table.roles.is_label_named for table, _ in tables):
        return False
    by_folder = {
        str(image): name for split in layout.splits.values() for name, files in split.items() for image in files
    }
    images = [image for _, labelled in tables for image in labelled.images]
    pairs = [(by_folder[key], image.class_name) for image in images if (key := str(image.content)) in by_folder]
    file = tables[0][0].files[0]
    if not pairs:
        if sum(bool(image.problem) for image in images) * 2 > len(images):
            raise DataError(
                f"{path}: {file.name} has labels, but its rows and the class folders do not fit together ("
                f"{images[0].name}: {images[0].problem}): give paths in the table, or move it away to learn the folders"
            )
        return len(images) > len(by_folder)
    if agree(pairs):
        return {image.split for image in images} > set(layout.splits)
    if 2 * len(pairs) < len(by_folder) and {label for _, label in pairs} <= set(by_folder.values()):
        return False  # corrections of some labels, or notes on some images
    first, second = next(pair for pair in pairs if pair[0] != pair[1])
    raise DataError(
        f"{path}: the labels of {file.name} are not those of the folders (an image in {first}/ has the label "
        f"{second!r}): give {file} to learn the table's, or move that file away to learn the folders'"
    )


def agree(pairs: Sequence[tuple[str, str]]) -> bool:
    """Whether (class by folder, label by table) of images say the same: equal names, or other names one to one."""
    folders, labels = {first for first, _ in pairs}, {second for _, second in pairs}
    if folders & labels:
        return all(first == second for first, second in pairs)
    return len(set(pairs)) == len(folders) == len(labels)


def unused_table_notes(found: FoundTables, tables: LabelledTables) -> list[str]:
    """Notes on tables that name images and are not read, as class folders label them."""
    notes = []
    for table, labelled in tables:
        name = table.files[0].name
        if table.roles.is_label_named:
            notes.append(
                f"{name}, which labels {plural(len(labelled.images), 'image')}, is not read: the class folders "
                "label them"
            )
        else:
            notes.append(f"{name} is not read: class folders label the images")
    if found.error and found.names_images:
        notes.append(f"a table beside the class folders is not read: {found.error}")
    return notes


def unnamed_images(root: ImageFolder, tables: LabelledTables) -> tuple[list[str], list[LeftOut]]:
    """(notes, records) of the images that no row of the tables names, apart from those in val and test folders."""
    named = {key for _, labelled in tables for key in labelled.named}
    if not named:  # the tables hold the images themselves
        return [], []
    notes: list[str] = []
    unnamed: list[str] = []

    def visit(folder: ImageFolder) -> None:
        split = held_out_split(folder.name)
        if split and folder is not root and not any(str(path) in named for path in folder.all_images()):
            notes.append(unlabelled_note(root.path, split, folder))
            return
        rest = [path for path in folder.images if str(path) not in named]
        unnamed.extend(relative_name(path, root.path) for path in rest)
        for inner in folder.folders:
            visit(inner)

    visit(root)
    files = ", ".join(table.files[0].name for table, _ in tables)
    record = LeftOut.of("image", f"that {files} does not name", unnamed)
    return [*notes, *([record.sentence] if record else [])], [record] if record else []


def unlabelled_note(source: Path, split: str, folder: ImageFolder) -> str:
    """A note on a val or test folder without labels."""
    where = relative_name(folder.path, source)
    first = next(folder.all_images(), None)
    if first is None:
        return f"{where}/ holds no images: no {split} split"
    example = relative_name(first, source)
    return (
        f"{where}/ holds {plural(folder.num_images, 'image')} without labels, such as {example}: left for timebox "
        f"predict; no {split} split"
    )
