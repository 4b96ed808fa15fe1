"""The rows of the table: a layout, its source, and what is owed for it."""

from collections.abc import Callable
from dataclasses import dataclass

from .miniature import Miniature


@dataclass(frozen=True)
class Owed:
    """What load_data owes: the classes and counts that it reads, or a refusal, or (with both given) either of them.

    Args:
        classes: names of the classes that have training images, in any order.
        counts: number of labelled images of each split; a split that is not named must be absent.
        says: regular expressions, each of which must match in the notes or in the evidence for the format.
        bad_files: the ends of the paths of the files that are reported as unreadable.
        match: regular expression that the DataError must contain.
    """

    classes: tuple[str, ...] | None = None
    counts: dict[str, int] | None = None
    says: tuple[str, ...] = ()
    bad_files: tuple[str, ...] = ()
    match: str | None = None


@dataclass(frozen=True)
class Layout:
    """A row: `given` is the file or folder to read, in a temporary directory; `source` documents the layout."""

    name: str
    given: str
    owed: Owed
    source: str
    build: Callable[[Miniature], None]


LAYOUTS: list[Layout] = []


def reads(
    classes: tuple[str, ...], bad_files: tuple[str, ...] = (), says: str | tuple[str, ...] = (), **counts: int
) -> Owed:
    """Owed: the data are read with these classes and, as keywords train, val and test, numbers of images."""
    return Owed(classes, counts, (says,) if isinstance(says, str) else says, bad_files)


def refused(match: str) -> Owed:
    """Owed: a DataError of one line that names the data and matches `match`."""
    return Owed(match=match)


def reads_or_refused(match: str, classes: tuple[str, ...], **counts: int) -> Owed:
    """Owed: either of the two, but no other reading."""
    return Owed(classes, counts, match=match)


def layout(
    name: str, given: str, owed: Owed, source: str
) -> Callable[[Callable[[Miniature], None]], Callable[[Miniature], None]]:
    """Add the decorated builder to LAYOUTS."""

    def add(build: Callable[[Miniature], None]) -> Callable[[Miniature], None]:
        LAYOUTS.append(Layout(name, given, owed, source, build))
        return build

    return add
