"""NumPy .npz archives of images and labels, never unpickled."""

import zipfile
import zlib
from pathlib import Path

import numpy as np
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray

from timebox.data.dataset import LoadedData
from timebox.data.formats.base import RawSplit, ReadOptions, loaded_from_arrays, short_name, splits_from_arrays
from timebox.errors import DataError

# How the keys of images and labels are named, per split; case does not matter.
_FAMILIES = (
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
            if not zipfile.is_zipfile(path):
                raise zipfile.BadZipFile("no zip file")
            with zipfile.ZipFile(path) as packed:
                options.claim(sum(member.file_size for member in packed.infolist()), "its arrays", path)
            with np.load(path, allow_pickle=False) as archive:
                raw, class_names = _read_archive(archive, path)
        except (OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise DataError(f"{path}: not an .npz archive, or a damaged one ({error})") from error
        return loaded_from_arrays(short_name(path), ".npz file", splits_from_arrays(raw, class_names, str(path)))


def _read_archive(archive: NpzFile, path: Path) -> tuple[dict[str, RawSplit], tuple[str, ...] | None]:
    keys = {key.lower(): key for key in archive.files}
    family = next((family for family in _FAMILIES if set(family["train"]) <= keys.keys()), None)
    if family is None:
        raise DataError(
            f"{path}: holds {', '.join(archive.files) or 'nothing'}; it needs x_train and y_train, "
            "train_images and train_labels, or images and labels"
        )
    raw: dict[str, RawSplit] = {}
    for split, (images, labels) in family.items():
        if (images in keys) != (labels in keys):
            there, missing = (images, labels) if images in keys else (labels, images)
            raise DataError(f"{path}: has {keys[there]}, but no {missing} to go with it")
        if images in keys:
            raw[split] = RawSplit(_images(archive, keys[images], path), _labels(archive, keys[labels], path))
    class_names = None
    if "class_names" in keys:
        names = _array(archive, keys["class_names"], path)
        class_names = tuple(str(name) for name in names.ravel())
    return raw, class_names


def _array(archive: NpzFile, key: str, path: Path) -> NDArray[np.generic]:
    try:
        return np.asarray(archive[key])
    except (ValueError, MemoryError) as error:
        hint = "it holds Python objects, which are never unpickled" if "pickle" in str(error) else str(error)
        raise DataError(f"{path}: {key} cannot be read: {hint}") from error


def _images(archive: NpzFile, key: str, path: Path) -> NDArray[np.uint8]:
    images = _array(archive, key, path)
    if images.dtype != np.uint8:
        hint = "scale it by 255 and round" if images.dtype.kind == "f" else "convert it"
        raise DataError(f"{path}: {key} is {images.dtype}; images must be uint8 in 0..255: {hint} and save it as uint8")
    images = images[..., None] if images.ndim == 3 else images
    if images.ndim == 4 and images.shape[1] in (1, 3) and images.shape[3] not in (1, 3, 4):
        raise DataError(f"{path}: {key} is (N, C, H, W) {images.shape}; save {key}.transpose(0, 2, 3, 1) instead")
    if images.ndim != 4 or images.shape[3] not in (1, 3, 4) or 0 in images.shape:
        raise DataError(f"{path}: {key} has the shape {images.shape}; it must be (N, H, W) or (N, H, W, 1, 3 or 4)")
    return np.asarray(images, dtype=np.uint8)


def _labels(archive: NpzFile, key: str, path: Path) -> NDArray[np.int64] | NDArray[np.str_]:
    labels = _array(archive, key, path)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim == 2:
        raise DataError(f"{path}: {key} has the shape {labels.shape}; if it is one-hot, save {key}.argmax(1) instead")
    if labels.ndim == 1 and np.issubdtype(labels.dtype, np.integer):
        return labels.astype(np.int64)
    if labels.ndim == 1 and np.issubdtype(labels.dtype, np.str_):
        return labels.astype(np.str_)
    raise DataError(f"{path}: {key} is {labels.dtype} {labels.shape}; labels must be (N,) integers or strings")
