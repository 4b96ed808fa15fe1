"""What lies in a folder: images by suffix and by content, links, and what is not listed."""

import os
from pathlib import Path

import pytest
from PIL import Image

from timebox.data import load_data
from timebox.data.folders.tree import image_paths, scan
from timebox.errors import DataError

from ..making import photo_folder, picture, save


def names(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in image_paths(folder)]


@pytest.mark.parametrize(
    ("name", "format"),
    [
        ("0001", "PNG"), ("a.jpg_large", "JPEG"), ("a.dat", "GIF"), ("a.PNG", "JPEG"), ("a.jfif", "JPEG"),
        ("b.jpe", "JPEG"), ("a.tga", "TGA"), ("a.jp2", "JPEG2000"), ("a.j2k", "JPEG2000"), ("a.ppm", "PPM"),
        ("a.pgm", "PPM"), ("a.dib", "BMP"), ("bmp", "BMP"), ("a.webp", "WEBP"), ("webp", "WEBP"), ("tiff", "TIFF"),
        ("a.avif", "AVIF"), ("avif", "AVIF"), ("ppm", "PPM"), ("jp2", "JPEG2000"), ("a.txt", "PNG"),
        ("a.png.bak", "PNG"), ("IMG 001 (copy)", "JPEG"),
    ],
)  # fmt: skip
def test_images_are_known_by_suffix_or_by_content(tmp_path: Path, name: str, format: str) -> None:
    folder = photo_folder(tmp_path)
    picture(seed=9).save(folder / "cat" / name, format)
    loaded = load_data(folder)
    assert f"cat/{name}" in loaded.splits.train.ids
    assert (len(loaded.splits.train), loaded.bad_files, loaded.left_out) == (7, (), ())


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("notes.txt", b"P5 is a format"), ("a.bin", b"BM, says she, and nothing else at all"),
        ("a.wav", b"RIFF\0\0\0\0WAVE"),
        ("b.mp4", b"\0\0\0\x18ftypmp42"), ("empty", b""), ("a.ico", b"\0\0\1\0\1\0"), ("a.json", b"{}"),
    ],
)  # fmt: skip
def test_other_files_are_no_images(tmp_path: Path, name: str, content: bytes) -> None:
    folder = photo_folder(tmp_path)
    (folder / "cat" / name).write_bytes(content)
    loaded = load_data(folder)
    assert len(loaded.splits.train) == 6
    assert loaded.notes == (f"1 other file in class folders left out: cat/{name}",)


def test_links_to_images_and_folders_are_followed(tmp_path: Path) -> None:
    store, folder = photo_folder(tmp_path / "store"), photo_folder(tmp_path / "ds")
    (folder / "cat" / "linked.png").symlink_to(store / "cat" / "0.png")
    (folder / "cat" / "more").symlink_to(store / "cat")
    (folder / "emu").symlink_to(store / "dog")
    (folder / "cat" / "without suffix").symlink_to(store / "cat" / "1.png")
    train = load_data(folder).splits.train
    assert dict(zip(train.class_names, train.class_counts().tolist(), strict=True)) == {"cat": 8, "dog": 3, "emu": 3}


def test_links_that_lead_back_are_left_out_and_said(tmp_path: Path) -> None:
    folder = photo_folder(tmp_path / "ds")
    (folder / "cat" / "up").symlink_to("..")
    (folder / "cat" / "far up").symlink_to(tmp_path)
    (folder / "dog" / "self").symlink_to("self")
    (folder / "dog" / "gone").symlink_to("nowhere")
    loaded = load_data(folder)
    assert len(loaded.splits.train) == 6
    assert loaded.notes == (
        "2 links to a folder above itself left out: cat/far up, cat/up",
        "2 links to nothing left out: dog/gone, dog/self",
    )


def test_two_folders_that_link_to_each_other_end(tmp_path: Path) -> None:
    folder = photo_folder(tmp_path)
    (folder / "cat" / "dog").symlink_to("../dog")
    (folder / "dog" / "cat").symlink_to("../cat")
    assert len(names(folder)) == 12


def test_a_web_of_links_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("timebox.data.folders.tree._MAX_LINKED_FOLDERS", 20)
    for a in range(5):
        (tmp_path / str(a)).mkdir()
        for b in range(5):
            if a != b:
                (tmp_path / str(a) / str(b)).symlink_to(f"../{b}")
    with pytest.raises(DataError, match="more than 20 links to folders; give a source with fewer"):
        scan(tmp_path)


def test_folders_nested_too_deeply_are_refused(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["a"] * 110)
    deep.mkdir(parents=True)
    with pytest.raises(DataError, match="folders are nested more than 100 deep"):
        scan(tmp_path)


def test_what_systems_leave_is_never_listed(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    for name in (".b.png", "._a.png", ".ipynb_checkpoints/a.png", "__MACOSX/a.png", "@eaDir/a.png/thumb.jpg",
                 "$RECYCLE.BIN/S-1-5/a.png", "System Volume Information/a.png", ".Trash-1000/files/a.png",
                 "sub/@EADIR/a.png", "@Recently-Snapshot/a.png", "#snapshot/a.png", ".git/a.png"):  # fmt: skip
        save(tmp_path / name)
    assert names(tmp_path) == ["a.png"]


def test_a_pipe_without_a_suffix_is_no_image(tmp_path: Path) -> None:
    os.mkfifo(photo_folder(tmp_path) / "cat" / "pipe")
    assert len(load_data(tmp_path).splits.train) == 6


def test_animated_and_turned_images_keep_one_size(tmp_path: Path) -> None:
    folder = photo_folder(tmp_path)
    frames = [picture(seed=k) for k in range(3)]
    frames[0].save(folder / "cat" / "moving", "GIF", save_all=True, append_images=frames[1:])
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(seed=8).save(folder / "dog" / "turned", "JPEG", exif=exif)
    assert load_data(folder).splits.train.image_shape == (16, 16, 3)
