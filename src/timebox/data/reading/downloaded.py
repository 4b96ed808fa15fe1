"""Refuses files that stand for another one that was not downloaded, and says what files of other formats are."""

from pathlib import Path

from timebox.data.images.decode import IMAGE_SUFFIXES
from timebox.data.images.signatures import describe_foreign, describe_placeholder
from timebox.errors import DataError
from timebox.files import open_regular

_NUM_BYTES = 512
_KINDS = {
    ".xlsx": "an Excel workbook: save the sheet as CSV", ".xls": "an Excel workbook: save the sheet as CSV",
    ".ods": "a spreadsheet: save the sheet as CSV", ".json": "JSON: give labels as CSV or as JSON Lines",
    ".npy": "one NumPy array: save images and labels together as an .npz", ".7z": "a 7z archive: unpack it first",
    ".rar": "a RAR archive: unpack it first", ".zst": "a Zstandard file: unpack it first",
    ".zip": "a zip archive that is truncated or damaged: download it again",
    ".mat": "a MATLAB file: save images and labels as an .npz, or labels as CSV",
    ".h5": "an HDF5 file: save images and labels as an .npz",
    ".hdf5": "an HDF5 file: save images and labels as an .npz",
    ".pkl": "a pickle, which may run code when it is read: save images and labels as an .npz",
    ".pickle": "a pickle, which may run code when it is read: save images and labels as an .npz",
    **dict.fromkeys(
        (".pt", ".pth", ".ckpt"), "a file of torch, which may hold a pickle: save images and labels as an .npz"
    ),
    ".tfrecord": "a TFRecord: save the images as files",
    ".txt": "a text: give labels as CSV, with the names of the image files",
}  # fmt: skip


def check_downloaded(path: Path) -> None:
    """Raise DataError for a Git LFS pointer and for an HTML page, which are found in place of a file of any format."""
    with open_regular(path) as file:
        placeholder = describe_placeholder(file.read(_NUM_BYTES))
    if placeholder:
        raise DataError(f"{path}: {placeholder}")


def foreign_file(path: Path) -> str | None:
    """The kind of a file in no supported format, with what to do, by its suffix or its first bytes; None if unknown."""
    suffix = path.suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return (
            "one image: give the folder above its class folder, or to label it, a run and this file to timebox predict"
        )
    if suffix in _KINDS:
        return _KINDS[suffix]
    with open_regular(path) as file:
        return describe_foreign(file.read(_NUM_BYTES))
