"""CIFAR-10 and CIFAR-100 as published: python pickles, binary files, and the .tar.gz of either, read as a stream.

Source of the formats: https://www.cs.toronto.edu/~kriz/cifar.html
"""

import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from timebox.data.dataset import ImageDataset, LoadedData, SourceSplits
from timebox.data.formats.base import ReadOptions, Throttle, loaded_from_arrays
from timebox.data.reading.safe_pickle import load_pickled_dict
from timebox.data.reading.tar import TAR_ERRORS, check_place, opened_tar
from timebox.errors import DataError, UsageError
from timebox.files import read_regular

_SIDE = 32
_PLANES = 3 * _SIDE * _SIDE  # bytes of an image: the red plane, the green, the blue, row by row
_MAX_MEMBER_BYTES = 1 << 29  # the largest published file has 155 MB
_NUM_IMAGES = 60_000  # of each published form, train and test
_HELD_WHILE_READING = 2.7  # times the images: the files' bytes and the batches beside them; measured on CIFAR-100


@dataclass(frozen=True)
class _Batch:
    """One file's images, uint8 (n, 3072) planes, and labels, int64 (n,)."""

    planes: NDArray[np.uint8]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class _Layout:
    """One published form: its folder, its files, and how labels lie in them."""

    folder: str
    title: str
    train: tuple[str, ...]
    test: str
    fine_names: str  # the file that names the classes
    coarse_names: str | None = None  # the superclasses, which only CIFAR-100 has

    @property
    def hundred(self) -> bool:
        return self.coarse_names is not None

    @property
    def binary(self) -> bool:
        return self.test.endswith(".bin")

    @property
    def files(self) -> set[str]:
        return {*self.train, self.test, self.fine_names, self.coarse_names or self.fine_names}

    def lies_in(self, folder: Path) -> bool:
        return all((folder / name).is_file() for name in (self.train[0], self.test))


_BATCHES = tuple(f"data_batch_{k}" for k in range(1, 6))
_LAYOUTS = (
    _Layout(
        folder="cifar-10-batches-py",
        title="CIFAR-10 python batches",
        train=_BATCHES,
        test="test_batch",
        fine_names="batches.meta",
    ),
    _Layout(
        folder="cifar-10-batches-bin",
        title="CIFAR-10 binary batches",
        train=tuple(f"{name}.bin" for name in _BATCHES),
        test="test_batch.bin",
        fine_names="batches.meta.txt",
    ),
    _Layout(
        folder="cifar-100-python",
        title="CIFAR-100 python files",
        train=("train",),
        test="test",
        fine_names="meta",
        coarse_names="meta",
    ),
    _Layout(
        folder="cifar-100-binary",
        title="CIFAR-100 binary files",
        train=("train.bin",),
        test="test.bin",
        fine_names="fine_label_names.txt",
        coarse_names="coarse_label_names.txt",
    ),
)


class Cifar:
    name = "CIFAR-10 or CIFAR-100 as published (python or binary, folder or .tar.gz)"

    def matches(self, path: Path) -> bool:
        return bool(_layouts_at(path))

    def read(self, path: Path, options: ReadOptions) -> LoadedData:
        found = _layouts_at(path)
        if len(found) > 1:
            folders = " and ".join(str(folder) for _, folder in found)
            raise DataError(f"{path} holds more than one data set: give one of {folders}")
        layout, source = found[0]
        if options.coarse and not layout.hundred:
            raise UsageError(f"coarse asks for CIFAR-100's superclasses, but {path} holds {layout.title}")
        options.claim(_NUM_IMAGES * _PLANES, f"{_NUM_IMAGES:,} images of 32x32", source, reading=_HELD_WHILE_READING)
        members = _folder_members(source, layout.files) if source.is_dir() else _tar_members(source, layout)
        splits = _read(layout, members, source, options)
        name = ("cifar100" if layout.hundred else "cifar10") + ("-coarse" if options.coarse else "")
        return loaded_from_arrays(name, layout.title, splits, f"it holds {layout.train[0]} and {layout.test}")


def _layouts_at(path: Path) -> list[tuple[_Layout, Path]]:
    """The published forms found at `path`: the folder itself, folders in it, or an archive of one."""
    if path.is_file():
        folder = _first_folder(path)
        return [(layout, path) for layout in _LAYOUTS if layout.folder == folder]
    here = [(layout, path) for layout in _LAYOUTS if layout.lies_in(path)]
    return here or [(layout, path / layout.folder) for layout in _LAYOUTS if layout.lies_in(path / layout.folder)]


def _first_folder(path: Path) -> str | None:
    """The top folder in a tar file, or None if it is none."""
    try:
        with opened_tar(path) as archive:
            first = archive.next()
    except TAR_ERRORS:  # DataError is a ValueError
        return None
    return PurePosixPath(first.name).parts[0] if first and PurePosixPath(first.name).parts else None


def _folder_members(folder: Path, wanted: set[str]) -> Iterator[tuple[str, bytes]]:
    for name in sorted(wanted):
        if (folder / name).is_file():
            try:
                yield name, read_regular(folder / name, _MAX_MEMBER_BYTES)
            except OSError as error:
                raise DataError(f"{folder / name}: {error.strerror or error}") from error


def _tar_members(path: Path, layout: _Layout) -> Iterator[tuple[str, bytes]]:
    """The layout's files in an archive as they come, nothing written to disk."""
    try:
        with opened_tar(path) as archive:
            for member in archive:
                inner = check_place(member.name, path)
                _check_member(member, inner, path)
                if inner.parent.name != layout.folder or inner.name not in layout.files or member.isdir():
                    continue
                content = archive.extractfile(member)
                assert content is not None
                blob = content.read()
                if len(blob) < member.size:
                    raise EOFError(f"{inner.name} ends early")
                yield inner.name, blob
    except DataError:
        raise
    except TAR_ERRORS as error:
        raise DataError(f"{path}: the archive is truncated or damaged ({error})") from error


