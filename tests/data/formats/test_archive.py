import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from timebox.data import load_data
from timebox.errors import DataError

from ..making import cifar10_python, mnist_folder, photo_folder, picture, png_bytes, save


def zipped(folder: Path, path: Path, below: str = "") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, f"{below}{file.relative_to(folder)}")
    return path


def tarred(folder: Path, path: Path, below: str = ".") -> Path:
    mode = {".gz": "w:gz", ".bz2": "w:bz2", ".xz": "w:xz"}.get(path.suffix, "w")
    with tarfile.open(path, mode) as archive:
        archive.add(folder, below)
    return path


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz", "a.tgz", "a.tar.bz2", "a.tar.xz", "without-a-suffix"])
@pytest.mark.parametrize("below", ["", "pets/", "a/b/pets/"])
def test_archived_class_folders_equal_unpacked_ones(tmp_path, name, below):
    folder = photo_folder(tmp_path / "pets")
    pack = zipped if name.endswith("zip") else tarred
    loaded, plain = (
        load_data(pack(folder, tmp_path / name, below or ("" if pack is zipped else "."))),
        load_data(folder),
    )
    assert loaded.format == f"{'zip' if pack is zipped else 'tar'} of a folder of class folders"
    assert loaded.splits.train.ids == plain.splits.train.ids
    assert np.array_equal(loaded.splits.train.images, plain.splits.train.images)
    assert loaded.name == name.split(".")[0]


def test_archives_of_other_formats(tmp_path):
    assert load_data(zipped(cifar10_python(tmp_path / "c").parent, tmp_path / "c.zip")).splits.train.num_classes == 10
    assert len(load_data(zipped(mnist_folder(tmp_path / "m"), tmp_path / "m.zip")).splits.test) == 10
    images = np.arange(256, dtype=np.uint8).reshape(4, 8, 8)
    np.savez(tmp_path / "x.npz", images=images, labels=[0, 1, 0, 1])
    with zipfile.ZipFile(tmp_path / "n.zip", "w") as archive:
        archive.write(tmp_path / "x.npz", "x.npz")
    assert load_data(tmp_path / "n.zip").format == "zip of a .npz file"


def test_temporary_files_are_removed(tmp_path, monkeypatch):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    load_data(zipped(photo_folder(tmp_path / "pets"), tmp_path / "a.zip"))
    assert not list(scratch.iterdir())


def test_hidden_files_and_links_are_left_out(tmp_path):
    folder = photo_folder(tmp_path / "pets")
    save(folder / "__MACOSX" / "cat" / "0.png")
    (folder / "cat" / "link.png").symlink_to("/etc/passwd")
    loaded = load_data(tarred(folder, tmp_path / "a.tar"))
    assert len(loaded.splits.train) == 6
    assert "1 link in the archive left out" in loaded.notes


@pytest.mark.parametrize("name", ["/etc/evil.png", "../evil.png", "a/../../evil.png", "..\\evil.png"])
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_members_outside_the_archive_are_refused(tmp_path, name, kind):
    path, blob = tmp_path / f"a.{kind}", png_bytes(picture())
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(name, blob)
    else:
        with tarfile.open(path, "w") as archive:
            member = tarfile.TarInfo(name)
            member.size = len(blob)
            archive.addfile(member, io.BytesIO(blob))
    with pytest.raises(DataError, match="which lies outside the archive; refused"):
        load_data(path)


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_a_bomb_is_refused(tmp_path, kind):
    path, blob = tmp_path / f"a.{kind}", bytes(200 << 20)
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("cat/0.bmp", blob)
    else:
        with tarfile.open(path, "w:gz") as archive:
            member = tarfile.TarInfo("cat/0.bmp")
            member.size = len(blob)
            archive.addfile(member, io.BytesIO(blob))
    with pytest.raises(DataError, match="looks like a decompression bomb"):
        load_data(path)


def test_a_damaged_archive_is_refused(tmp_path):
    path = tarred(photo_folder(tmp_path / "pets", per_class=30), tmp_path / "a.tar.gz")
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(DataError, match=r"a\.tar\.gz: the archive is truncated, damaged or locked"):
        load_data(path)
    path = zipped(photo_folder(tmp_path / "cats", per_class=30), tmp_path / "a.zip")
    blob = bytearray(path.read_bytes())
    blob[2000:2100] = bytes(100)
    path.write_bytes(blob)
    with pytest.raises(DataError, match=r"a\.zip: the archive is truncated, damaged or locked"):
        load_data(path)


