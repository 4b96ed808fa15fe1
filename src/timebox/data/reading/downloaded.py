"""check_downloaded: refuses files that stand for another one that was not downloaded."""

from pathlib import Path

from timebox.data.images.signatures import describe_placeholder
from timebox.errors import DataError
from timebox.files import open_regular

_NUM_BYTES = 512


def check_downloaded(path: Path) -> None:
    """Raise DataError for a Git LFS pointer and for an HTML page, which are found in place of a file of any format."""
    with open_regular(path) as file:
        placeholder = describe_placeholder(file.read(_NUM_BYTES))
    if placeholder:
        raise DataError(f"{path}: {placeholder}")
