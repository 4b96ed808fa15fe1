"""The directory of a search: no link in it is followed, and nothing of the user's in it is removed."""

import os
from pathlib import Path

import pytest

from timebox.configs.tune import TuneConfig
from timebox.errors import OutputError, RunError, UsageError
from timebox.files.folders import NOT_FOLLOWED
from timebox.tuning.directory import FILES, TuneDirectory
from timebox.tuning.storage import open_storage

CONFIG = TuneConfig(data="photos", budget=100.0, trial_budget="10s", study="photos-1")


@pytest.fixture
def search(tmp_path: Path) -> Path:
    path = tmp_path / "search"
    TuneDirectory.new(path, CONFIG).close()
    return path


@pytest.mark.parametrize("name", FILES)
def test_a_link_is_refused(name: str, search: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    if (search / name).exists():
        (search / name).rename(mine)
    else:
        mine.write_bytes(b"of the user")
    before = mine.read_bytes()
    (search / name).symlink_to(mine)
    with pytest.raises((RunError, OutputError)) as caught:
        TuneDirectory.existing(search)
    assert str(caught.value) in (
        f"{str(search / name)!r} cannot be used: {NOT_FOLLOWED}",
        f"{str(search / name)!r} cannot be read: {NOT_FOLLOWED}",
        f"search {str(search)!r} cannot be written to: {NOT_FOLLOWED}",
    )
    assert mine.read_bytes() == before
    (search / name).unlink()
    mine.rename(search / name) if name in ("tune.json", "lock") else None
    TuneDirectory.existing(search).close()


def test_temporary_files_go_and_those_of_the_user_stay(search: Path, tmp_path: Path) -> None:
    for name in ("tmp", "tmp-holiday", "tmp-0123456789abcdef"):
        (search / name).mkdir()
        (search / name / "a.png").write_bytes(b"of the user")
    directory = TuneDirectory.existing(search)
    with directory.temporary_directory() as folder:
        assert folder.parent == search
        (folder / "timebox-trial-1").mkdir()
    assert not folder.exists()
    with pytest.raises(KeyboardInterrupt), directory.temporary_directory() as folder:
        raise KeyboardInterrupt
    assert not folder.exists()
    directory.close()
    assert len(list(search.glob("tmp*/a.png"))) == 3


def test_temporary_files_of_a_killed_search_are_removed(search: Path) -> None:
    directory = TuneDirectory.existing(search)
    with directory.temporary_directory() as left:
        pass
    (left / "timebox-trial-1").mkdir(parents=True)  # as if it had been killed before
    directory.close()
    again = TuneDirectory.existing(search)
    with again.temporary_directory() as folder:
        assert not left.exists()
        assert folder.exists()
    again.close()


@pytest.mark.parametrize("name", ["../mine", "/etc", "tmp-", "final", "tmp-0123456789abcdef/../final"])
def test_a_lock_file_cannot_name_anything_else(name: str, search: Path, tmp_path: Path) -> None:
    for path in (tmp_path / "mine", search / "final", search / "tmp-"):
        path.mkdir()
    (search / "lock").write_text(name)
    directory = TuneDirectory.existing(search)
    with directory.temporary_directory():
        pass
    directory.close()
    assert all(path.exists() for path in (tmp_path / "mine", search / "final", search / "tmp-"))


def test_a_lock_file_that_names_a_link(search: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (search / "tmp-0123456789abcdef").symlink_to(tmp_path / "mine")
    (search / "lock").write_text("tmp-0123456789abcdef")
    directory = TuneDirectory.existing(search)
    with directory.temporary_directory():
        pass
    directory.close()
    assert (tmp_path / "mine").exists()
    assert (search / "tmp-0123456789abcdef").is_symlink()


def test_the_second_search_in_a_directory_is_refused(search: Path, tmp_path: Path) -> None:
    directory = TuneDirectory.existing(search)
    with pytest.raises(UsageError) as caught:
        TuneDirectory.existing(search)
    assert str(caught.value) == f"search {str(search)!r} is running in another process"
    directory.close()
    before = (search / "tune.json").read_bytes()
    with pytest.raises(UsageError, match="must be a directory that is new or empty"):
        TuneDirectory.new(search, CONFIG.replace(seed=5))
    assert (search / "tune.json").read_bytes() == before
    TuneDirectory.existing(search).close()


def test_a_journal_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine").write_bytes(b"of the user")
    journal = tmp_path / "journal.log"
    for name in ("journal.log", "journal.log.lock"):
        (tmp_path / name).symlink_to(tmp_path / "mine")
        with pytest.raises(OutputError) as caught:
            open_storage(str(journal))
        assert str(caught.value) == f"{str(tmp_path / name)!r} cannot be written to: {NOT_FOLLOWED}"
        (tmp_path / name).unlink()
    assert (tmp_path / "mine").read_bytes() == b"of the user"


def test_a_journal_with_another_name_is_copied(tmp_path: Path) -> None:
    (tmp_path / "backup").write_bytes(b"")
    os.link(tmp_path / "backup", tmp_path / "journal.log")
    open_storage(str(tmp_path / "journal.log"))
    assert (tmp_path / "journal.log").stat().st_nlink == 1


def test_a_file_that_could_not_be_read_again_is_not_written(search: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("timebox.tuning.directory._MAX_TRIALS_BYTES", 10)
    directory = TuneDirectory.existing(search)
    directory.write("tune.html", bytes(10))
    with pytest.raises(OutputError, match=r"tune\.html' of 11 bytes could not be read again: at most 10 are read$"):
        directory.write("tune.html", bytes(11))
    assert directory.read("tune.html") == bytes(10)
    directory.close()