def test_archives_without_a_supported_format_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("notes.txt", "nothing")
    with pytest.raises(DataError, match=r"a\.zip holds notes\.txt, in no supported format\. Looked for: CIFAR-10"):
        load_data(tmp_path / "a.zip")


def test_errors_name_the_archive_not_the_temporary_folder(tmp_path):
    folder = photo_folder(tmp_path / "pets", ("cat",))
    save(folder / "dog" / "0.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"^[^ ]*/a\.zip: 1 of 4 images"):
        load_data(zipped(folder, tmp_path / "a.zip"))


def test_too_little_disk_space_is_refused_before_unpacking(tmp_path, monkeypatch):
    path = zipped(photo_folder(tmp_path / "pets"), tmp_path / "a.zip")
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    with pytest.raises(DataError, match=r"needs [\d,]+ bytes to be unpacked, and .* has 1,000 left; set TMPDIR"):
        load_data(path)


def test_a_sparse_member_is_left_out(tmp_path):
    path, blob = tmp_path / "a.tar", png_bytes(picture())
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as archive:
        for name in ("cat/0.png", "dog/0.png"):
            member = tarfile.TarInfo(name)
            member.size = len(blob)
            archive.addfile(member, io.BytesIO(png_bytes(picture(seed=len(name) + (name[0] == "d")))[: len(blob)]))
        member = tarfile.TarInfo("cat/huge.png")
        member.type = tarfile.GNUTYPE_SPARSE
        archive.addfile(member)
    assert load_data(path, max_bad_share=0.5).notes[0] == "1 link in the archive left out"


def test_messages_name_nothing_that_lies_beside_the_temporary_folder(tmp_path, monkeypatch):
    (tmp_path / "other.csv").write_text("path,label\n")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    save(tmp_path / "pets" / "photos" / "0.png")
    with pytest.raises(DataError, match=r"nothing says what photos/0\.png is") as refused:
        load_data(zipped(tmp_path / "pets", tmp_path / "a.zip"))
    assert "other.csv" not in str(refused.value)


def packed(path: Path, files: list[tuple[str, bytes]]) -> Path:
    """A zip or tar archive with members of any names."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, blob in files:
                member = zipfile.ZipInfo("any")
                member.filename = name
                archive.writestr(member, blob)
    else:
        with tarfile.open(path, "w") as archive:
            for name, blob in files:
                member = tarfile.TarInfo(name)
                member.size = len(blob)
                archive.addfile(member, io.BytesIO(blob))
    return path


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", r"a\.\w+: holds a file without a name \(''\); pack it again"),
        (".", r"a\.\w+: holds a file without a name \('\.'\); pack it again"),
        ("cat", r"a\.\w+/cat\S*' cannot be unpacked: the archive uses that name for a folder and for a file"),
        ("cat/0.png/1.png", r"a\.\w+/cat/0\.png\S*' cannot be unpacked: the archive uses that name for a folder"),
        ("cat/" + "x" * 300 + ".png", "cannot be unpacked: File name too long"),
        ("d/" * 3000 + "0.png", "cannot be unpacked: File name too long"),
    ],
)
def test_names_that_no_file_can_have_are_refused(tmp_path, monkeypatch, kind, name, words):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    files = [
        ("cat/0.png", png_bytes(picture(seed=0))),
        ("dog/0.png", png_bytes(picture(seed=1))),
        (name, png_bytes(picture(seed=2))),
    ]
    with pytest.raises(DataError, match=words) as caught:
        load_data(packed(tmp_path / f"a.{kind}", files))
    assert "scratch" not in str(caught.value)
    assert not list(scratch.iterdir())


def test_folders_in_a_zip_archive_with_windows_separators(tmp_path):
    names = [f"pets\\{name}\\{number}.png" for name in ("cat", "dog") for number in range(3)]
    files = [(name, png_bytes(picture(seed=seed))) for seed, name in enumerate(names)]
    folders = [("pets\\", b""), ("pets\\cat\\", b""), ("pets\\dog\\", b"")]
    loaded = load_data(packed(tmp_path / "a.zip", [*folders, *files]))
    assert loaded.splits.train.class_names == ("cat", "dog")
    assert len(loaded.splits.train.images) == 6
