import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from timebox.data import load_data
from timebox.data.formats import FORMATS
from timebox.errors import DataError, UsageError

from .making import cifar10_python, photo_folder, save


def test_no_such_path_suggests_a_name(tmp_path):
    with pytest.raises(
        DataError, match=r"^no such path or data set: 'cifar1O'\. Did you mean 'cifar10'\? Give a path, or"
    ):
        load_data("cifar1O")
    with pytest.raises(
        DataError, match=r"no such path or data set: .*nowhere'\. Give a path, or one of cifar10, cifar100"
    ):
        load_data(tmp_path / "nowhere")


def test_the_error_for_an_unknown_format_lists_the_formats(tmp_path):
    (tmp_path / "photos.xyz").write_bytes(b"PK")
    with pytest.raises(
        DataError, match=r"photos\.xyz is a \.xyz file, in no supported format\. Looked for: "
    ) as caught:
        load_data(tmp_path / "photos.xyz")
    assert len(FORMATS) == 6
    assert all(candidate.name in str(caught.value) for candidate in FORMATS)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a"])
def test_files_of_other_formats_are_refused(tmp_path, name):
    (tmp_path / name).write_text("path,label")
    with pytest.raises(DataError, match="in no supported format"):
        load_data(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a.xlsx", "is an Excel workbook: save the sheet as CSV"),
        ("a.json", "is JSON: give labels as CSV or as JSON Lines"),
        ("a.npy", r"is one NumPy array: save images and labels together as an \.npz"),
        ("a.7z", "is a 7z archive: unpack it first"),
        ("a.zip", "is a zip archive that is truncated or damaged: download it again"),
        ("a.mat", "is a MATLAB file: save images and labels as"),
        ("a.h5", "is an HDF5 file: save images and labels as"),
        ("a.pkl", "is a pickle, which may run code when it is read: save"),
        ("a.txt", "is a text: give labels as CSV, with the names of the image files"),
        ("a.jpg", "is one image: give the folder above its class folder"),
    ],
)
def test_files_of_other_programs_are_called_by_their_name(tmp_path, name, words):
    (tmp_path / name).write_text("path,label")
    with pytest.raises(DataError, match=words):
        load_data(tmp_path / name)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".ckpt", ".PTH"])
@pytest.mark.parametrize("is_zip", [True, False])
def test_files_of_torch_are_called_by_their_name(tmp_path, suffix, is_zip):
    torch.save({"a": torch.zeros(3)}, tmp_path / f"a{suffix}", _use_new_zipfile_serialization=is_zip)
    with pytest.raises(DataError, match=rf"a{suffix} is a file of torch, which may hold a pickle: save images"):
        load_data(tmp_path / f"a{suffix}")


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (["train.zip"], r"a folder with train\.zip, which must be unpacked or given alone,"),
        (["train.zip", "train.csv"], r"train\.csv: no column holds images .*\(train\.zip must be unpacked first\)"),
        (["cat/1.dcm", "dog/2.dcm"], r"\(2 files such as 1\.dcm are no images: their format is unknown\)"),
        (["cat/1.cr2"], "1 class"),
    ],
)
def test_what_lies_in_a_folder_instead_of_images_is_said(tmp_path, files, words):
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("id,label\n1,a\n2,b")
    if "cat/1.cr2" in files:
        save(tmp_path / "cat" / "0.png")
    with pytest.raises(DataError, match=words):
        load_data(tmp_path)


def test_a_table_beside_the_folder_given_is_pointed_to(tmp_path):
    save(tmp_path / "images" / "1.png")
    (tmp_path / "labels.csv").write_text("file,label\nimages/1.png,cat\n")
    with pytest.raises(DataError, match=r"\(labels\.csv lies beside this folder: give that if it has the labels\)"):
        load_data(tmp_path / "images")


def test_messages_have_one_line(tmp_path):
    photo_folder(tmp_path / "two\nlines", ("a\nb",))
    with pytest.raises(DataError) as caught:
        load_data(tmp_path / "two\nlines")
    assert "\n" not in str(caught.value)
    assert r"two\nlines has 1 class" in str(caught.value)


def test_classes_that_differ_in_case_alone(tmp_path):
    photo_folder(tmp_path / "train")
    photo_folder(tmp_path / "test", ("Cat", "Dog"))
    words = r"known are cat, dog; only upper and lower case differ\. To leave that split out, set test=\"none\""
    with pytest.raises(DataError, match=words):
        load_data(tmp_path)


def test_folders_without_data_are_described(tmp_path):
    with pytest.raises(DataError, match="is an empty folder, in no supported format"):
        load_data(tmp_path)
    save(tmp_path / "1.png")
    with pytest.raises(DataError, match="1 image, but no class folders and no table of labels"):
        load_data(tmp_path)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"image_size": 0}, "image_size 0 must be at least 1 pixel"),
        ({"max_bad_share": 1.5}, r"max_bad_share 1\.5 must lie in 0\.\.1"),
        ({"max_bad_share": float("nan")}, "max_bad_share nan"),
        ({"coarse": True}, "coarse asks for CIFAR-100's superclasses, but digits holds scikit-learn's digits"),
    ],
)
def test_options_out_of_range_are_refused(options, words):
    with pytest.raises(UsageError, match=words):
        load_data("digits", **options)


