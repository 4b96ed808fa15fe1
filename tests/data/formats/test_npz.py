import io
import zipfile

import numpy as np
import pytest

from timebox.data import load_data
from timebox.errors import DataError

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
LABELS = np.array([0, 1, 2, 0, 1, 2])


def saved(path, **arrays):
    np.savez(path, **arrays)
    return path


def test_keras_keys(tmp_path):
    path = saved(tmp_path / "My set.npz", x_train=IMAGES, y_train=LABELS, x_test=IMAGES[:2], y_test=LABELS[:2, None])
    loaded = load_data(path)
    assert (loaded.name, loaded.format) == ("My-set", ".npz file")
    assert np.array_equal(loaded.splits.train.images, IMAGES)
    assert loaded.splits.test.labels.tolist() == [0, 1]
    assert loaded.splits.val is None


def test_medmnist_keys_with_grey_images(tmp_path):
    arrays = {f"{split}_images": IMAGES[..., 0] for split in ("train", "val", "test")}
    arrays |= {f"{split}_labels": LABELS[:, None].astype(np.uint8) for split in ("train", "val", "test")}
    splits = load_data(saved(tmp_path / "a.npz", **arrays)).splits
    assert [name for name, _ in splits.items()] == ["train", "val", "test"]
    assert splits.val.image_shape == (8, 8, 1)


def test_one_split_with_class_names(tmp_path):
    path = saved(tmp_path / "a.npz", images=IMAGES, labels=LABELS, class_names=np.array(["ant", "bee", "cow", "dog"]))
    train = load_data(path).splits.train
    assert train.class_names == ("ant", "bee", "cow", "dog")
    assert train.labels.tolist() == LABELS.tolist()


def test_labels_may_be_strings_or_any_integers(tmp_path):
    words = np.array(["b", "a", "c", "b", "a", "c"])
    train = load_data(saved(tmp_path / "a.npz", X=IMAGES, Y=words)).splits.train
    assert (train.class_names, train.labels[:3].tolist()) == (("a", "b", "c"), [1, 0, 2])
    train = load_data(saved(tmp_path / "b.npz", images=IMAGES, labels=LABELS * 50)).splits.train
    assert train.class_names == ("0", "50", "100")


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        (
            {"images": IMAGES / 127.5 - 1, "labels": LABELS},
            r"from -1 to 1; .* save \(x \+ 1\) / 2 \* 255, rounded",
        ),
        (
            {"images": IMAGES.astype(int) * 16, "labels": LABELS},
            "images is int64 and runs from 0 to 4080;",
        ),
        ({"images": IMAGES.astype("S4"), "labels": LABELS}, "images is .S4; images must be numbers"),
        ({"images": IMAGES * np.nan, "labels": LABELS}, "images has 1,152 values that are NaN or infinite"),
        ({"images": IMAGES.transpose(0, 3, 1, 2), "labels": LABELS}, r"save images.transpose\(0, 2, 3, 1\) instead"),
        ({"images": IMAGES[0, 0], "labels": LABELS}, r"images has the shape \(8, 3\)"),
        ({"images": IMAGES, "labels": np.eye(6) * 2}, r"labels has the shape \(6, 6\); .* or one-hot rows"),
        ({"images": IMAGES, "labels": np.ones((6, 2))}, "labels has 6 rows with several ones"),
        ({"images": IMAGES, "labels": LABELS / 2}, "labels is float64 with fractions; labels must be"),
        ({"images": IMAGES, "labels": LABELS[:5]}, "train has 6 images but 5 labels"),
        (
            {"images": IMAGES, "labels": LABELS, "class_names": np.array(["a", "b"])},
            "the label '2', which is none of the 2",
        ),
        ({"pixels": IMAGES}, "holds pixels; it needs x_train and y_train"),
        ({"x_train": IMAGES, "y_train": LABELS, "x_val": IMAGES, "x_valid": IMAGES}, "x_val and x_valid both mean val"),
        (
            {"x_train": IMAGES, "y_train": LABELS, "x_test": IMAGES / 255, "y_test": LABELS},
            "of different ranges",
        ),
        (
            {"x_train": IMAGES, "y_train": LABELS, "x_test": IMAGES},
            "has x_test, but no y_test to go with it",
        ),
        (
            {"x_train": IMAGES, "y_train": LABELS, "x_test": IMAGES, "y_test": LABELS + 1},
            "test has the label '3'",
        ),
    ],
)
def test_invalid_arrays_are_refused(tmp_path, arrays, words):
    with pytest.raises(DataError, match=words):
        load_data(saved(tmp_path / "a.npz", **arrays))


