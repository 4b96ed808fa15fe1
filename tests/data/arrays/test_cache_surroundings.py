"""Where the cache cannot be written to, data are read all the same, and one note says so."""

import errno
import os
from pathlib import Path

import pytest

from small_runs import save_photos
from timebox import paths
from timebox.data import load_data
from timebox.data.arrays import decoded_cache, memory_map
from timebox.data.reading import encoded_images
from timebox.errors import OutputError


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose images are always worth keeping."""
    monkeypatch.setattr(encoded_images, "MIN_CACHED_PIXELS", 0)
    return save_photos(tmp_path / "photos", 4, side=16)


def note_of(photos: Path) -> str:
    """The one note on the cache, of a reading that works."""
    notes: list[str] = []
    assert len(load_data(photos, notify=notes.append).splits.train) == 8
    (note,) = (note for note in notes if note.startswith("decoded images are not kept for the next run: "))
    return note.partition(": ")[2]


def test_a_cache_that_is_a_file(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cache").touch()
    monkeypatch.setenv("TIMEBOX_CACHE", str(tmp_path / "cache"))
    assert note_of(photos) == f"'{tmp_path}/cache/prepared' cannot be written to: Not a directory"


def test_a_read_only_cache(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*given: object, **more: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setenv("TIMEBOX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(decoded_cache.tempfile, "mkdtemp", refuse)
    assert note_of(photos) == f"'{tmp_path}/cache/prepared' cannot be written to: Permission denied"


def test_no_home(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TIMEBOX_CACHE", raising=False)
    monkeypatch.setattr(paths, "user_cache", lambda: None)
    assert note_of(photos) == "this user has no home directory, and TIMEBOX_CACHE is not set"


def test_a_cache_without_room(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIMEBOX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(decoded_cache, "MIN_FREE_BYTES", 1 << 62)
    assert note_of(photos) == f"'{tmp_path}/cache/prepared' has no room for 0 MB"


def test_a_disk_that_fills_up_meanwhile(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*given: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setenv("TIMEBOX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(decoded_cache, "allocate_file", full)
    assert note_of(photos) == f"'{tmp_path}/cache/prepared' cannot be written to: No space left on device"
    assert list((tmp_path / "cache" / "prepared").iterdir()) == [], "no incomplete entry stays"


def test_a_file_system_that_maps_no_memory(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*given: object, **more: object) -> None:
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))

    monkeypatch.setenv("TIMEBOX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(decoded_cache.np, "memmap", unsupported)
    assert note_of(photos) == f"'{tmp_path}/cache/prepared' cannot be written to: No such device"


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS])
def test_a_file_system_that_allocates_late(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*given: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(memory_map.os, "posix_fallocate", unsupported)
    memory_map.allocate_file(tmp_path / "file", 100)
    assert (tmp_path / "file").stat().st_size == 100


def test_home_in_the_name_of_the_cache(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TIMEBOX_CACHE", "~/kept")
    load_data(photos)
    assert len(list((tmp_path / "kept" / "prepared").iterdir())) == 1


def test_begin_entry_names_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TIMEBOX_CACHE", raising=False)
    monkeypatch.setattr(paths, "user_cache", lambda: None)
    cache = decoded_cache.DecodedCache()
    assert cache.find("0" * 32) is None
    with pytest.raises(OutputError, match="this user has no home directory"):
        cache.begin_entry("0" * 32, 1)
