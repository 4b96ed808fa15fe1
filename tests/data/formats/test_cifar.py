import gzip
import io
import os
import pickle
import tarfile

import numpy as np
import pytest

from data.reading.test_safe_pickle import Calling
from timebox.data import load_data
from timebox.errors import DataError, UsageError

from .. import making


def assert_is_cifar10(loaded, per_batch=10):
    train, test = loaded.splits.train, loaded.splits.test
    batches = making.cifar10_batches(per_batch)
    planes = np.concatenate([batches[f"data_batch_{k}"][0] for k in range(1, 6)])
    assert loaded.name == "cifar10"
    assert train.images.shape == (5 * per_batch, 32, 32, 3)
    assert np.array_equal(train.images, planes.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
    assert train.labels.tolist() == batches["data_batch_1"][1] * 5
    assert list(train.class_names) == making.CIFAR10_CLASSES
    assert test.images[0, 0, 1].tolist() == batches["test_batch"][0][0, [1, 1025, 2049]].tolist()
    assert loaded.splits.val is None
    assert loaded.sizes == {"32x32": 6 * per_batch}
    assert train.ids[-1] == "49"


def test_python_folder_and_its_parent(tmp_path):
    folder = making.cifar10_python(tmp_path)
    assert load_data(folder).format == "CIFAR-10 python batches"
    assert_is_cifar10(load_data(folder))
    assert_is_cifar10(load_data(tmp_path))


def test_binary_folder(tmp_path):
    loaded = load_data(making.cifar10_binary(tmp_path))
    assert loaded.format == "CIFAR-10 binary batches"
    assert_is_cifar10(loaded)


@pytest.mark.parametrize("make", [making.cifar10_python, making.cifar10_binary])
def test_the_archive_is_read_as_a_stream(tmp_path, make):
    archive = making.tarball(make(tmp_path / "source"), tmp_path / "cifar.tar.gz")
    before = sorted(tmp_path.rglob("*"))
    assert_is_cifar10(load_data(archive))
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("make", [making.cifar100_python, making.cifar100_binary])
@pytest.mark.parametrize("archived", [False, True])
def test_cifar100_fine_and_coarse(tmp_path, make, archived):
    source = make(tmp_path)
    if archived:
        source = making.tarball(source, tmp_path / "c.tar.gz")
    fine, coarse = load_data(source), load_data(source, coarse=True)
    assert (fine.name, coarse.name) == ("cifar100", "cifar100-coarse")
    assert fine.splits.train.class_names == ("beaver", "otter", "trout", "shark")
    assert coarse.splits.train.class_names == ("mammals", "fish")
    assert np.array_equal(fine.splits.test.labels // 2, coarse.splits.test.labels)
    assert np.array_equal(fine.splits.train.images, coarse.splits.train.images)


def test_coarse_is_for_cifar100_only(tmp_path):
    with pytest.raises(UsageError, match=r"coarse asks for CIFAR-100's superclasses, but .* CIFAR-10 python"):
        load_data(making.cifar10_python(tmp_path), coarse=True)


def test_two_datasets_in_one_folder_are_refused(tmp_path):
    making.cifar10_python(tmp_path)
    making.cifar100_python(tmp_path)
    with pytest.raises(DataError, match=r"more than one data set: give one of .*cifar-10-batches-py and .*cifar-100"):
        load_data(tmp_path)


def test_a_malicious_batch_is_refused_naming_file_and_global(tmp_path):
    folder = making.cifar10_python(tmp_path)
    (folder / "data_batch_3").write_bytes(pickle.dumps(Calling(os.system, "true"), protocol=2))
    with pytest.raises(DataError, match=r"data_batch_3: this pickle asks for (posix|nt)\.system"):
        load_data(folder)


def rewrite(folder, name, **changes):
    content = pickle.loads((folder / name).read_bytes(), encoding="bytes")
    content |= {key.encode(): value for key, value in changes.items()}
    (folder / name).write_bytes(pickle.dumps(content, protocol=2))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"labels": [0] * 9}, "data_batch_2: wrong length: 10 images but 9 labels"),
        ({"data": making.cifar_arrays(9)[0], "labels": [0] * 9}, "wrong length: data_batch_2 has 9 images, not 10"),
        ({"data": np.zeros((10, 3071), np.uint8)}, "data_batch_2: wrong length: 'data' must be .* 3072 to a row"),
        ({"data": b"pixels"}, "'data' must be a matrix"),
        ({"labels": [0] * 9 + [10]}, r"data_batch_2 has the label 10, but batches.meta names 10 classes \(0..9\)"),
        ({"labels": [0] * 9 + [-1]}, "data_batch_2: 'labels' must be a list of integers from 0"),
        ({"labels": None}, "'labels' must be a list of integers"),
    ],
)
def test_an_inconsistent_batch_is_refused(tmp_path, changes, words):
    folder = making.cifar10_python(tmp_path)
    rewrite(folder, "data_batch_2", **changes)
    with pytest.raises(DataError, match=words):
        load_data(folder)


def test_a_binary_batch_of_wrong_length_is_refused(tmp_path):
    folder = making.cifar10_binary(tmp_path)
    batch = folder / "data_batch_4.bin"
    whole = batch.read_bytes()
    batch.write_bytes(whole[:-1])
    with pytest.raises(DataError, match=r"data_batch_4\.bin: wrong length: 30,729 bytes .* records of 3,073 bytes"):
        load_data(folder)
    batch.write_bytes(whole[:-3073])
    with pytest.raises(DataError, match=r"wrong length: data_batch_4\.bin has 9 images, not 10"):
        load_data(folder)


