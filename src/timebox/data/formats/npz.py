"""NumPy .npz archives of images and labels, read without pickle."""

import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from timebox.data.arrays.npy import ZIP_ERRORS, ArrayArchive
from timebox.data.dataset import LoadedData
from timebox.data.reading.array_splits import ArraySplit, as_images, loaded_from_arrays, splits_from_arrays
from timebox.data.reading.options import ReadOptions
from timebox.data.reading.text import short_name
from timebox.errors import DataError
from timebox.files import open_regular

# Names of the (images, labels) arrays of each split, in lower case.
_NAMINGS = (
    {"train": ("x_train", "y_train"), "val": ("x_val", "y_val"), "test": ("x_test", "y_test")},
    {split: (f"{split}_images", f"{split}_labels") for split in ("train", "val", "test")},
    {"train": ("images", "labels")},
    {"train": ("x", "y")},
)


class Npz:
    name = "an .npz file (x_train, y_train, ...; train_images, train_labels, ...; or images, labels)"

    def matches(self, path: Path) -> bool:
        return path.is_file() and path.suffix.lower() == ".npz"

    def read(self, path: Path, options: ReadOptions) -> LoadedData:
        try:
            with open_regular(path) as file, zipfile.ZipFile(file) as archive:
                options.check_memory(sum(member.file_size for member in archive.infolist()), "its arrays", path)
                arrays = ArrayArchive(archive, path)
                array_splits, class_names = _read_archive(arrays)
        except DataError:
            raise
        except ZIP_ERRORS as error:
            raise DataError(f"{path}: not an .npz archive, or a damaged one ({error})") from error
        splits = splits_from_arrays(array_splits, class_names, str(path))
        return loaded_from_arrays(short_name(path), ".npz file", splits, f"it holds {', '.join(arrays.names())}")


def _read_archive(arrays: ArrayArchive) -> tuple[dict[str, ArraySplit], tuple[str, ...] | None]:
    """(split -> arrays, class names; None where the archive does not hold them)."""
    path = arrays.path
    naming = next((naming for naming in _NAMINGS if all(name in arrays for name in naming["train"])), None)
    if naming is None:
        raise DataError(
            f"{path}: holds {', '.join(arrays.names()) or 'nothing'}; it needs x_train and y_train, "
            "train_images and train_labels, or images and labels"
        )
    splits: dict[str, ArraySplit] = {}
    for split, (images, labels) in naming.items():
        if (images in arrays) != (labels in arrays):
            present, missing = (images, labels) if images in arrays else (labels, images)
            raise DataError(f"{path}: has {arrays.original_name(present)}, but no {missing} to go with it")
        if images in arrays:
            splits[split] = ArraySplit(_images(arrays, images), _labels(arrays, labels))
    if "class_names" not in arrays:
        return splits, None
    names = arrays.read("class_names")
    return splits, tuple(str(name) for name in names.ravel())


def _images(arrays: ArrayArchive, name: str) -> NDArray[np.uint8]:
    images, key, path = arrays.read(name), arrays.original_name(name), arrays.path
    if images.dtype != np.uint8:
        hint = "scale it by 255 and round" if images.dtype.kind == "f" else "convert it"
        raise DataError(f"{path}: {key} is {images.dtype}; images must be uint8 in 0..255: {hint} and save it as uint8")
    if images.ndim == 4 and images.shape[1] in (1, 3) and images.shape[3] not in (1, 3, 4):
        raise DataError(f"{path}: {key} is (N, C, H, W) {images.shape}; save {key}.transpose(0, 2, 3, 1) instead")
    return as_images(np.asarray(images, dtype=np.uint8), f"{path}: {key}")


def _labels(arrays: ArrayArchive, name: str) -> NDArray[np.int64] | NDArray[np.str_]:
    labels, key, path = arrays.read(name), arrays.original_name(name), arrays.path
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim == 2:
        raise DataError(f"{path}: {key} has the shape {labels.shape}; if it is one-hot, save {key}.argmax(1) instead")
    if labels.ndim == 1 and np.issubdtype(labels.dtype, np.integer):
        return labels.astype(np.int64)
    if labels.ndim == 1 and np.issubdtype(labels.dtype, np.str_):
        return labels.astype(np.str_)
    raise DataError(f"{path}: {key} is {labels.dtype} {labels.shape}; labels must be (N,) integers or strings")
