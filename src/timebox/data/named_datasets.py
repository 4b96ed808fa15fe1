"""Data sets known by name: where they may lie, and where they come from."""

import difflib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from timebox.data.download import download as fetch
from timebox.errors import DataError

DATA_DIR_VARIABLE = "TIMEBOX_DATA"


@dataclass(frozen=True)
class Published:
    """A file as its authors publish it: addresses that serve it, tried in order, and its MD5 sum."""

    file: str
    urls: tuple[str, ...]
    md5: str


@dataclass(frozen=True)
class NamedSet:
    """Where a data set may lie below a data directory, and what is fetched where it does not.

    places  relative to the data directory, the first found is taken: files, or folders
    signs   a folder counts as found if it holds all files of one of these groups
    folder  where the published files are put, relative to the data directory
    """

    places: tuple[str, ...]
    signs: tuple[tuple[str, ...], ...]
    files: tuple[Published, ...]
    folder: str = "."


def _published(file: str, md5: str, *bases: str) -> Published:
    return Published(file, tuple(base + file for base in bases), md5)


_TORONTO = "https://www.cs.toronto.edu/~kriz/"
_MNIST_BASES = ("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/")
_MNIST_FILES = (
    _published("train-images-idx3-ubyte.gz", "f68b3c2dcbeaaa9fbdd348bbdeb94873", *_MNIST_BASES),
    _published("train-labels-idx1-ubyte.gz", "d53e105ee54ea40749a09fcbcd1e9432", *_MNIST_BASES),
    _published("t10k-images-idx3-ubyte.gz", "9fb629c4189551a2d022fa330f9573f3", *_MNIST_BASES),
    _published("t10k-labels-idx1-ubyte.gz", "ec29112dd5afa0611ce80d1b7f02629c", *_MNIST_BASES),
)
NAMED_SETS = {
    "cifar10": NamedSet(
        places=("cifar-10-batches-py", "cifar-10-batches-bin", "cifar-10-python.tar.gz", "cifar-10-binary.tar.gz", "."),
        signs=(("data_batch_1", "test_batch"), ("data_batch_1.bin", "test_batch.bin")),
        files=(_published("cifar-10-python.tar.gz", "c58f30108f718f92721af3b95e74349a", _TORONTO),),
    ),
    "cifar100": NamedSet(
        places=("cifar-100-python", "cifar-100-binary", "cifar-100-python.tar.gz", "cifar-100-binary.tar.gz", "."),
        signs=(("train", "test", "meta"), ("train.bin", "test.bin", "fine_label_names.txt")),
        files=(_published("cifar-100-python.tar.gz", "eb9058c3a382ffc7106e4002c42a8d85", _TORONTO),),
    ),
    "mnist": NamedSet(
        places=("mnist", "MNIST/raw", "MNIST", "."),
        signs=(
            tuple(published.file for published in _MNIST_FILES),
            tuple(published.file.removesuffix(".gz") for published in _MNIST_FILES),
        ),
        files=_MNIST_FILES,
        folder="mnist",
    ),
}
NAMES = ("cifar10", "cifar100", "mnist", "digits")


@dataclass(frozen=True)
class Located:
    """Where a named data set lies, and the seconds its download took (0 if it was there)."""

    path: Path
    download_seconds: float


def locate(
    name: str, *, data_dir: Path | None, download: bool = True, progress: Callable[[str], None] = lambda text: None
) -> Located:
    """Find the data set `name`, one of NAMED_SETS, in data_dir, TIMEBOX_DATA or the user cache, else download it.

    A download goes into the first of these that is given. Raises DataError, saying what to put where, if the data set
    is nowhere and cannot be fetched.
    """
    named, roots = NAMED_SETS[name], _roots(data_dir)
    for root in roots:
        if (found := _find(named, root)) is not None:
            return Located(found, 0.0)
    start, target = time.monotonic(), roots[0] / named.folder
    try:
        if not download:
            raise DataError("downloading is switched off")
        for published in named.files:
            if not (target / published.file).exists():
                progress(f"downloading {published.file} to {target}")
                fetch(published.urls, target / published.file, published.md5, progress=progress)
    except DataError as error:
        files = ", ".join(published.file for published in named.files)
        looked = ", ".join(map(str, roots))
        raise DataError(
            f"{name} is not on this machine (looked in {looked}), and {error}. Put {files} into {target}, "
            f"or say with --data-dir or {DATA_DIR_VARIABLE} where it lies"
        ) from error
    found = _find(named, roots[0])
    assert found is not None
    return Located(found, time.monotonic() - start)


def unknown_source(source: str) -> DataError:
    """The error for a source that is neither a path nor a name."""
    close = difflib.get_close_matches(source.lower(), NAMES, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return DataError(f"no such path or data set: {source!r}.{hint} Give a path, or one of {', '.join(NAMES)}")


def _roots(data_dir: Path | None) -> list[Path]:
    """The data directories to search, the first being the one a download goes to."""
    import platformdirs  # nothing that is given as a path needs it

    given = [data_dir, Path(os.environ[DATA_DIR_VARIABLE]) if os.environ.get(DATA_DIR_VARIABLE) else None]
    return [root for root in given if root is not None] + [platformdirs.user_cache_path("timebox")]


def _find(named: NamedSet, root: Path) -> Path | None:
    for place in named.places:
        path = root / place
        if path.is_file() or any(all((path / file).is_file() for file in group) for group in named.signs):
            return path
    return None
