import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from timebox.data import load_data
from timebox.errors import DataError

from ..making import photo_folder, picture, save


def notes_of(folder, **options):
    return "\n".join(load_data(folder, **options).notes)


def test_class_folders_become_classes(tmp_path):
    loaded = load_data(photo_folder(tmp_path / "pets"))
    train = loaded.splits.train
    assert (loaded.name, loaded.format) == ("pets", "folder of class folders")
    assert train.class_names == ("cat", "dog")
    assert train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert train.ids == ("cat/0.png", "cat/1.png", "cat/2.png", "dog/0.png", "dog/1.png", "dog/2.png")
    assert np.array_equal(train.images[4], np.asarray(picture(seed=101)))
    assert (loaded.splits.val, loaded.splits.test, loaded.bad_files, loaded.notes) == (None, None, (), ())
    assert (loaded.sizes, loaded.modes) == ({"16x16": 6}, {"RGB": 6})


def test_numbers_are_sorted_as_numbers(tmp_path):
    assert load_data(photo_folder(tmp_path, ("10", "2", "1"))).splits.train.class_names == ("1", "2", "10")
    assert load_data(photo_folder(tmp_path, ("ten",))).splits.train.class_names == ("1", "10", "2", "ten")


def test_common_names_of_split_folders(tmp_path):
    photo_folder(tmp_path / "Train", per_class=4)
    photo_folder(tmp_path / "valid", per_class=2)
    photo_folder(tmp_path / "testing", ("dog",), per_class=1)
    loaded = load_data(tmp_path)
    assert loaded.format == "folder of class folders in train, val, test"
    assert {name: len(split) for name, split in loaded.splits.items()} == {"train": 8, "val": 4, "test": 1}
    assert loaded.splits.test.labels.tolist() == [1]
    assert loaded.splits.val.ids[0] == "valid/cat/0.png"


def test_a_class_may_be_called_train(tmp_path):
    folder = photo_folder(tmp_path, ("train", "bus"))
    assert load_data(folder).splits.train.class_names == ("bus", "train")


def test_images_in_subfolders_are_read_and_hidden_ones_ignored(tmp_path):
    photo_folder(tmp_path)
    save(tmp_path / "cat" / "siamese" / "old" / "9.png")
    save(tmp_path / ".cache" / "0.png")
    save(tmp_path / "cat" / ".thumbnails" / "0.png")
    save(tmp_path / "__MACOSX" / "cat" / "0.png")
    (tmp_path / "dog" / "._0.png").write_bytes(b"apple")
    (tmp_path / "dog" / ".DS_Store").write_bytes(b"apple")
    (tmp_path / "dog" / "labels.csv").write_text("a,b")
    train = load_data(tmp_path).splits.train
    assert train.class_counts().tolist() == [4, 3]
    assert "cat/siamese/old/9.png" in train.ids


def test_notes_name_what_was_left_out(tmp_path):
    photo_folder(tmp_path / "train")
    photo_folder(tmp_path / "test")
    (tmp_path / "train" / "empty").mkdir()
    (tmp_path / "annotations").mkdir()
    notes = notes_of(tmp_path)
    assert "1 class folder without a readable training image left out: empty" in notes
    assert "1 folder beside train/ left out: annotations" in notes
    save(tmp_path / "train" / "montage.png")
    loaded = load_data(tmp_path)
    assert loaded.splits.train.class_names == ("cat", "dog")
    assert "1 image outside any class folder left out: train/montage.png" in loaded.notes


def test_a_note_names_images_beside_class_folders(tmp_path):
    save(photo_folder(tmp_path) / "cover.png")
    assert "1 image outside any class folder left out: cover.png" in notes_of(tmp_path)


def test_mixed_sizes_and_modes_are_resized_and_converted(tmp_path):
    for k, (size, mode) in enumerate([((100, 60), "RGB"), ((50, 70), "L"), ((40, 44), "RGBA"), ((300, 200), "P")]):
        save(tmp_path / "a" / f"{k}.png", picture(size, mode))
        save(tmp_path / "b" / f"{k}.png", picture(size, mode, seed=1))
    loaded = load_data(tmp_path)
    assert loaded.splits.train.image_shape == (48, 48, 3)  # the median shorter side, 55, down to a multiple of 8
    assert loaded.sizes["100x60"] == 2
    assert loaded.modes == {"RGB": 2, "L": 2, "RGBA": 2, "P": 2}
    notes = "\n".join(loaded.notes)
    assert (
        "images of 4 sizes (100x60 (2), 50x70 (2), 40x44 (2), ...) resized to 48x48: the shorter side scaled" in notes
    )
    assert "converted to RGB, transparent pixels on a white background" in notes


