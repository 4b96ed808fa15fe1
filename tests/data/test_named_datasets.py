import hashlib
from dataclasses import replace

import pytest

from timebox.data import load_data
from timebox.data import named_datasets as names
from timebox.data.download import PublishedFile
from timebox.errors import DataError

from . import making
from .serving import FileServer


@pytest.fixture(autouse=True)
def _nothing_cached(tmp_path, monkeypatch):
    monkeypatch.delenv("TIMEBOX_DATA", raising=False)
    monkeypatch.setattr("platformdirs.user_cache_path", lambda name: tmp_path / "cache" / name)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


def locate(name, data_dir=None):
    return names.locate(name, data_dir=data_dir, allow_download=False)[0]


def test_any_layout_in_a_data_directory_is_found(tmp_path):
    for number, make in enumerate((making.cifar10_python, making.cifar10_binary)):
        root = tmp_path / str(number)
        folder = make(root)
        assert locate("cifar10", root) == folder
        assert locate("cifar10", folder) == folder
        archive = making.tarball(folder, tmp_path / f"cifar-10-{('python', 'binary')[number]}.tar.gz")
        assert locate("cifar10", tmp_path) == archive
        archive.unlink()
    assert locate("cifar100", making.cifar100_python(tmp_path).parent) == tmp_path / "cifar-100-python"
    making.mnist_folder(tmp_path / "m" / "MNIST" / "raw", zipped=False)
    assert locate("mnist", tmp_path / "m") == tmp_path / "m" / "MNIST" / "raw"


def test_data_dir_precedes_the_variable_and_the_variable_the_cache(tmp_path, monkeypatch):
    cached = making.cifar10_python(tmp_path / "cache" / "timebox")
    assert locate("cifar10", tmp_path / "empty") == cached
    variable = making.cifar10_python(tmp_path / "variable")
    monkeypatch.setenv("TIMEBOX_DATA", str(tmp_path / "variable"))
    assert locate("cifar10") == variable
    explicit = making.cifar10_python(tmp_path / "given")
    assert locate("cifar10", tmp_path / "given") == explicit


def test_without_download_the_error_names_the_files_and_folder(tmp_path):
    words = (
        r"^cifar10 is not on this machine \(looked in .*here, .*cache/timebox\), and downloading is switched off\. "
        r"Put cifar-10-python\.tar\.gz into .*here, or say with data_dir or TIMEBOX_DATA where it lies$"
    )
    with pytest.raises(DataError, match=words):
        load_data("cifar10", data_dir=tmp_path / "here", download=False)


@pytest.fixture
def served(monkeypatch):
    """A tiny MNIST in place of the published one."""
    files = making.mnist_files()
    with FileServer(files) as server:
        published = tuple(
            PublishedFile(name, (server.url + name,), hashlib.md5(blob).hexdigest()) for name, blob in files.items()
        )
        monkeypatch.setitem(names.NAMED_DATASETS, "mnist", replace(names.NAMED_DATASETS["mnist"], files=published))
        yield server


def test_a_named_dataset_is_downloaded_once(served, tmp_path):
    first = load_data("mnist", data_dir=tmp_path)
    assert (first.name, first.format, len(first.splits.train)) == ("mnist", "IDX files", 20)
    assert first.download_seconds > 0
    assert sorted(path.name for path in (tmp_path / "mnist").iterdir()) == sorted(served.files)
    again = load_data("mnist", data_dir=tmp_path)
    assert again.download_seconds == 0
    assert len(served.requests) == 4


def test_a_partial_download_is_completed(served, tmp_path):
    served.statuses = []
    missing = served.files.pop("t10k-labels-idx1-ubyte.gz")
    with pytest.raises(DataError, match=r"mnist is not on this machine .*t10k-labels-idx1-ubyte\.gz: HTTP 404"):
        load_data("mnist", data_dir=tmp_path)
    served.files["t10k-labels-idx1-ubyte.gz"] = missing
    assert len(load_data("mnist", data_dir=tmp_path).splits.test) == 10
    assert len(served.requests) == 5


def test_a_wrong_md5_sum_is_refused_with_both_sums(served, tmp_path):
    served.files["train-images-idx3-ubyte.gz"] = b"something else"
    with pytest.raises(
        DataError, match=r"wrong bytes: its MD5 sum is [0-9a-f]{32}, the published one [0-9a-f]{32}\. Put "
    ):
        load_data("mnist", data_dir=tmp_path)


def test_a_named_archive_is_read(tmp_path):
    making.tarball(making.cifar10_python(tmp_path / "source"), tmp_path / "cifar-10-python.tar.gz")
    loaded = load_data("cifar10", data_dir=tmp_path)
    assert (loaded.name, len(loaded.splits.train)) == ("cifar10", 50)


def test_coarse_labels_change_the_name(tmp_path):
    making.cifar100_python(tmp_path)
    assert load_data("cifar100", data_dir=tmp_path, coarse=True).name == "cifar100-coarse"


def test_md5_sums_of_the_published_files():
    sums = {published.name: published.md5 for named in names.NAMED_DATASETS.values() for published in named.files}
    assert len(sums) == 6
    assert sums["cifar-10-python.tar.gz"] == "c58f30108f718f92721af3b95e74349a"
    assert sums["train-labels-idx1-ubyte.gz"] == "d53e105ee54ea40749a09fcbcd1e9432"
    assert set(names.NAMES) == {*names.NAMED_DATASETS, "digits"}
