"""Turns the cells of a label column into class names: what is no label, and what is the same label written twice."""

import re
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from timebox.data.folders.class_folders import clean_name, merged_names_notes
from timebox.data.tables.files.table import LIST_SEPARATOR
from timebox.errors import DataError
from timebox.formatting import plural

# What pandas, R, SQL and spreadsheets write for a missing value; compared in lower case, and as written.
_MISSING = frozenset({
    "", "nan", "<na>", "n/a", "#n/a", "#na", "null", "nat", "-nan", "1.#qnan", "#ref!", "#value!", "#name?", "#div/0!",
    "#null!", "-", "--", "?", "nil",
})  # fmt: skip
_MISSING_AS_WRITTEN = frozenset({"None", "NA"})
# The text of a Python object, as pandas writes it to CSV.
_BYTES, _LIST = re.compile(r"b(?P<quote>['\"])(?P<inner>.*)(?P=quote)"), re.compile(r"\[(?P<inner>.*)\]")
# Columns that hold several words, each a label of its own.
_TAG_NAMES = frozenset({"tag", "tags", "labels", "targets", "genres", "attributes", "findings", "categories"})
# Columns with more distinct fractions are measured quantities.
_MAX_FRACTIONS = 20


@dataclass(frozen=True)
class CleanLabels:
    """Labels of all rows, None where a row has none; the text of a row without; and notes for the user."""

    labels: tuple[str | None, ...]
    missing_example: str
    notes: tuple[str, ...]


def is_missing(text: str) -> bool:
    """Whether a label stands for a missing value."""
    stripped = text.strip()
    return stripped.lower() in _MISSING or stripped in _MISSING_AS_WRITTEN


def clean_labels(cells: Sequence[str | None], where: str, column: str = "") -> CleanLabels:
    """Class names from label cells: without surrounding spaces, ``0.0`` as ``0`` where all labels are whole numbers.

    `where` names the column in errors, as `column` does alone. Raises DataError for measured quantities and for several
    labels in a cell.
    """
    cells = _without_brackets(cells, where)
    missing = [cell for cell in cells if cell is None or is_missing(cell)]
    names = [None if cell is None or is_missing(cell) else clean_name(cell) for cell in cells]
    rename = _renaming(Counter(name for name in names if name), where)
    written: dict[str, set[str]] = {}
    labels: list[str | None] = []
    for cell, name in zip(cells, names, strict=True):
        label = None if name is None else rename(name)
        labels.append(label)
        if label is not None and cell is not None:
            written.setdefault(label, set()).add(cell)
    _check_single(Counter(label for label in labels if label), where, column)
    example = next((repr(cell) for cell in missing if cell and cell.strip()), "an empty cell")
    return CleanLabels(tuple(labels), example, tuple(merged_names_notes(written)))


def _renaming(names: Counter[str], where: str) -> Callable[[str], str]:
    """The function from a label to its class name. Raises DataError for a measured quantity."""
    numbers = {name: number for name in names if (number := _number(name)) is not None}
    if len(numbers) < len(names):
        return str
    if all(number.is_integer() for number in numbers.values()):
        return lambda name: str(int(numbers[name])) if "." in name or "e" in name.lower() else name
    if len(names) > _MAX_FRACTIONS:
        example = next(name for name, number in numbers.items() if not number.is_integer())
        raise DataError(
            f"{where} holds {len(names):,} different numbers such as {example}: a measured quantity, not a class"
        )
    return str


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if abs(number) < 1e15 else None  # also leaves out infinity


def _without_brackets(cells: Sequence[str | None], where: str) -> Sequence[str | None]:
    """Cells without what Python writes around a text, where it is around all of them: ``b'cat'``, ``['cat']``."""
    texts = [cell.strip() for cell in cells if cell and not is_missing(cell)]
    for pattern in (_BYTES, _LIST):
        matches = [pattern.fullmatch(text) for text in texts]
        if texts and all(matches):
            several = [match for match in matches if match and "," in match["inner"]]
            if several:
                raise _several_labels(where, several[0][0], len(several))
            return [_unquoted(pattern, cell) for cell in cells]
    return cells


def _unquoted(pattern: re.Pattern[str], cell: str | None) -> str | None:
    match = pattern.fullmatch(cell.strip()) if cell else None
    return match["inner"].strip().strip("'\"") if match else cell


def _check_single(counts: Counter[str], where: str, column: str) -> None:
    """Raise DataError where cells hold several labels, such as "Mass|Nodule" beside "Mass" and "Nodule"."""
    if joint := [name for name in counts if LIST_SEPARATOR in name]:
        example = joint[0].replace(LIST_SEPARATOR, ", ")
        raise _several_labels(where, example, sum(counts[name] for name in joint))
    for separator in "|;,":
        joint = [name for name in counts if separator in name]
        parts = {part.strip() for name in joint for part in name.split(separator)}
        if joint and 2 * sum(part in counts for part in parts) > len(parts):
            raise _several_labels(where, joint[0], sum(counts[name] for name in joint))
    joint = [name for name in counts if " " in name]
    parts = {part for name in joint for part in name.split()}
    is_of_tags = "".join(filter(str.isalpha, column.lower())) in _TAG_NAMES
    if joint and (all(part.isdigit() for part in parts) or (is_of_tags and _are_tags(parts, counts))):
        raise _several_labels(where, joint[0], sum(counts[name] for name in joint))


def _are_tags(parts: Collection[str], counts: Counter[str]) -> bool:
    """Whether most words of labels are in several labels."""
    words = Counter(word for name in counts for word in name.split())
    return 2 * sum(words[part] > 1 for part in parts) >= len(parts)


def _several_labels(where: str, example: str, num_rows: int) -> DataError:
    return DataError(
        f"{where} has several labels in a row, as in {example!r} ({plural(num_rows, 'row')}): timebox learns one "
        "label an image; keep the rows with one, or give each combination a name of its own"
    )