def _check_member(member: tarfile.TarInfo, inner: PurePosixPath, path: Path) -> None:
    """Refuses what no published archive holds."""
    if member.sparse is not None or member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE):
        raise DataError(f"{path}: holds {member.name!r}, neither a plain file nor a folder but a link, device or other")
    if not 0 <= member.size <= _MAX_MEMBER_BYTES:
        raise DataError(f"{path}: {inner.name} claims {member.size:,} bytes, more than any CIFAR file has")


def _read(layout: _Layout, members: Iterable[tuple[str, bytes]], source: Path, options: ReadOptions) -> SourceSplits:
    batches: dict[str, _Batch] = {}
    metas: dict[str, bytes] = {}
    notify = Throttle(options.progress)
    for name, blob in members:
        notify(f"read {name}")
        if name in (*layout.train, layout.test):
            parse = _parse_binary if layout.binary else _parse_pickle
            batches[name] = parse(blob, layout.hundred, options.coarse, f"{source}: {name}")
        else:
            metas[name] = blob
    meta = layout.coarse_names if options.coarse and layout.coarse_names else layout.fine_names
    for name in (*layout.train, layout.test, meta):
        if name not in batches and name not in metas:
            raise DataError(f"{source}: {name} is missing; {layout.title} come as {', '.join(sorted(layout.files))}")
    class_names, batch_length = _parse_meta(metas[meta], layout, options.coarse, f"{source}: {meta}")
    _check_lengths(batches, layout, batch_length, source)
    for name, batch in batches.items():
        if batch.labels.max(initial=0) >= len(class_names):
            raise DataError(
                f"{source}: {name} has the label {batch.labels.max()}, but {meta} names {len(class_names)} classes "
                f"(0..{len(class_names) - 1})"
            )
    test = _join([batches.pop(layout.test)], class_names)
    train = _join([batches.pop(name) for name in layout.train], class_names)
    return SourceSplits(train, None, test)


def _parse_pickle(blob: bytes, hundred: bool, coarse: bool, source: str) -> _Batch:
    content = load_pickled_dict(blob, source)
    key = ("coarse_labels" if coarse else "fine_labels") if hundred else "labels"
    planes, labels = content.get("data"), content.get(key)
    if not isinstance(planes, np.ndarray) or planes.ndim != 2 or planes.shape[1] != _PLANES:
        raise DataError(f"{source}: wrong length: 'data' must be a matrix of bytes with {_PLANES} to a row")
    if not isinstance(labels, list) or not all(isinstance(label, int) and 0 <= label < 256 for label in labels):
        raise DataError(f"{source}: {key!r} must be a list of integers from 0")
    if len(labels) != len(planes):
        raise DataError(f"{source}: wrong length: {len(planes)} images but {len(labels)} labels")
    return _Batch(planes, np.array(labels, dtype=np.int64))


def _parse_binary(blob: bytes, hundred: bool, coarse: bool, source: str) -> _Batch:
    """Records of one label byte (CIFAR-100: the coarse, then the fine) and 3,072 pixels."""
    num_label_bytes = 2 if hundred else 1
    record = num_label_bytes + _PLANES
    if not blob or len(blob) % record:
        raise DataError(f"{source}: wrong length: {len(blob):,} bytes are not a number of records of {record:,} bytes")
    rows = np.frombuffer(blob, dtype=np.uint8).reshape(-1, record)
    return _Batch(rows[:, num_label_bytes:], rows[:, 1 if hundred and not coarse else 0].astype(np.int64))


def _parse_meta(blob: bytes, layout: _Layout, coarse: bool, source: str) -> tuple[tuple[str, ...], int | None]:
    """The class names, and the length of a batch where the file tells it."""
    if layout.binary:
        return tuple(blob.decode("utf-8", "replace").split()), None
    content = load_pickled_dict(blob, source)
    key = ("coarse_label_names" if coarse else "fine_label_names") if layout.hundred else "label_names"
    names, batch_length = content.get(key), content.get("num_cases_per_batch")
    if not isinstance(names, list) or not all(isinstance(name, bytes | str) for name in names):
        raise DataError(f"{source}: {key!r} must be a list of names")
    decoded = tuple(name.decode("latin1") if isinstance(name, bytes) else name for name in names)
    return decoded, batch_length if isinstance(batch_length, int) and 0 < batch_length < 1 << 32 else None


def _check_lengths(batches: dict[str, _Batch], layout: _Layout, batch_length: int | None, source: Path) -> None:
    """Every batch as long as the meta file says, or else the training batches as long as each other."""
    names = [*layout.train, layout.test] if batch_length else list(layout.train)
    expected = batch_length or max(len(batches[name].labels) for name in names)
    for name in names:
        if (length := len(batches[name].labels)) != expected:
            raise DataError(f"{source}: wrong length: {name} has {length:,} images, not {expected:,}")


def _join(batches: list[_Batch], class_names: tuple[str, ...]) -> ImageDataset:
    """The batches one after the other, planes turned to pixels; ids count through them."""
    length = sum(len(batch.labels) for batch in batches)
    images = np.empty((length, _SIDE, _SIDE, 3), dtype=np.uint8)
    start = 0
    for batch in batches:
        stop = start + len(batch.labels)
        planes = batch.planes.reshape(-1, 3, _SIDE, _SIDE)
        for channel in range(3):  # four times as fast as transposing all at once
            images[start:stop, ..., channel] = planes[:, channel]
        start = stop
    labels = np.concatenate([batch.labels for batch in batches])
    return ImageDataset(images, labels, class_names, tuple(map(str, range(length))))
