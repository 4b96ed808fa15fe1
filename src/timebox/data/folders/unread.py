"""Names the files of a source that are not read, where nothing else is there to read."""

from collections import Counter

from timebox.data.folders.names import is_archive_name
from timebox.data.folders.tree import ImageFolder
from timebox.data.images.signatures import describe_foreign
from timebox.data.reading.text import abbreviate_list, printable
from timebox.errors import DataError
from timebox.files import open_regular

# Files that may hold labels in a form that is not read.
_LABEL_SUFFIXES = frozenset({".mat", ".json", ".xml", ".txt", ".pkl", ".xlsx", ".npy", ".h5", ".yaml", ".yml"})
_TABLE_SUFFIXES = frozenset({".csv", ".tsv", ".jsonl", ".ndjson", ".parquet", ".pq"})
_NUM_BYTES = 512


def unread_files(root: ImageFolder) -> str:
    """A remark in brackets on files that may hold the labels, or the images, in a form that is not read; else ""."""
    files = [path for folder in root.walk() for path in folder.others]
    archives = [path.name for path in files if is_archive_name(path.name)]
    if archives:
        return f" ({abbreviate_list(archives)} must be unpacked first)"
    if not root.num_images and files:
        suffix, count = Counter(path.suffix.lower() for path in files).most_common(1)[0]
        example = next(path for path in files if path.suffix.lower() == suffix)
        return f" ({count:,} files such as {printable(example.name)} are no images: {_describe(example)})"
    if above := [path.name for path in root.path.absolute().parent.iterdir() if path.suffix.lower() in _TABLE_SUFFIXES]:
        return f" ({abbreviate_list(sorted(above))} lies beside this folder: give that if it has the labels)"
    labels = [path.name for folder in root.walk() if folder is root or not folder.num_images for path in folder.others]
    labels = [name for name in labels if f".{name.rpartition('.')[2].lower()}" in _LABEL_SUFFIXES]
    return f" ({abbreviate_list(labels)} cannot be read as one)" if labels else ""


def _describe(path: object) -> str:
    try:
        with open_regular(str(path)) as file:
            return describe_foreign(file.read(_NUM_BYTES)) or "their format is unknown"
    except (OSError, DataError):
        return "they cannot be opened"