@pytest.mark.parametrize(
    ("size", "side"), [((8, 8), 8), ((63, 63), 63), ((64, 64), 64), ((65, 65), 64), ((4, 4), 8), ((30, 20), 16)]
)
def test_the_working_size(tmp_path, size, side):
    for name in "ab":
        save(tmp_path / name / "0.png", picture(size))
        save(tmp_path / name / "1.png", picture(size, seed=1))
    assert load_data(tmp_path).splits.train.image_shape == (side, side, 3)
    assert load_data(tmp_path, image_size=12).splits.train.image_shape == (12, 12, 3)


def test_all_grey_stays_grey(tmp_path):
    save(tmp_path / "a" / "0.png", picture(mode="L"))
    save(tmp_path / "b" / "0.png", picture(mode="1"))
    save(tmp_path / "b" / "1.png", Image.fromarray(np.full((16, 16), 51400, np.uint16)))
    train = load_data(tmp_path).splits.train
    assert train.image_shape == (16, 16, 1)
    assert (train.images[2] == 200).all()


def spoil(folder):
    """Five files no reader can read."""
    (folder / "cat" / "empty.jpg").write_bytes(b"")
    (folder / "cat" / "text.png").write_text("not a picture")
    for name in ("cut.jpg", "cut.png"):
        path = save(folder / "dog" / name, picture((64, 64)))
        path.write_bytes(path.read_bytes()[:-200])
    Image.new("F", (16, 16)).save(folder / "dog" / "float.tif")


def test_tolerated_unreadable_files_are_listed(tmp_path):
    spoil(photo_folder(tmp_path, per_class=10))
    loaded = load_data(tmp_path, max_bad_share=0.2)
    reasons = {bad.path: bad.reason for bad in loaded.bad_files}
    assert set(reasons) == {"cat/empty.jpg", "cat/text.png", "dog/cut.jpg", "dog/cut.png", "dog/float.tif"}
    assert reasons["cat/empty.jpg"] == "empty file (0 bytes)"
    assert reasons["cat/text.png"] == "not an image that can be read here"
    assert reasons["dog/cut.jpg"].startswith("truncated: ")
    assert len(loaded.splits.train) == 20
    intact = load_data(photo_folder(tmp_path / "intact", per_class=10))
    assert loaded.splits.train.ids == intact.splits.train.ids


def test_pixels_match_their_ids_when_some_files_fail(tmp_path):
    intact = load_data(photo_folder(tmp_path / "a", per_class=10)).splits.train
    path = photo_folder(tmp_path / "b", per_class=10) / "cat" / "3.png"
    path.write_bytes(path.read_bytes()[:-200])
    train = load_data(tmp_path / "b").splits.train
    assert train.ids == tuple(name for name in intact.ids if name != "cat/3.png")
    assert np.array_equal(train.images, np.delete(intact.images, 3, axis=0))


def test_too_many_unreadable_files_are_refused(tmp_path):
    spoil(photo_folder(tmp_path, per_class=10))
    words = r"5 of 25 images \(20.0%\) are unreadable, more than max_bad_share=0.1 allows; the first: cat/empty"
    with pytest.raises(DataError, match=words):
        load_data(tmp_path)
    for path in tmp_path.rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match=r"unreadable.*the first: cat/0\.png: empty file"):
        load_data(tmp_path, max_bad_share=1.0)


def test_a_class_without_readable_files_is_left_out(tmp_path):
    photo_folder(tmp_path, ("cat", "dog", "emu"), per_class=4)
    for path in (tmp_path / "dog").iterdir():
        path.write_bytes(b"")
    loaded = load_data(tmp_path, max_bad_share=0.5)
    assert loaded.splits.train.class_names == ("cat", "emu")
    assert loaded.splits.train.labels.tolist() == [0] * 4 + [1] * 4
    assert "1 class folder without a readable training image left out: dog" in loaded.notes


def test_misnamed_images_are_read_with_a_note(tmp_path):
    photo_folder(tmp_path)
    (tmp_path / "cat" / "0.png").rename(tmp_path / "cat" / "0.jpg")
    loaded = load_data(tmp_path)
    assert len(loaded.splits.train) == 6
    assert "1 file not of the format the suffix says (cat/0.jpg is PNG): read by content" in loaded.notes


