"""Finds the class folders of one split, and says where their level could be another."""

import re
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from timebox.data.folders.masks import find_masks, is_mask_name, masks_of_others, without_masks
from timebox.data.folders.names import CONTAINERS, UNLABELLED, are_parts, split_of
from timebox.data.folders.tree import ImageFolder
from timebox.data.left_out import LeftOut
from timebox.data.reading.text import abbreviate_list, printable, relative_name
from timebox.errors import DataError, option_text
from timebox.formatting import plural


@dataclass(frozen=True, eq=False)
class ClassFolders:
    """The class folders of a split.

    Attributes:
        root: the folder that they lie in.
        depth: 1 for ``root/CLASS``, 2 for ``root/GROUP/CLASS``.
        images: class name -> its images.
    """

    root: ImageFolder
    depth: int
    images: Mapping[str, Sequence[Path]]
    notes: tuple[str, ...] = ()
    left_out: tuple[LeftOut, ...] = ()


def class_root(folder: ImageFolder, class_names: Collection[str] = ()) -> ImageFolder | None:
    """The folder that holds the class folders of a split: ``folder`` or the only one inside it; None without any.

    ``class_names`` are those of a model, if any: a folder of that name is a class.
    """
    inner = folder
    while (
        not inner.images
        and len(inner.holders) == 1
        and inner.holders[0].name not in class_names
        and inner.holders[0].holders
        and not inner.holders[0].images
    ):
        inner = inner.holders[0]
    holders = inner.holders
    if not holders or (len(holders) == 1 and is_container(holders[0], class_names)):
        return None
    in_folders = sum(holder.num_images for holder in holders)
    return inner if in_folders > len(inner.images) else None


def is_container(folder: ImageFolder, class_names: Collection[str] = ()) -> bool:
    """Whether the name of a folder says nothing of its images: "images", "data". Not where a model has that class."""
    return folder.name.lower() in CONTAINERS and folder.name not in class_names


def find_class_folders(
    root: ImageFolder, depth: int | None, source: Path, class_names: Collection[str] = ()
) -> ClassFolders:
    """The class folders in ``root``.

    Args:
        depth: as of :class:`ClassFolders`; None to find it.
        source: the path that relative paths in messages start from.
        class_names: those of a model, if any.
    Raises:
        DataError: where the folders are no classes, or could be so at two depths.
    """
    notes: list[str] = []
    refuse_masks(root)
    stripped = [without_masks(holder) for holder in root.holders]
    holders = [holder for holder, _ in stripped if holder.num_images]
    masks = [mask for _, removed in stripped for mask in removed]
    copies = _copies(holders)
    unlabelled = [holder for holder in holders if holder.name.lower() in UNLABELLED and len(holders) > 1]
    holders = [holder for holder in holders if holder not in (*copies, *unlabelled)]
    if depth is None:
        depth = _known_depth(holders, class_names) or _find_depth(root, holders, notes)
    if depth == 2:
        holders = [inner for holder in holders for inner in _inside(holder)]
    elif nested := [inner for holder in holders if len(holder.holders) > 1 for inner in holder.holders]:
        example = printable(nested[0].path.relative_to(source).as_posix())
        notes.append(f"images in folders below a class folder belong to that class: those of {example}/ too")
    found = _collect(root, depth, holders, notes, source)

    def names(folders: Sequence[ImageFolder]) -> list[str]:
        return [relative_name(folder.path, source) for folder in folders]

    left_out = (
        *found.left_out,
        LeftOut.of("folder", "with the same class folders again", names(copies)),
        LeftOut.of("folder", "of masks or thumbnails of other images", names(masks)),
        LeftOut.of("folder", "of unlabelled images", names(unlabelled)),
    )
    return replace(found, left_out=tuple(each for each in left_out if each))


def refuse_masks(folder: ImageFolder) -> None:
    """Raise DataError where a folder holds images and, in another folder, their masks."""
    if pair := find_masks(folder.holders):
        images, masks = pair
        kind = "masks" if is_mask_name(masks.name) else "thumbnails"
        raise DataError(
            f"{folder.path}: {masks.name}/ holds {kind} of the images in {images.name}/, by their file names, and no "
            "class of its own; timebox learns one label an image: put images in class folders, or give a table of "
            "labels"
        )


def _known_depth(holders: Sequence[ImageFolder], class_names: Collection[str]) -> int | None:
    """The depth at which all folders are classes of a model; None where none is so."""
    if {clean_name(holder.name) for holder in holders} <= set(class_names):
        return 1
    inside = {clean_name(inner.name) for holder in holders for inner in _inside(holder)}
    return 2 if inside and inside <= set(class_names) else None


def _copies(holders: Sequence[ImageFolder]) -> list[ImageFolder]:
    """Folders that hold the class folders beside them once more: ``data/cat``, ``data/dog``, ``data/data/cat``, ..."""
    names = {holder.name for holder in holders}
    return [
        holder
        for holder in holders
        if not holder.images
        and len(holder.holders) > 1
        and {inner.name for inner in holder.holders} <= names - {holder.name}
    ]


