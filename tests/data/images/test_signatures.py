"""Files that lie in the place of an image are called by their name."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from timebox.data import load_data
from timebox.data.images.signatures import describe_foreign, is_encoded_image
from timebox.errors import DataError

from ..making import photo_folder

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (LFS, "a Git LFS pointer in place of the file: run git lfs pull"),
        (b"<!DOCTYPE html><html>", "an HTML page in place of the file: the download failed, repeat it"),
        (b"\xef\xbb\xbf\n <html lang='en'>", "an HTML page in place of the file: the download failed, repeat it"),
        (b"<?xml version='1.0'?><Error>", "an XML document in place of the file: the download may have failed"),
        (b"<?xml version='1.0'?><svg xmlns='x'>", "an SVG drawing: save it as PNG first"),
        (b'{"error": "denied"}', "JSON text in place of the file: the download may have failed"),
        (b"%PDF-1.7", "a PDF document, not an image"),
        (b"8BPS\0\1", "a Photoshop file: save it as PNG or JPEG"),
        (b"PK\x03\x04", "a zip archive, not an image"),
        (bytes(128) + b"DICM", "a DICOM file: convert it to PNG first"),
        (bytes(300), "only zero bytes: the file was not written completely"),
        (b"", "empty file (0 bytes)"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", None),
        (b"something else", "not an image that can be read here"),
    ],
)
def test_what_lies_in_the_place_of_an_image(tmp_path: Path, content: bytes, reason: str | None) -> None:
    folder = photo_folder(tmp_path, per_class=10)
    (folder / "cat" / "bad.jpg").write_bytes(content)
    (bad,) = load_data(folder).bad_files
    assert bad.path == "cat/bad.jpg"
    assert reason is None or bad.reason == reason


def test_heic_names_the_package_that_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pillow_heif", None)
    folder = photo_folder(tmp_path, per_class=10)
    (folder / "cat" / "IMG_1.HEIC").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    (bad,) = load_data(folder).bad_files
    assert bad.reason == "a HEIC image: reading it takes pillow-heif: pip install 'timebox-vision[heic]'"


@pytest.mark.parametrize("suffix", [".heic", ".HEIF", ".jpg", ""])
def test_heic_is_read_where_the_package_is_installed(tmp_path: Path, suffix: str) -> None:
    pillow_heif = pytest.importorskip("pillow_heif", reason="pillow-heif, of the extra `heic`, is not installed")
    folder = photo_folder(tmp_path)
    image = Image.fromarray(np.full((16, 16, 3), (200, 40, 90), np.uint8))
    pillow_heif.from_pillow(image).save(folder / "cat" / "one.heic", quality=100)
    (folder / "cat" / "one.heic").rename(folder / "cat" / f"x{suffix}")
    loaded = load_data(folder)
    train = loaded.splits.train
    assert loaded.bad_files == ()
    pixels = train.images[train.ids.index(f"cat/x{suffix}")].astype(int)
    assert np.abs(pixels - (200, 40, 90)).max() <= 6


@pytest.mark.parametrize("name", ["photos.zip", "photos.npz", "labels.csv", "cifar.tar.gz", "a.parquet", "train.idx"])
@pytest.mark.parametrize(("content", "words"), [(LFS, "a Git LFS pointer"), (b"<html>", "an HTML page")])
def test_sources_that_were_not_downloaded(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=words):
        load_data(tmp_path / name)


def test_signatures() -> None:
    assert is_encoded_image(b"\x89PNG\r\n\x1a\n" + bytes(30))
    assert not is_encoded_image(b"")
    assert describe_foreign(b"plain text") is None


@pytest.mark.parametrize(("bits", "note"), [(10, True), (12, True), (14, True), (15, True), (16, False), (8, True)])
def test_16_bit_images_are_scaled_by_the_bits_in_use(tmp_path: Path, bits: int, note: bool) -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(0, 1 << bits, (8, 16, 16)).astype(np.uint16)
    values[3, 0, 0] = (1 << bits) - 1
    for k, image in enumerate(values):
        (tmp_path / "ab"[k % 2]).mkdir(exist_ok=True)
        Image.fromarray(image).save(tmp_path / "ab"[k % 2] / f"{k}.png")
    loaded = load_data(tmp_path)
    train = loaded.splits.train
    assert loaded.white_16bit == (1 << bits) - 1
    expected = values.astype(int) * 255 // ((1 << bits) - 1)
    assert np.array_equal(train.images[..., 0], expected[[0, 2, 4, 6, 1, 3, 5, 7]])
    says = f"8 images of 16 bits hold values of {bits} bits: {(1 << bits) - 1:,} becomes white, in every image of this"
    assert any(says in text for text in loaded.notes) == note


def test_one_scale_holds_for_all_16_bit_images(tmp_path: Path) -> None:
    for name, white in (("a", 1000), ("b", 4000)):
        (tmp_path / name).mkdir()
        for k in range(2):
            Image.fromarray(np.full((16, 16), white - k, np.uint16)).save(tmp_path / name / f"{k}.png")
    train = load_data(tmp_path).splits.train
    assert train.images[:, 0, 0, 0].tolist() == [value * 255 // 4095 for value in (1000, 999, 4000, 3999)]
    assert load_data(tmp_path, white_16bit=65_535).splits.train.images.max() == 4000 * 255 // 65_535
