"""Data sets known by name (cifar10, cifar100, mnist, digits): where they are searched for and downloaded from."""

import difflib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from timebox.data.dataset import ImageDataset, LoadedData, SourceSplits
from timebox.data.download import PublishedFile, download
from timebox.data.reading.array_splits import loaded_from_arrays
from timebox.errors import DataError, option_text
from timebox.paths import expand_user, user_cache

DATA_DIR_VARIABLE = "TIMEBOX_DATA"


@dataclass(frozen=True)
class NamedDataset:
    """The paths of a data set in a data directory, and the files to download."""

    paths: tuple[str, ...]  # files or folders, in the order they are searched
    file_groups: tuple[tuple[str, ...], ...]  # a folder counts if it holds all files of one of these groups
    files: tuple[PublishedFile, ...]
    folder: str = "."  # where the files are downloaded to


def _published(name: str, md5: str, *base_urls: str) -> PublishedFile:
    return PublishedFile(name, tuple(base + name for base in base_urls), md5)


_TORONTO = "https://www.cs.toronto.edu/~kriz/"
_MNIST_BASES = ("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/")
_MNIST_FILES = (
    _published("train-images-idx3-ubyte.gz", "f68b3c2dcbeaaa9fbdd348bbdeb94873", *_MNIST_BASES),
    _published("train-labels-idx1-ubyte.gz", "d53e105ee54ea40749a09fcbcd1e9432", *_MNIST_BASES),
    _published("t10k-images-idx3-ubyte.gz", "9fb629c4189551a2d022fa330f9573f3", *_MNIST_BASES),
    _published("t10k-labels-idx1-ubyte.gz", "ec29112dd5afa0611ce80d1b7f02629c", *_MNIST_BASES),
)
NAMED_DATASETS = {
    "cifar10": NamedDataset(
        paths=("cifar-10-batches-py", "cifar-10-batches-bin", "cifar-10-python.tar.gz", "cifar-10-binary.tar.gz", "."),
        file_groups=(("data_batch_1", "test_batch"), ("data_batch_1.bin", "test_batch.bin")),
        files=(_published("cifar-10-python.tar.gz", "c58f30108f718f92721af3b95e74349a", _TORONTO),),
    ),
    "cifar100": NamedDataset(
        paths=("cifar-100-python", "cifar-100-binary", "cifar-100-python.tar.gz", "cifar-100-binary.tar.gz", "."),
        file_groups=(("train", "test", "meta"), ("train.bin", "test.bin", "fine_label_names.txt")),
        files=(_published("cifar-100-python.tar.gz", "eb9058c3a382ffc7106e4002c42a8d85", _TORONTO),),
    ),
    "mnist": NamedDataset(
        paths=("mnist", "MNIST/raw", "MNIST", "."),
        file_groups=(
            tuple(published.name for published in _MNIST_FILES),
            tuple(published.name.removesuffix(".gz") for published in _MNIST_FILES),
        ),
        files=_MNIST_FILES,
        folder="mnist",
    ),
}
NAMES = (*NAMED_DATASETS, "digits")


def locate(
    name: str, *, data_dir: Path | None, allow_download: bool = True, notify: Callable[[str], None] = lambda text: None
) -> tuple[Path, float]:
    """(path of a data set, seconds of its download; 0 where it was on this machine).

    Searches data_dir, TIMEBOX_DATA and the user cache; a download goes to the first of these that is set. Raises
    DataError, with the files needed and where to put them, if there is no such data set and no download.
    """
    named = NAMED_DATASETS[name]
    roots = [Path(expand_user(root)) for root in (data_dir, os.environ.get(DATA_DIR_VARIABLE), user_cache()) if root]
    if not roots:
        raise DataError(
            f"{name} is not on this machine, and this user has no home directory to download it to: say with "
            f"{option_text('data_dir')} or {DATA_DIR_VARIABLE} where it lies, or where to put it"
        )
    for root in roots:
        if (path := _find(named, root)) is not None:
            return path, 0.0
    start, target = time.monotonic(), roots[0] / named.folder
    try:
        if not allow_download:
            raise DataError("downloading is switched off")
        for file in named.files:
            if not (target / file.name).exists():
                notify(f"downloading {file.name} to {target}")
                download(file, target / file.name, notify=notify)
    except DataError as error:
        files = ", ".join(file.name for file in named.files)
        searched = ", ".join(map(str, roots))
        raise DataError(
            f"{name} is not on this machine (looked in {searched}), and {error}. Put {files} into {target}, "
            f"or say with {option_text('data_dir')} or {DATA_DIR_VARIABLE} where it lies"
        ) from error
    path = _find(named, roots[0])
    assert path is not None
    return path, time.monotonic() - start


def unknown_source(source: str) -> DataError:
    """The error for a source that is neither a path nor a name."""
    close = difflib.get_close_matches(source.lower(), NAMES, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return DataError(f"no such path or data set: {source!r}.{hint} Give a path, or one of {', '.join(NAMES)}")


def _find(named: NamedDataset, root: Path) -> Path | None:
    for path in (root / relative for relative in named.paths):
        if path.is_file() or any(all((path / name).is_file() for name in group) for group in named.file_groups):
            return path
    return None


def read_digits() -> LoadedData:
    """Read scikit-learn's handwritten digits: uint8 (1797, 8, 8, 1) in one split; grey levels 0..16 become 0..255."""
    from sklearn.datasets import load_digits  # takes half a second

    bunch = load_digits()
    images = np.rint(bunch.images[..., None] * (255 / 16)).astype(np.uint8)
    names, ids = tuple(map(str, range(10))), tuple(map(str, range(len(images))))
    splits = SourceSplits(ImageDataset(images, bunch.target.astype(np.int64), names, ids))
    return loaded_from_arrays("digits", "scikit-learn's digits", splits, "digits is the name of this data set")
