import gzip
import os

import numpy as np
import pytest

from timebox.data import load_data
from timebox.errors import DataError

from ..making import idx_bytes, mnist_arrays, mnist_folder


@pytest.mark.parametrize("zipped", [True, False])
def test_the_published_files_are_read(tmp_path, zipped):
    loaded = load_data(mnist_folder(tmp_path / "numbers", zipped))
    assert (loaded.name, loaded.format) == ("numbers", "IDX files")
    assert loaded.splits.train.images.shape == (20, 9, 7, 1)
    assert np.array_equal(loaded.splits.train.images[..., 0], mnist_arrays(20, 0)[0])
    assert loaded.splits.train.class_names == tuple("0123456789")
    assert loaded.splits.test.labels.tolist() == list(range(10))
    assert loaded.sizes == {"7x9": 30}


def test_any_one_of_the_files_is_accepted_as_the_source(tmp_path):
    mnist_folder(tmp_path, zipped=False)
    assert len(load_data(tmp_path / "t10k-labels-idx1-ubyte").splits.train) == 20


def test_colour_images_and_dotted_names(tmp_path):
    images = np.arange(2 * 8 * 8 * 3, dtype=np.uint8).reshape(2, 8, 8, 3)
    (tmp_path / "train-images.idx4-ubyte").write_bytes(idx_bytes(images))
    (tmp_path / "train-labels.idx1-ubyte").write_bytes(idx_bytes(np.array([3, 12], np.uint8)))
    train = load_data(tmp_path).splits.train
    assert np.array_equal(train.images, images)
    assert train.class_names == ("3", "12")


def broken(folder, name, blob, replaced=None):
    mnist_folder(folder, zipped=False)
    (folder / (replaced or name)).unlink()
    (folder / name).write_bytes(blob)
    return folder


LABELS = idx_bytes(np.arange(20, dtype=np.uint8) % 10)


@pytest.mark.parametrize(
    ("blob", "words"),
    [
        (b"", "not an IDX file"),
        (b"hello, this is no IDX", "not an IDX file of bytes in 1 dimensions"),
        (LABELS[:6], "truncated in its header"),
        (LABELS[:-1], "truncated: its header claims 20 bytes, more than the file can hold|19 follow"),
        (LABELS + b"x", "longer than the 20 bytes its header claims"),
        (b"\0\0\x08\x01\xff\xff\xff\xff" + LABELS[8:], "claims 4,294,967,295 bytes, more than the file can hold"),
        (b"\0\0\x0d\x01" + LABELS[4:], "not an IDX file of bytes"),
        (idx_bytes(np.arange(19, dtype=np.uint8) % 10), "train has 20 images but 19 labels"),
        (idx_bytes(np.zeros((20, 1), np.uint8)), "in 1 dimensions"),
    ],
)
def test_broken_label_files_are_refused(tmp_path, blob, words):
    with pytest.raises(DataError, match=words):
        load_data(broken(tmp_path, "train-labels-idx1-ubyte", blob))


def test_an_impossible_header_allocates_nothing(tmp_path):
    header = b"\0\0\x08\x03" + b"\xff\xff\xff\xff" * 3
    with pytest.raises(DataError, match="more than the file can hold"):
        load_data(broken(tmp_path, "train-images-idx3-ubyte", header))


def test_an_empty_array_with_impossible_lengths_is_refused(tmp_path):
    header = b"\0\0\x08\x04" + b"\0\0\0\0" + b"\xff\xff\xff\xff" * 3
    with pytest.raises(DataError, match=r"claims the impossible shape \(0, 4294967295, 4294967295, 4294967295\)"):
        load_data(broken(tmp_path, "train-images-idx4-ubyte", header, "train-images-idx3-ubyte"))


def test_a_broken_gzip_is_refused(tmp_path):
    mnist_folder(tmp_path)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match="truncated or damaged"):
        load_data(tmp_path)
    path.write_bytes(gzip.compress(LABELS))
    with pytest.raises(DataError, match="not an IDX file of bytes in 3 or 4 dimensions"):
        load_data(tmp_path)


def test_missing_and_unknown_labels_are_refused(tmp_path):
    mnist_folder(tmp_path, zipped=False)
    labels = tmp_path / "t10k-labels-idx1-ubyte"
    labels.write_bytes(idx_bytes(np.full(10, 11, np.uint8)))
    with pytest.raises(DataError, match="test has the label '11', which is none of the 10 classes"):
        load_data(tmp_path)
    labels.unlink()
    with pytest.raises(DataError, match="t10k-images-idx3-ubyte has no labels"):
        load_data(tmp_path)


def test_a_gzip_bomb_is_refused_before_it_unpacks(tmp_path):
    mnist_folder(tmp_path)
    num = 1_000_000
    blob = gzip.compress(b"\0\0\x08\x03" + num.to_bytes(4, "big") + b"\0\0\0\x0a" * 2 + bytes(1000))
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(blob + bytes(200_000))
    with pytest.raises(DataError, match="100,000,000 or more, which looks like a decompression bomb"):
        load_data(tmp_path)


def test_pipes_are_not_waited_for(tmp_path):
    mnist_folder(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte.gz").unlink()
    os.mkfifo(tmp_path / "train-labels-idx1-ubyte.gz")
    with pytest.raises(DataError, match="has no labels"):
        load_data(tmp_path)