def _inside(holder: ImageFolder) -> list[ImageFolder]:
    """The folders with images in a folder, or in the only one inside it."""
    while not holder.images and len(holder.holders) == 1 and holder.holders[0].holders:
        holder = holder.holders[0]
    return holder.holders


def _find_depth(root: ImageFolder, holders: Sequence[ImageFolder], notes: list[str]) -> int:
    """1 or 2. Raises DataError for parts without classes, and where both depths are plausible."""
    names = [holder.name for holder in holders]
    listed = abbreviate_list([f"{name}/" for name in names])
    if len(holders) > 1 and are_parts(names):
        if all(holder.holders and not holder.images for holder in holders) and not _are_containers(holders):
            notes.append(f"{listed} are taken for parts of one set: their class folders are merged")
            return 2
        raise DataError(
            f"{root.path}: {listed} look like parts of one set, not like classes: put the images in class folders, "
            f"give the table that has their labels, or set {option_text('class_depth', 1)} if these are the classes"
        )
    inside = [_inside(holder) for holder in holders]
    several = [[folder.name for folder in folders] for folders in inside if len(folders) > 1]
    if not several or len(holders) < 2 or not all(inside) or any(holder.images for holder in holders):
        return 1
    if all(are_parts(inner) for inner in several):
        return 1
    if any(folder.name.lower() in CONTAINERS for folders in inside if len(folders) == 1 for folder in folders):
        return 1
    inner = sorted({folder.name for folders in inside for folder in folders})
    raise DataError(
        f"{root.path}: the classes could be {abbreviate_list(names)}, or the folders in these, "
        f"{abbreviate_list(inner)}: set {option_text('class_depth', 1)} or {option_text('class_depth', 2)}"
    )


def _are_containers(holders: Sequence[ImageFolder]) -> bool:
    inner = {each.name.lower() for holder in holders for each in holder.holders}
    return inner <= CONTAINERS or any(split_of(name) for name in inner)


def _collect(
    root: ImageFolder, depth: int, holders: Sequence[ImageFolder], notes: list[str], source: Path
) -> ClassFolders:
    images: dict[str, list[Path]] = {}
    written: dict[str, set[str]] = {}
    masks: list[Path] = []
    others: list[Path] = []
    for holder in holders:
        raw = printable(holder.name)
        name = clean_name(raw)
        written.setdefault(name, set()).add(raw)
        for folder in holder.walk():
            of_folder = masks_of_others(folder.images)
            masks += of_folder
            others += folder.others
            is_mask = set(of_folder)
            images.setdefault(name, []).extend(path for path in folder.images if path not in is_mask)
    notes += merged_names_notes(written)

    def names(paths: Sequence[Path]) -> list[str]:
        return [relative_name(path, source) for path in paths]

    left_out = (
        LeftOut.of("mask", "of another image", names(masks)),
        LeftOut.of("other file", "in class folders", names(others)),
    )
    return ClassFolders(root, depth, images, tuple(notes), tuple(each for each in left_out if each))


def clean_name(text: str) -> str:
    """A class name without spaces around it and invisible characters, in Unicode's composed form."""
    visible = "".join(character for character in text if unicodedata.category(character) != "Cf")
    return unicodedata.normalize("NFC", visible).strip()


def merged_names_notes(written: Mapping[str, set[str]]) -> list[str]:
    """Notes on names that became one class, and on classes whose names differ only in upper and lower case.

    ``written`` maps each class to the names that its images came with.
    """
    notes = []
    merged = {name: spellings for name, spellings in written.items() if len(spellings) > 1}
    for name, spellings in list(merged.items())[:3]:
        notes.append(f"{' and '.join(map(repr, sorted(spellings)))} are one class: {name!r}")
    if len(merged) > 3:
        notes.append(f"{plural(len(merged), 'class', 'classes')} in all came under several such names")
    by_letters: dict[str, list[str]] = {}
    for name in written:
        by_letters.setdefault(_rough_name(name), []).append(name)
    alike = [sorted(names) for names in by_letters.values() if len(names) > 1]
    if alike:
        more = f", and {len(alike) - 1} more such" if len(alike) > 1 else ""
        notes.append(
            f"{' and '.join(map(repr, alike[0]))} are different classes{more}: rename one if they are the same"
        )
    return notes


def _rough_name(name: str) -> str:
    """A class name without what is easily written in two ways: case, spaces, leading zeros, and the mark of a copy."""
    text = re.sub(r"( -)? copy( \(\d+\))?$| \(\d+\)$", "", name.casefold().replace("_", " "))
    text = " ".join(text.replace("-", " ").split())
    return str(float(text)) if re.fullmatch(r"\d{1,15}(\.\d+)?", text) else text
