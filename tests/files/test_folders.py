"""Folder: files are reached by name through a handle, never through a link, and replaced whole."""

import os
import sys
from pathlib import Path

import pytest

from timebox.files import open_regular, read_regular, write_whole
from timebox.files.folders import NOT_FOLLOWED, Folder, target_of_temporary


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file outside the folder that links in it lead to."""
    file = tmp_path / "secret.txt"
    file.write_text("of the user")
    return file


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


def test_a_link_is_neither_read_nor_opened_for_writing(place: Path, secret: Path) -> None:
    (place / "file").symlink_to(secret)
    (place / "nowhere").symlink_to(place.parent / "new.txt")
    with Folder(place) as folder:
        for name in ("file", "nowhere"):
            assert folder.kind(name) == "symbolic link"
            for use in (folder.open_regular, folder.open_own):
                with pytest.raises(OSError, match=f"^{NOT_FOLLOWED}$"):
                    use(name)
    with pytest.raises(OSError, match=f"^{NOT_FOLLOWED}$"):
        read_regular(place / "file", 100, follow=False)
    assert read_regular(place / "file", 100) == b"of the user"
    assert secret.read_text() == "of the user"
    assert not (place.parent / "new.txt").exists()


def test_a_name_that_becomes_a_link_is_not_followed(place: Path, secret: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the check of its kind and opening it."""
    (place / "file").symlink_to(secret)
    monkeypatch.setattr("timebox.files.folders._kind_at", lambda *given: "file")
    with Folder(place) as folder, pytest.raises(OSError, match=f"^{NOT_FOLLOWED}$"):
        folder.open_own("file")
    assert secret.read_text() == "of the user"


def test_writing_replaces_a_link_and_not_the_file_it_leads_to(place: Path, secret: Path) -> None:
    (place / "file").symlink_to(secret)
    with Folder(place) as folder:
        folder.write_whole("file", b"new")
    assert not (place / "file").is_symlink()
    assert (place / "file").read_bytes() == b"new"
    (place / "other").symlink_to(secret)
    write_whole(place / "other", b"new")
    assert secret.read_text() == "of the user"
    assert sorted(path.name for path in place.iterdir()) == ["file", "other"]


def test_a_link_under_the_name_of_a_temporary_file_is_not_written_through(place: Path, secret: Path) -> None:
    (place / ".file.tmp").symlink_to(secret)
    write_whole(place / "file", b"new")
    assert secret.read_text() == "of the user"
    assert (place / ".file.tmp").is_symlink()


def test_temporary_names_cannot_be_foreseen(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = []
    replace = os.replace

    def record(old: str, new: str, **handles: int) -> None:
        names.append(old)
        replace(old, new, **handles)

    monkeypatch.setattr(os, "replace", record)
    for _ in range(3):
        write_whole(place / "file", b"new")
    assert len(set(names)) == 3
    assert {target_of_temporary(name) for name in names} == {"file"}


def test_a_temporary_file_that_exists_is_never_opened(
    place: Path, secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("timebox.files.folders.secrets.token_hex", lambda size: "0" * 16)
    (place / f".file.{'0' * 16}.tmp").symlink_to(secret)
    with pytest.raises(FileExistsError):
        write_whole(place / "file", b"new")
    assert secret.read_text() == "of the user"


def test_a_folder_that_is_a_link_is_not_entered(place: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (place / "checkpoint").symlink_to(tmp_path / "photos")
    with Folder(place) as folder:
        for create in (False, True):
            with pytest.raises(OSError, match=f"^{NOT_FOLLOWED}$"):
                folder.folder("checkpoint", create=create)
    with pytest.raises(OSError, match=f"^{NOT_FOLLOWED}$"):
        Folder(place / "checkpoint", follow=False)
    with Folder(place / "checkpoint") as followed:  # where a user names a link
        assert followed.names() == []


@pytest.mark.skipif(sys.platform == "win32", reason="a directory has no handle there")
def test_the_handle_stays_with_a_renamed_directory(place: Path, tmp_path: Path) -> None:
    with Folder(place) as folder:
        place.rename(tmp_path / "moved")
        (tmp_path / "elsewhere").mkdir()
        place.symlink_to(tmp_path / "elsewhere")
        assert not folder.is_at(place)
        assert folder.is_at(tmp_path / "moved")
        folder.write_durably("file", b"new")
    assert (tmp_path / "moved" / "file").read_bytes() == b"new"
    assert not any((tmp_path / "elsewhere").iterdir())


def test_a_file_with_other_names_is_replaced_by_a_copy(place: Path, tmp_path: Path) -> None:
    backup = tmp_path / "backup.jsonl"
    backup.write_bytes(b"line\n" * 1000)
    os.link(backup, place / "metrics.jsonl")
    with Folder(place) as folder:
        descriptor = folder.open_own("metrics.jsonl")
        os.ftruncate(descriptor, 5)
        os.close(descriptor)
    assert (place / "metrics.jsonl").read_bytes() == b"line\n"
    assert backup.read_bytes() == b"line\n" * 1000
    assert [path.name for path in place.iterdir()] == ["metrics.jsonl"]


def test_pipes_and_directories_are_no_files(place: Path) -> None:
    os.mkfifo(place / "pipe")
    (place / "inner").mkdir()
    with Folder(place) as folder:
        for name, words in {"pipe": "it is a named pipe, not a file", "inner": "it is a directory, not a file"}.items():
            with pytest.raises(OSError, match=f"^{words}$"):
                folder.open_own(name)
            with pytest.raises(OSError, match="not a file"):
                open_regular(place / name, follow=False)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../secret.txt", "/etc/hostname"])
def test_a_path_is_no_name(place: Path, secret: Path, name: str) -> None:
    with Folder(place) as folder:
        for use in (folder.open_regular, folder.remove, folder.kind):
            with pytest.raises(OSError, match="is not the name of a file"):
                use(name)
    assert secret.exists()


def test_a_closed_folder_does_nothing(place: Path) -> None:
    (place / "file").touch()
    folder = Folder(place)
    folder.close()
    folder.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        folder.remove("file")
    assert (place / "file").exists()


def test_without_handles_paths_take_their_place(place: Path, secret: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows."""
    monkeypatch.setattr("timebox.files.folders._HAS_HANDLES", False)
    (place / "link").symlink_to(secret)
    with Folder(place) as folder:
        assert folder.handle is None
        folder.write_durably("file", b"new")
        with folder.folder("inner", create=True) as inner:
            inner.write_whole("file", b"inner")
            assert inner.names() == ["file"]
            inner.remove("file")
        folder.remove_folder("inner")
        with folder.open_regular("file") as file:
            assert file.read() == b"new"
        with pytest.raises(OSError, match=f"^{NOT_FOLLOWED}$"):
            folder.open_own("link")
        assert folder.names() == ["file", "link"]
        assert folder.is_at(place)
    with pytest.raises(NotADirectoryError):
        Folder(place / "file")


def test_a_long_name_leaves_room_for_the_temporary_one(place: Path) -> None:
    name = "é" * 120 + ".html"
    write_whole(place / name, b"page")
    assert (place / name).read_bytes() == b"page"


@pytest.mark.parametrize(
    ("name", "target"),
    [
        (".model.json.0123456789abcdef.tmp", "model.json"),
        (".model.json.tmp", "model.json"),  # of timebox 0.1.0
        ("model.json.tmp", None),
        (".model.json", None),
        (".tmp", None),
    ],
)
def test_the_target_of_a_temporary_name(name: str, target: str | None) -> None:
    assert target_of_temporary(name) == target