def test_heic_photos_are_listed_as_unreadable(tmp_path):
    photo_folder(tmp_path, per_class=10)
    (tmp_path / "cat" / "IMG_1.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
    assert load_data(tmp_path).bad_files[0].path == "cat/IMG_1.HEIC"


@pytest.mark.parametrize(
    ("folders", "words"),
    [
        (
            {"train/cat": 2, "train/dog": 2, "test/emu": 1},
            r"test has images of classes unknown .*emu.*known are cat, dog",
        ),
        ({"test/cat": 2, "test/dog": 2}, "has test/ but no train/ to learn from"),
        (
            {"train": 2, "test": 2, "notes": 0},
            "has test/ and train/ but no class folders in train/, and no table of labels: nothing says what "
            "train/0.png is",
        ),
        ({"train/cat": 2, "train/dog": 2, "val/cat": 1, "valid/cat": 1}, "val/ and valid/, both of which mean val"),
        ({"cat": 3}, r"has 1 class \('cat'\) with images: a classifier needs at least two"),
        ({"cat": 0, "dog": 0}, "holds no images in class folders: put them as .*/CLASS/IMAGE.jpg"),
    ],
)
def test_folders_without_enough_classes_are_refused(tmp_path, folders, words):
    for name, count in folders.items():
        (tmp_path / name).mkdir(parents=True)
        for k in range(count):
            save(tmp_path / name / f"{k}.png", picture(seed=k))
    with pytest.raises(DataError, match=words):
        load_data(tmp_path)


def test_a_class_with_one_image_is_kept_with_a_note(tmp_path):
    save(photo_folder(tmp_path) / "emu" / "0.png")
    loaded = load_data(tmp_path)
    assert loaded.splits.train.class_counts().tolist() == [3, 3, 1]
    assert "class with one image, kept in train: emu" in loaded.notes


def test_pipes_devices_and_loops_among_the_images(tmp_path):
    photo_folder(tmp_path, per_class=20)
    os.mkfifo(tmp_path / "cat" / "pipe.jpg")
    (tmp_path / "cat" / "zero.png").symlink_to("/dev/zero")
    (tmp_path / "dog" / "loop.png").symlink_to("loop.png")
    (tmp_path / "dog" / "up").symlink_to(tmp_path)
    (tmp_path / "dog" / "down.jpg").mkdir()
    (tmp_path / "around").symlink_to("around")
    loaded = load_data(tmp_path)
    assert len(loaded.splits.train) == 40
    assert {bad.path: bad.reason for bad in loaded.bad_files} == {
        "cat/pipe.jpg": "a named pipe, not a file",
        "cat/zero.png": "a device, not a file",
        "dog/loop.png": "Too many levels of symbolic links",
    }


def test_file_names_that_are_not_utf8(tmp_path):
    photo_folder(tmp_path, ("caf\udce9", "two\nlines"))
    (tmp_path / "two\nlines" / "0.png").rename(tmp_path / "two\nlines" / "\udcff.png")
    (tmp_path / "gr\udcfcn").mkdir()
    loaded = load_data(tmp_path)
    assert loaded.splits.train.class_names == ("caf\\xe9", "two\nlines")
    assert loaded.splits.train.ids[-1] == "two\nlines/\\xff.png"
    assert "gr\\xfcn" in loaded.notes[0]


def test_a_folder_that_cannot_be_listed_is_refused(tmp_path, monkeypatch):
    photo_folder(tmp_path)
    (tmp_path / "dog" / "locked").mkdir()
    listed = os.scandir

    def refuse(path):
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr("os.scandir", refuse)
    with pytest.raises(DataError, match="dog/locked: permission denied"):
        load_data(tmp_path)


def test_reading_reports_its_progress(tmp_path, monkeypatch):
    monkeypatch.setattr("timebox.data.reading.options.time.monotonic", iter(range(100)).__next__)
    messages = []
    load_data(photo_folder(tmp_path), notify=messages.append)
    assert "looked at 6 of 6 images" in messages
    assert messages[-1] == "read 6 of 6 images"


@pytest.mark.integration
def test_sign_digits(real_data):
    loaded = load_data(real_data("sign-digits"))
    assert loaded.sizes == {"100x100": 2059, "3024x3024": 3}
    assert loaded.splits.train.image_shape == (64, 64, 3)
    assert loaded.splits.train.class_names == tuple("0123456789")
    assert loaded.bad_files == ()


def test_split_folders_with_longer_names_and_an_inner_folder(tmp_path):
    photo_folder(tmp_path / "Final_Training" / "Images", per_class=2)
    photo_folder(tmp_path / "test_set" / "test_set", per_class=1)
    save(tmp_path / "val_images" / "0.png")
    loaded = load_data(tmp_path)
    assert {name: len(part) for name, part in loaded.splits.items()} == {"train": 4, "test": 2}
    assert loaded.splits.test.ids == ("test_set/test_set/cat/0.png", "test_set/test_set/dog/0.png")
    assert loaded.notes == (
        "val_images/ holds 1 image without labels, such as val_images/0.png: left for timebox predict; no val split",
    )
