"""NumPy .npz archives of images and labels, read without pickle."""

import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from timebox.data.arrays.npy import ZIP_ERRORS, ArrayArchive
from timebox.data.dataset import LoadedData
from timebox.data.folders.names import SPLITS, split_of, words_of
from timebox.data.left_out import LeftOut
from timebox.data.reading.array_splits import ArraySplit, loaded_from_arrays, splits_from_arrays
from timebox.data.reading.array_values import decode_texts, plain_images, plain_labels
from timebox.data.reading.options import ReadOptions
from timebox.data.reading.text import short_name
from timebox.errors import DataError, TimeboxError
from timebox.files import open_regular

# Words for images and for labels in the names of arrays, the first of several in one archive first.
_IMAGE_WORDS = ("x", "images", "image", "imgs", "img", "data")
_LABEL_WORDS = ("y", "labels", "label", "targets", "target")
_CLASS_NAMES = ("class_names", "label_names", "target_names", "classes")


class Npz:
    name = "an .npz of images and labels"

    def matches(self, path: Path) -> bool:
        return path.is_file() and path.suffix.lower() == ".npz"

    def read(self, path: Path, options: ReadOptions) -> LoadedData:
        try:
            with open_regular(path) as file, zipfile.ZipFile(file) as archive:
                options.check_memory(sum(member.file_size for member in archive.infolist()), "its arrays", path)
                arrays = ArrayArchive(archive, path)
                content = _read_archive(arrays, needs_train=options.class_names is None)
        except TimeboxError:
            raise
        except ZIP_ERRORS as error:
            raise DataError(f"{path}: not an .npz archive, or a damaged one ({error})") from error
        splits = splits_from_arrays(content.splits, content.class_names, str(path), options.class_names is not None)
        loaded = loaded_from_arrays(short_name(path), ".npz file", splits, f"it holds {', '.join(arrays.names())}")
        notes = (*content.notes, *(each.sentence for each in content.left_out))
        return replace(loaded, notes=notes, left_out=content.left_out)


@dataclass(frozen=True, eq=False)
class _Content:
    splits: dict[str, ArraySplit]
    class_names: tuple[str, ...] | None
    notes: tuple[str, ...]
    left_out: tuple[LeftOut, ...]


def _read_archive(arrays: ArrayArchive, needs_train: bool) -> _Content:
    path = arrays.path
    names = _split_names(arrays)
    if not names or (needs_train and "train" not in names):
        raise DataError(
            f"{path}: holds {', '.join(arrays.names()) or 'nothing'}; it needs x_train and y_train, "
            "train_images and train_labels, or images and labels"
        )
    keys = {split: f"{path}: {arrays.original_name(images)}" for split, (images, _) in names.items()}
    images, image_note = plain_images({keys[split]: arrays.read(pair[0]) for split, pair in names.items()})
    notes = [image_note] if image_note else []
    splits: dict[str, ArraySplit] = {}
    unlabelled: list[str] = []
    for split, (_, labels_name) in names.items():
        labels = plain_labels(arrays.read(labels_name), f"{path}: {arrays.original_name(labels_name)}")
        notes += labels.notes
        kept = np.flatnonzero(labels.has_label)
        of_split, values, ids = images[keys[split]], labels.labels, None
        if len(values) == len(of_split) and len(kept) < len(values):
            unlabelled += [f"{split} {index}" for index in np.flatnonzero(~labels.has_label).tolist()]
            of_split, values, ids = of_split[kept], values[kept], tuple(map(str, kept.tolist()))
        splits[split] = ArraySplit(of_split, values, ids)
    used = {name for pair in names.values() for name in pair}
    class_names = next((name for name in _CLASS_NAMES if name in arrays), None)
    rest = [arrays.original_name(name) for name in map(str.lower, arrays.names()) if name not in (*used, class_names)]
    left_out = (LeftOut.of("image", "without a label", unlabelled), LeftOut.of("array", "of another name", rest))
    return _Content(
        splits,
        None if class_names is None else tuple(decode_texts(arrays.read(class_names), f"{path}: {class_names}")),
        tuple(notes),
        tuple(each for each in left_out if each),
    )


def _split_names(arrays: ArrayArchive) -> dict[str, tuple[str, str]]:
    """The names of the arrays of images and labels by split: x_train and y_train, valid_images and valid_labels, ...

    Raises DataError for images without labels or the reverse, and for two names that mean the same.
    """
    found: dict[str, dict[bool, dict[str, str]]] = {}  # split -> whether images -> role word -> name
    for name in map(str.lower, arrays.names()):
        if (meaning := _meaning(name)) is None:
            continue
        split, word = meaning
        same = found.setdefault(split, {}).setdefault(word in _IMAGE_WORDS, {})
        if word in same:
            both = f"{arrays.original_name(same[word])} and {arrays.original_name(name)}"
            raise DataError(f"{arrays.path}: {both} both mean {split}: keep one")
        same[word] = name
    pairs: dict[str, tuple[str, str]] = {}
    for split in [split for split in SPLITS if split in found]:
        chosen = {
            is_images: min(words.items(), key=lambda item: (*_IMAGE_WORDS, *_LABEL_WORDS).index(item[0]))[1]
            for is_images, words in found[split].items()
        }
        if len(chosen) < 2:
            present = arrays.original_name(next(iter(chosen.values())))
            missing = ("y", "labels") if True in chosen else ("x", "images")
            partner = present.lower().replace(*(("x", "y") if True in chosen else ("y", "x")))
            lacking = partner if partner != present.lower() else f"{missing[1]} of {split}"
            raise DataError(f"{arrays.path}: has {present}, but no {lacking} to go with it")
        pairs[split] = chosen[True], chosen[False]
    return pairs


def _meaning(name: str) -> tuple[str, str] | None:
    """(split, word for images or labels) of the name of an array; None for any other name."""
    words = words_of(name)
    roles = [word for word in words if word in _IMAGE_WORDS or word in _LABEL_WORDS]
    rest = [word for word in words if word not in roles]
    if len(roles) != 1 or len(rest) > 1:
        return None
    split = split_of(rest[0]) if rest else "train"
    return (split, roles[0]) if split else None