def test_arrays_are_resized_to_image_size(tmp_path):
    loaded = load_data(cifar10_python(tmp_path), image_size=16)
    assert {split.image_shape for _, split in loaded.splits.items()} == {(16, 16, 3)}
    assert "images of 32x32 resized to 16x16" in loaded.notes[0]
    original = load_data(tmp_path, image_size=32)
    assert original.notes == ()
    averaged = original.splits.train.images.reshape(50, 16, 2, 16, 2, 3).mean((2, 4))
    assert np.corrcoef(averaged.ravel(), loaded.splits.train.images.ravel())[0, 1] > 0.9


def test_a_str_is_a_name_and_a_path_is_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    photo_folder(tmp_path / "digits")
    named = load_data("digits")
    assert len(named.splits.train) == 1797
    assert named.notes == ("digits is read as the data set of that name, not as ./digits",)
    assert load_data("./digits").splits.train.class_names == ("cat", "dog")


def test_reading_needs_no_torch():
    code = "import sys, timebox.data; sys.exit('torch' in sys.modules or 'sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("x" * 5000, "file name too long"),
        ("~nobody-of-that-name/photos", "no such path or data set: '~nobody-of-that-name/photos'"),
        ("nu\0ll", "no such path or data set"),
        ("loop/photos", "loop/photos'?: too many levels|no such path"),
    ],
)
def test_impossible_paths_are_refused(tmp_path, monkeypatch, source, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(DataError, match=words):
        load_data(source)


def test_the_evidence_for_a_format(tmp_path):
    assert load_data(cifar10_python(tmp_path)).why == "it holds data_batch_1 and test_batch"
    assert load_data(photo_folder(tmp_path / "pets")).why == "images lie in the folders cat, dog"
    assert load_data("digits").why == "digits is the name of this data set"


def test_an_only_inner_folder_is_read(tmp_path):
    folder = photo_folder(tmp_path / "download" / "pets-v2" / "images")
    (tmp_path / "download" / "README.md").write_text("pets")
    loaded = load_data(tmp_path / "download")
    assert loaded.name == "download"
    assert loaded.notes == ("read from pets-v2/images/, the only folder with class folders",)
    assert loaded.splits.train.class_names == load_data(folder).splits.train.class_names
    (tmp_path / "download" / "round").symlink_to(tmp_path / "download")
    save(tmp_path / "one" / "cat" / "0.png")
    with pytest.raises(DataError, match="has 1 class"):
        load_data(tmp_path / "one")


def test_images_that_are_all_the_same_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", images=np.full((4, 8, 8), 7, np.uint8), labels=[0, 1, 0, 1])
    with pytest.raises(DataError, match=r"a\.npz: all 4 training images are the same: nothing tells them apart"):
        load_data(tmp_path / "a.npz")


def test_a_note_names_classes_with_few_images(tmp_path):
    labels = np.repeat(np.arange(4), [100, 90, 7, 1])
    images = np.random.default_rng(0).integers(0, 256, (len(labels), 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", images=images, labels=labels)
    assert load_data(tmp_path / "a.npz").notes == (
        "class with one image, kept in train: 3",
        "class with 9 images or fewer: 2",
    )


def test_fit_letterbox_and_its_note(tmp_path):
    for name, colour in (("a", "white"), ("b", "grey")):
        save(tmp_path / name / "0.png", Image.new("L", (40, 20), colour))
        save(tmp_path / name / "1.png", Image.new("L", (40, 20), colour))
    loaded = load_data(tmp_path, image_size=16, fit="letterbox")
    assert (loaded.splits.train.images[0, :4] == 0).all()
    assert (loaded.splits.train.images[0, 4:12] == 255).all()
    assert "resized to 16x16: the longer side scaled, black beside it" in loaded.notes[0]
    assert (load_data(tmp_path, image_size=16).splits.train.images[0] == 255).all()


def test_images_that_are_nearly_black_are_noted(tmp_path):
    for k in range(4):
        pixels = np.random.default_rng(k).integers(0, 16, (8, 8, 3)).astype(np.uint8)
        (tmp_path / "ab"[k % 2]).mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "ab"[k % 2] / f"{k}.png")
    note = "the images are nearly black: hardly a pixel is above 15 of 255"
    assert any(text.startswith(note) for text in load_data(tmp_path).notes)


def test_a_folder_of_nothing_but_images_says_what_is_missing(tmp_path):
    save(tmp_path / "1.jpg")
    with pytest.raises(
        DataError, match=r"1 image, but no class folders and no table of labels, so nothing says what 1\.jpg"
    ):
        load_data(tmp_path)
