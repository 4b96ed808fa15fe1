"""The labelled images that the rows of a table name."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from timebox.data.left_out import LeftOut
from timebox.data.reading.encoded_images import EncodedImage
from timebox.data.reading.text import printable
from timebox.data.tables.columns import ColumnRoles, decode_base64_image
from timebox.data.tables.files.table import Table
from timebox.data.tables.image_paths import LINK_IN_ARCHIVE, OUTSIDE_ARCHIVE, ImagePaths
from timebox.errors import DataError
from timebox.formatting import plural

_MAX_CONFLICT_SHARE = 0.1  # of a table's images


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """The images of a table.

    Attributes:
        named: paths of the files that any row names, with or without a label.
        notes: for the user.
        refusal: the error for a table in an archive with a row that names a file outside it; "" without one.
    """

    images: tuple[EncodedImage, ...]
    named: frozenset[str]
    notes: tuple[str, ...]
    left_out: tuple[LeftOut, ...]
    refusal: str = ""


def labelled_images(
    table: Table, roles: ColumnRoles, paths: ImagePaths, source: Path, split: str | None
) -> LabelledImages:
    """The images of all rows that have an image and a label.

    Args:
        source: the table's file, in notes.
        split: the split of all rows, where the table has no split column; None where nothing says so: then the folders
            of the images say it, else they are train.
    Raises:
        DataError: where many images have several labels.
    """
    cells, labels = table.columns[roles.images], roles.labels.labels
    rows = [row for row in range(table.num_rows) if cells[row] is not None]
    splits = [roles.splits.splits[row] if roles.splits else split for row in rows]
    texts = [cell for row in rows if isinstance(cell := cells[row], str)]
    notes: list[str] = []
    refusal = ""
    if len(texts) == len(rows) and not roles.is_base64:
        images, notes = _from_paths(texts, [labels[row] or "" for row in rows], splits, paths, roles.splits is not None)
        refusal = _refusal(images, rows, source)
    else:
        images = [
            _encoded(cells[row], row, split or "train", labels[row] or "")
            for row, split in zip(rows, splits, strict=True)
        ]
    named = frozenset(str(image.content) for image in images if isinstance(image.content, Path) and not image.problem)
    images, conflicts = _without_conflicts([image for image in images if image.class_name], source)
    skipped = [f"row {row + 1}" for row in range(table.num_rows) if cells[row] is None or labels[row] is None]
    reason = f"of {source.name} without an image or a label ({roles.labels.missing_example})"
    left_out = (
        LeftOut.of("row", reason, skipped),
        LeftOut.of("image", f"with several labels in {source.name}", conflicts),
    )
    notes = [f"{source.name}: {note}" for note in (*notes, *roles.notes)]
    return LabelledImages(tuple(images), named, tuple(notes), tuple(each for each in left_out if each), refusal)


def _refusal(images: Sequence[EncodedImage], rows: Sequence[int], source: Path) -> str:
    """The message about the first row that names a file outside the archive of its table; "" if no row does."""
    for image, row in zip(images, rows, strict=True):
        if image.problem in (OUTSIDE_ARCHIVE, LINK_IN_ARCHIVE):
            return (
                f"{source}: row {row + 1} names {printable(image.name)!r}, {image.problem}; refused: a table in an "
                "archive may name only files of that archive"
            )
    return ""


def _from_paths(
    texts: Sequence[str], labels: Sequence[str], splits: Sequence[str | None], paths: ImagePaths, is_by_row: bool
) -> tuple[list[EncodedImage], list[str]]:
    """(the images that texts name, notes). `is_by_row` says whether a column gives the splits."""
    found: dict[int, tuple[Path, str]] = {}
    notes: list[str] = []
    for split in dict.fromkeys(splits):
        rows = [row for row, its_split in enumerate(splits) if its_split == split]
        result = paths.find([texts[row] for row in rows], split, is_by_row)
        found |= dict(zip(rows, zip(result.paths, result.problems, strict=True), strict=True))
        notes += [result.note] if result.note and not notes else []
    placed = [found[row] for row in range(len(texts))]
    by_folder = [None if problem else paths.split_of_file(path) for path, problem in placed]
    if all(split is None for split in splits):
        if "train" in by_folder and {"val", "test"} & set(by_folder):
            splits = [split or "train" for split in by_folder]
            notes.append("splits are those of the folders that the images lie in")
    else:
        pairs = zip(texts, splits, by_folder, strict=True)
        if other := [(text, split, folder) for text, split, folder in pairs if folder and split and folder != split]:
            text, split, folder = other[0]
            notes.append(
                f"{plural(len(other), 'image')} in the folder of another split than their row says: {text} is of "
                f"{split} and lies in a folder of {folder}"
            )
    images = [
        EncodedImage(text, found[row][0], splits[row] or "train", labels[row], found[row][1])
        for row, text in enumerate(texts)
    ]
    return images, notes


def _encoded(cell: object, row: int, split: str, label: str) -> EncodedImage:
    if isinstance(cell, memoryview):
        return EncodedImage(str(row), cell, split, label)
    return EncodedImage(str(row), memoryview(decode_base64_image(str(cell)) or b""), split, label)


def _without_conflicts(images: Sequence[EncodedImage], source: Path) -> tuple[list[EncodedImage], list[str]]:
    """(each file once, the names of those with several labels). Raises DataError where these are many."""
    labels: dict[object, set[str]] = {}
    for position, image in enumerate(images):
        labels.setdefault(_key(image, position), set()).add(image.class_name)
    conflicting = {key for key, names in labels.items() if len(names) > 1}
    if len(conflicting) > _MAX_CONFLICT_SHARE * len(labels):
        example = next(image for position, image in enumerate(images) if _key(image, position) in conflicting)
        listed = sorted(labels[_key(example, 0)])[:3]
        raise DataError(
            f"{source}: {plural(len(conflicting), 'image')} of {len(labels):,} have several labels, as "
            f"{example.name} has {', '.join(map(repr, listed))}: timebox learns one label an image; keep one row for "
            "each"
        )
    kept: dict[object, EncodedImage] = {}
    for position, image in enumerate(images):
        if (key := _key(image, position)) not in conflicting:
            kept.setdefault(key, image)
    names = {_key(image, position): image.name for position, image in enumerate(images)}
    return list(kept.values()), [names[key] for key in names if key in conflicting]


def _key(image: EncodedImage, position: int) -> object:
    return str(image.content) if isinstance(image.content, Path) else position
