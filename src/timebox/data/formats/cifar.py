"""CIFAR-10 and CIFAR-100 as published: Python pickles or binary files, in a folder or a .tar.gz.

Source of the formats: https://www.cs.toronto.edu/~kriz/cifar.html
"""

import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from timebox.data.dataset import ImageDataset, LoadedData, SourceSplits
from timebox.data.reading.array_splits import loaded_from_arrays
from timebox.data.reading.options import ProgressNotifier, ReadOptions
from timebox.data.reading.safe_pickle import load_pickled_dict
from timebox.data.reading.tar import TAR_ERRORS, check_member_path, first_member, open_tar
from timebox.errors import DataError, TimeboxError, UsageError
from timebox.files import read_regular

_SIDE = 32
_IMAGE_BYTES = 3 * _SIDE * _SIDE  # the red plane, the green, the blue, each row by row
_MAX_MEMBER_BYTES = 1 << 29  # the largest published file is 155 MB
_NUM_IMAGES = 60_000  # train and test of each published version
_PEAK_COPIES = 2.7  # memory at the peak of reading, in copies of the images; measured on CIFAR-100


@dataclass(frozen=True)
class _Batch:
    """The content of one file: colour planes uint8 (N, 3072) and labels int64 (N,)."""

    planes: NDArray[np.uint8]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class _Layout:
    """The folder and files of one published version."""

    folder: str
    title: str
    train: tuple[str, ...]
    test: str
    fine_names: str  # the file with the class names
    coarse_names: str | None = None  # the file with the superclass names, CIFAR-100 only

    @property
    def is_cifar100(self) -> bool:
        return self.coarse_names is not None

    @property
    def is_binary(self) -> bool:
        return self.test.endswith(".bin")

    @property
    def files(self) -> set[str]:
        return {*self.train, self.test, self.fine_names, self.coarse_names or self.fine_names}

    def is_in(self, folder: Path) -> bool:
        return (folder / self.train[0]).is_file() and (folder / self.test).is_file()


_BATCHES = tuple(f"data_batch_{k}" for k in range(1, 6))
_BINARY_BATCHES = tuple(f"{name}.bin" for name in _BATCHES)
_FINE, _COARSE = "fine_label_names.txt", "coarse_label_names.txt"
_LAYOUTS = (
    _Layout("cifar-10-batches-py", "CIFAR-10 python batches", _BATCHES, "test_batch", "batches.meta"),
    _Layout("cifar-10-batches-bin", "CIFAR-10 binary batches", _BINARY_BATCHES, "test_batch.bin", "batches.meta.txt"),
    _Layout("cifar-100-python", "CIFAR-100 python files", ("train",), "test", "meta", "meta"),
    _Layout("cifar-100-binary", "CIFAR-100 binary files", ("train.bin",), "test.bin", _FINE, _COARSE),
)


class Cifar:
    name = "CIFAR-10 or CIFAR-100 as published"

    def matches(self, path: Path) -> bool:
        return bool(_find_versions(path))

    def read(self, path: Path, options: ReadOptions) -> LoadedData:
        versions = _find_versions(path)
        if len(versions) > 1:
            folders = " and ".join(str(folder) for _, folder in versions)
            raise DataError(f"{path} holds more than one data set: give one of {folders}")
        layout, source = versions[0]
        if options.coarse and not layout.is_cifar100:
            raise UsageError(f"coarse asks for CIFAR-100's superclasses, but {path} holds {layout.title}")
        num_bytes, description = _NUM_IMAGES * _IMAGE_BYTES, f"{_NUM_IMAGES:,} images of 32x32"
        options.check_memory(num_bytes, description, source, peak_copies=_PEAK_COPIES)
        members = _folder_members(source, layout.files) if source.is_dir() else _tar_members(source, layout)
        splits = _read(layout, members, source, options)
        name = ("cifar100" if layout.is_cifar100 else "cifar10") + ("-coarse" if options.coarse else "")
        return loaded_from_arrays(name, layout.title, splits, f"it holds {layout.train[0]} and {layout.test}")


def _find_versions(path: Path) -> list[tuple[_Layout, Path]]:
    """(layout, path) of each published version at `path`: the folder itself, its subfolders, or an archive."""
    if path.is_file():
        first = first_member(path)
        folders = PurePosixPath(first.name).parts[:1] if first else ()
        return [(layout, path) for layout in _LAYOUTS if layout.folder in folders]
    here = [(layout, path) for layout in _LAYOUTS if layout.is_in(path)]
    return here or [(layout, path / layout.folder) for layout in _LAYOUTS if layout.is_in(path / layout.folder)]


def _folder_members(folder: Path, names: set[str]) -> Iterator[tuple[str, bytes]]:
    """(name, content) of the files that exist."""
    for name in sorted(names):
        if (folder / name).is_file():
            try:
                yield name, read_regular(folder / name, _MAX_MEMBER_BYTES)
            except OSError as error:
                raise DataError(f"{folder / name}: {error.strerror or error}") from error


def _tar_members(path: Path, layout: _Layout) -> Iterator[tuple[str, bytes]]:
    """(name, content) of the layout's files in an archive, read as a stream."""
    try:
        with open_tar(path) as archive:
            for member in archive:
                inner = check_member_path(member.name, path)
                _check_member(member, inner, path)
                if inner.parent.name != layout.folder or inner.name not in layout.files or member.isdir():
                    continue
                content = archive.extractfile(member)
                assert content is not None
                blob = content.read()
                if len(blob) < member.size:
                    raise EOFError(f"{inner.name} ends early")
                yield inner.name, blob
    except TimeboxError:
        raise
    except TAR_ERRORS as error:
        raise DataError(f"{path}: the archive is truncated or damaged ({error})") from error