def test_missing_files_are_named(tmp_path):
    folder = making.cifar10_python(tmp_path)
    (folder / "data_batch_5").unlink()
    with pytest.raises(DataError, match="data_batch_5 is missing"):
        load_data(folder)
    (folder / "data_batch_5").write_bytes((folder / "data_batch_4").read_bytes())
    (folder / "batches.meta").unlink()
    with pytest.raises(DataError, match=r"batches\.meta is missing"):
        load_data(folder)


def test_a_broken_archive_is_refused(tmp_path):
    archive = making.tarball(making.cifar10_binary(tmp_path), tmp_path / "c.tar.gz")
    archive.write_bytes(archive.read_bytes()[: archive.stat().st_size // 2])
    with pytest.raises(DataError, match="the archive is truncated or damaged"):
        load_data(archive)


def test_a_member_of_absurd_size_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("timebox.data.formats.cifar._MAX_MEMBER_BYTES", 1000)
    archive = making.tarball(making.cifar10_binary(tmp_path), tmp_path / "c.tar.gz")
    with pytest.raises(DataError, match=r"claims .* bytes, more than any CIFAR file has"):
        load_data(archive)


def altered(tmp_path, *members):
    """An archive of a data set, with extra members at the front; these are (TarInfo, content)."""
    whole = making.tarball(making.cifar10_python(tmp_path), tmp_path / "whole.tar.gz")
    path = tmp_path / "altered.tar.gz"
    with tarfile.open(whole) as old, tarfile.open(path, "w:gz", format=tarfile.PAX_FORMAT) as new:
        new.addfile(old.next())
        for member, content in members:
            new.addfile(member, io.BytesIO(content))
        for member in old:
            new.addfile(member, old.extractfile(member))
    return path


def member(name, **fields):
    info = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(info, field, value)
    return info


@pytest.mark.parametrize(
    ("info", "words"),
    [
        (member("cifar-10-batches-py/../../data_batch_1"), "which lies outside the archive; refused"),
        (member("/cifar-10-batches-py/data_batch_1"), "which lies outside the archive; refused"),
        (member("cifar-10-batches-py/data_batch_1", type=tarfile.SYMTYPE, linkname="/etc/passwd"), "link, device"),
        (member("cifar-10-batches-py/x", type=tarfile.LNKTYPE, linkname="data_batch_1"), "link, device"),
        (member("cifar-10-batches-py/x", type=tarfile.FIFOTYPE), "link, device"),
        (member("cifar-10-batches-py/x", type=tarfile.CHRTYPE, devmajor=1, devminor=5), "link, device"),
    ],
)
def test_an_archive_with_harmful_members_is_refused(tmp_path, info, words):
    with pytest.raises(DataError, match=words):
        load_data(altered(tmp_path, (info, b"")))
    assert {path.name for path in tmp_path.iterdir()} == {"cifar-10-batches-py", "whole.tar.gz", "altered.tar.gz"}


def test_other_files_of_an_archive_are_left_alone(tmp_path):
    path = altered(tmp_path, (member("data_batch_1", size=3), b"abc"), (member("cifar-10-batches-py/x", size=1), b"x"))
    assert len(load_data(path).splits.train) == 50


def test_a_sparse_member_is_refused(tmp_path):
    info = member("cifar-10-batches-py/data_batch_1", size=512)
    info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "999999"}
    with pytest.raises(DataError, match="link, device or other"):
        load_data(altered(tmp_path, (info, b"1\n0\n512\n".ljust(512, b"\0"))))


def test_a_tar_bomb_is_refused_while_it_unpacks(tmp_path, monkeypatch):
    monkeypatch.setattr("timebox.data.reading.decompression_limits.UNLIMITED_RATIO_BYTES", 1 << 20)
    monkeypatch.setattr("timebox.data.reading.decompression_limits.MAX_RATIO", 20)
    path = altered(tmp_path, (member("cifar-10-batches-py/x", size=50 << 20), bytes(50 << 20)))
    with pytest.raises(DataError, match="looks like a decompression bomb"):
        load_data(path)


def test_endless_headers_are_refused(tmp_path):
    long_name = tarfile.TarInfo("cifar-10-batches-py/data_batch_1")
    long_name.type, long_name.size = tarfile.GNUTYPE_LONGNAME, 1
    whole = making.tarball(making.cifar10_python(tmp_path), tmp_path / "c.tar.gz")
    first = member("cifar-10-batches-py", type=tarfile.DIRTYPE).tobuf()
    block = long_name.tobuf() + b"x".ljust(512, b"\0")
    whole.write_bytes(gzip.compress(first + block * 3000))
    with pytest.raises(DataError, match="truncated or damaged"):
        load_data(whole)


def test_absurd_numbers_in_the_meta_file_are_refused(tmp_path):
    folder = making.cifar10_python(tmp_path)
    for length in (10**5000, -1, 0):
        rewrite(folder, "batches.meta", num_cases_per_batch=length)
        assert len(load_data(folder).splits.train) == 50
    rewrite(folder, "batches.meta", label_names=["\ud800", *"bcdefghij"])
    with pytest.raises(DataError, match="cannot be encoded"):
        load_data(folder)


def test_a_file_of_absurd_size_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("timebox.data.formats.cifar._MAX_MEMBER_BYTES", 1000)
    with pytest.raises(DataError, match="larger than the 1,000 bytes"):
        load_data(making.cifar10_python(tmp_path))


@pytest.mark.integration
def test_published_cifar10(real_data):
    loaded = load_data(real_data("cifar10"))
    assert loaded.splits.train.class_counts().tolist() == [5000] * 10
    assert loaded.splits.test.class_counts().tolist() == [1000] * 10
    assert loaded.splits.train.class_names[6] == "frog"
    assert loaded.splits.train.labels[:5].tolist() == [6, 9, 9, 4, 1]
    assert loaded.splits.train.images[0, 0, 0].tolist() == [59, 62, 63]