def test_objects_are_never_unpickled(tmp_path):
    path = saved(tmp_path / "a.npz", images=IMAGES, labels=np.array([{}] * 6, dtype=object))
    with pytest.raises(DataError, match="labels cannot be read: it holds Python objects, which are not unpickled"):
        load_data(path)


def test_a_damaged_archive_is_refused(tmp_path):
    path = saved(tmp_path / "a.npz", images=IMAGES, labels=LABELS)
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(DataError, match=r"not an \.npz archive, or a damaged one"):
        load_data(path)
    np.save(tmp_path / "b", IMAGES)
    (tmp_path / "b.npy").rename(tmp_path / "b.npz")
    with pytest.raises(DataError, match=r"not an \.npz archive"):
        load_data(tmp_path / "b.npz")


def zipped(path, members, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, blob in members:
            archive.writestr(name, blob)
    return path


def npy(array):
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def claiming(shape):
    text = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\0" + len(text).to_bytes(2, "little") + text


def test_a_header_is_checked_against_its_member(tmp_path):
    path = zipped(tmp_path / "a.npz", [("images.npy", claiming("(1000000, 1000, 1000)")), ("labels.npy", npy(LABELS))])
    with pytest.raises(DataError, match="images cannot be read: it is truncated: its header claims 1,000,000,000,000"):
        load_data(path)


def test_a_zip_bomb_is_refused_before_it_unpacks(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("labels.npy", npy(LABELS))
        with archive.open("images.npy", "w") as member:
            member.write(claiming("(70, 1024, 1024)"))
            for _ in range(70):
                member.write(bytes(1 << 20))
    with pytest.raises(DataError, match="looks like a decompression bomb"):
        load_data(tmp_path / "a.npz")


def test_blank_images_are_not_a_zip_bomb(tmp_path):
    blank = np.zeros((300, 32, 32, 3), np.uint8)
    blank[0] = 1
    np.savez_compressed(tmp_path / "a.npz", images=blank, labels=np.arange(300) % 2)
    assert len(load_data(tmp_path / "a.npz").splits.train) == 300


def test_unsupported_zip_features_are_refused(tmp_path):
    with pytest.warns(UserWarning, match="Duplicate name"):
        path = zipped(tmp_path / "twice.npz", [("images.npy", npy(IMAGES))] * 2)
    with pytest.raises(DataError, match="holds images twice"):
        load_data(path)
    path = zipped(tmp_path / "locked.npz", [("images.npy", npy(IMAGES)), ("labels.npy", npy(LABELS))])
    blob = bytearray(path.read_bytes())
    for sign, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = -1
        while (start := blob.find(sign, start + 1)) >= 0:
            blob[start + offset] |= 1
    path.write_bytes(blob)
    with pytest.raises(DataError, match=r"damaged one .*encrypted"):
        load_data(path)


def test_names_that_utf8_cannot_encode_are_refused(tmp_path):
    for name, words in (("", "has an empty name"), ("\ud800", "cannot be encoded in UTF-8")):
        path = saved(tmp_path / "a.npz", images=IMAGES, labels=LABELS, class_names=np.array(["a", name, "c"]))
        with pytest.raises(DataError, match=words):
            load_data(path)
    beyond = np.array([[0x110000], [65], [66]], "<u4").view("<U1").ravel()
    for arrays in ({"labels": np.concatenate([beyond, beyond])}, {"labels": LABELS, "class_names": beyond}):
        with pytest.raises(DataError, match="an invalid Unicode character"):
            load_data(saved(tmp_path / "b.npz", images=IMAGES, **arrays))