def _check_member(member: tarfile.TarInfo, inner: PurePosixPath, path: Path) -> None:
    """Raise DataError for links, devices and files larger than any in the published archives."""
    if member.sparse is not None or member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE):
        raise DataError(f"{path}: holds {member.name!r}, neither a plain file nor a folder but a link, device or other")
    if not 0 <= member.size <= _MAX_MEMBER_BYTES:
        raise DataError(f"{path}: {inner.name} claims {member.size:,} bytes, more than any CIFAR file has")


def _read(layout: _Layout, members: Iterable[tuple[str, bytes]], source: Path, options: ReadOptions) -> SourceSplits:
    batches: dict[str, _Batch] = {}
    metas: dict[str, bytes] = {}
    notify = ProgressNotifier(options.notify)
    for name, blob in members:
        notify(f"read {name}")
        options.time.check()
        if name in (*layout.train, layout.test):
            parse = _parse_binary if layout.is_binary else _parse_pickle
            batches[name] = parse(blob, layout.is_cifar100, options.coarse, f"{source}: {name}")
        else:
            metas[name] = blob
    meta = layout.coarse_names if options.coarse and layout.coarse_names else layout.fine_names
    for name in (*layout.train, layout.test, meta):
        if name not in batches and name not in metas:
            raise DataError(f"{source}: {name} is missing; {layout.title} come as {', '.join(sorted(layout.files))}")
    class_names, batch_length = _parse_meta(metas[meta], layout, options.coarse, f"{source}: {meta}")
    # Without metadata, only the training files must have equally many images.
    names = [*layout.train, layout.test] if batch_length else list(layout.train)
    expected = batch_length or max(len(batches[name].labels) for name in names)
    for name in names:
        if (length := len(batches[name].labels)) != expected:
            raise DataError(f"{source}: wrong length: {name} has {length:,} images, not {expected:,}")
    for name, batch in batches.items():
        if batch.labels.max(initial=0) >= len(class_names):
            raise DataError(
                f"{source}: {name} has the label {batch.labels.max()}, but {meta} names {len(class_names)} classes "
                f"(0..{len(class_names) - 1})"
            )
    test = _join([batches.pop(layout.test)], class_names)
    train = _join([batches.pop(name) for name in layout.train], class_names)
    return SourceSplits(train, test=test)


def _parse_pickle(blob: bytes, is_cifar100: bool, coarse: bool, source: str) -> _Batch:
    content = load_pickled_dict(blob, source)
    key = ("coarse_labels" if coarse else "fine_labels") if is_cifar100 else "labels"
    planes, labels = content.get("data"), content.get(key)
    if not isinstance(planes, np.ndarray) or planes.ndim != 2 or planes.shape[1] != _IMAGE_BYTES:
        raise DataError(f"{source}: wrong length: 'data' must be a matrix of bytes with {_IMAGE_BYTES} to a row")
    if not isinstance(labels, list) or not all(isinstance(label, int) and 0 <= label < 256 for label in labels):
        raise DataError(f"{source}: {key!r} must be a list of integers from 0")
    if len(labels) != len(planes):
        raise DataError(f"{source}: wrong length: {len(planes)} images but {len(labels)} labels")
    return _Batch(planes, np.array(labels, dtype=np.int64))


def _parse_binary(blob: bytes, is_cifar100: bool, coarse: bool, source: str) -> _Batch:
    """Records of one label byte (CIFAR-100: the coarse, then the fine) and 3,072 pixels."""
    num_label_bytes = 2 if is_cifar100 else 1
    record = num_label_bytes + _IMAGE_BYTES
    if not blob or len(blob) % record:
        raise DataError(f"{source}: wrong length: {len(blob):,} bytes are not a number of records of {record:,} bytes")
    rows = np.frombuffer(blob, dtype=np.uint8).reshape(-1, record)
    return _Batch(rows[:, num_label_bytes:], rows[:, 1 if is_cifar100 and not coarse else 0].astype(np.int64))


def _parse_meta(blob: bytes, layout: _Layout, coarse: bool, source: str) -> tuple[tuple[str, ...], int | None]:
    """(class names, images per file; None where the metadata does not hold it)."""
    if layout.is_binary:
        return tuple(blob.decode("utf-8", "replace").split()), None
    content = load_pickled_dict(blob, source)
    key = ("coarse_label_names" if coarse else "fine_label_names") if layout.is_cifar100 else "label_names"
    names, batch_length = content.get(key), content.get("num_cases_per_batch")
    if not isinstance(names, list) or not all(isinstance(name, bytes | str) for name in names):
        raise DataError(f"{source}: {key!r} must be a list of names")
    decoded = tuple(name.decode("latin1") if isinstance(name, bytes) else name for name in names)
    return decoded, batch_length if isinstance(batch_length, int) and 0 < batch_length < 1 << 32 else None


def _join(batches: list[_Batch], class_names: tuple[str, ...]) -> ImageDataset:
    """Concatenate batches to (N, H, W, C) images; ids are positions in the result."""
    length = sum(len(batch.labels) for batch in batches)
    images = np.empty((length, _SIDE, _SIDE, 3), dtype=np.uint8)
    start = 0
    for batch in batches:
        stop = start + len(batch.labels)
        planes = batch.planes.reshape(-1, 3, _SIDE, _SIDE)
        for channel in range(3):  # four times as fast as one transpose
            images[start:stop, ..., channel] = planes[:, channel]
        start = stop
    labels = np.concatenate([batch.labels for batch in batches])
    return ImageDataset(images, labels, class_names, tuple(map(str, range(length))))
