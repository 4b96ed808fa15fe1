"""Journals and databases as storage."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import optuna
import pytest

from timebox.errors import OutputError, RunError, UsageError
from timebox.tuning import storage as storages
from timebox.tuning.storage import open_storage

WRITER = """
import sys, optuna
from timebox.tuning.storage import open_storage
optuna.logging.set_verbosity(optuna.logging.ERROR)
study = optuna.load_study(study_name="s", storage=open_storage(sys.argv[1]))
while True:
    trial = study.ask()
    study.tell(trial, float(trial.number))
    print(trial.number, flush=True)
"""


def test_a_journal_is_created_and_read_again(tmp_path: Path) -> None:
    path = str(tmp_path / "journal.log")
    study = optuna.create_study(study_name="s", storage=open_storage(path))
    study.tell(study.ask(), 1.0)
    assert optuna.load_study(study_name="s", storage=open_storage(path)).best_value == 1.0


def test_an_unfinished_line_is_truncated_before_the_next_write(tmp_path: Path) -> None:
    path = tmp_path / "journal.log"
    study = optuna.create_study(study_name="s", storage=open_storage(str(path)))
    study.tell(study.ask(), 1.0)
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"op_code": 4, "wor')
    study = optuna.load_study(study_name="s", storage=open_storage(str(path)))
    study.tell(study.ask(), 2.0)
    assert path.read_bytes().startswith(whole)
    again = optuna.load_study(study_name="s", storage=open_storage(str(path)))
    assert [trial.value for trial in again.trials] == [1.0, 2.0]


@pytest.mark.parametrize("length", [0, 1, 65_535, 65_536, 200_000])
def test_an_unfinished_line_of_any_length_is_truncated(tmp_path: Path, length: int) -> None:
    path = tmp_path / "journal.log"
    study = optuna.create_study(study_name="s", storage=open_storage(str(path)))
    study.tell(study.ask(), 1.0)
    whole = path.read_bytes()
    path.write_bytes(whole + b"x" * length)
    open_storage(str(path))
    assert path.read_bytes() == whole


DAMAGED = {
    "not JSON": b"{\n",
    "a list": b"[]\n",
    "a number": b"3\n",
    "deeply nested": b"[" * 100_000 + b"\n",
    "no operation": b'{"worker_id": "a"}\n',
    "an unknown operation": b'{"op_code": 99, "worker_id": "a"}\n',
    "not UTF-8": b'{"op_code": 0, "worker_id": "\xff", "study_name": "s", "directions": [1]}\n',
    "a direction that is none": b'{"op_code": 0, "worker_id": "a", "study_name": "s", "directions": [99]}\n',
}


@pytest.mark.parametrize("line", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_journal_is_refused_with_its_name(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "journal.log"
    optuna.create_study(study_name="s", storage=open_storage(str(path)))
    path.write_bytes(path.read_bytes() + line + path.read_bytes())
    with pytest.raises(RunError, match=r"journal\.log' is damaged, no search can go on with it: "):
        open_storage(str(path))


def test_a_journal_too_large_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "journal.log"
    path.write_bytes(b"")
    os.truncate(path, 1 << 40)  # sparse
    with pytest.raises(RunError, match=r"has 1,099,511,627,776 bytes; a search writes at most 268,435,456"):
        open_storage(str(path))


@pytest.mark.endurance
@pytest.mark.integration
def test_killed_writers_leave_a_readable_journal(tmp_path: Path) -> None:
    path = str(tmp_path / "journal.log")
    optuna.create_study(study_name="s", storage=open_storage(path))
    numbers = []
    for num_trials in (1, 20):
        writers = [
            subprocess.Popen([sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE, text=True) for _ in range(2)
        ]
        for writer in writers:
            assert writer.stdout is not None
            numbers += [int(writer.stdout.readline()) for _ in range(num_trials)]  # it has begun to write
        for writer in writers:
            writer.send_signal(signal.SIGKILL)
            numbers += [int(line) for line in writer.communicate()[0].splitlines() if line.strip().isdigit()]
    study = optuna.load_study(study_name="s", storage=open_storage(path))
    done = {trial.number for trial in study.trials if trial.state.is_finished()}
    assert set(numbers) <= done
    assert len(numbers) == len(set(numbers))
    study.tell(study.ask(), 0.0)  # the lock is free


def test_a_journal_in_a_missing_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written"):
        open_storage(str(tmp_path / "nowhere" / "journal.log"))


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:secret@127.0.0.1:9/searches",
        "mysql://me:secret@127.0.0.1:9/searches",
        "nonsense://me:secret@127.0.0.1/searches",
        "postgresql://me:secret@nowhere.invalid/searches",
        "postgresql://me:se/cret@127.0.0.1:9/searches",
        "postgresql://me:s@secret@127.0.0.1:9/searches",
        "postgresql://me:it's secret@127.0.0.1:9/searches",
        "postgresql://me:secret@127.0.0.1:port/searches",
    ],
)
def test_an_unreachable_database_is_reported_without_its_password(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_storage(url)
    assert "secret" not in repr(caught.value)
    assert "cret" not in str(caught.value)
    assert "me:***@" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_driver_that_quotes_the_password_does_not_give_it_away(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(url: str) -> None:
        raise ValueError(f"invalid dsn near 'hunter 2' in {url}, password=hunter%202")

    monkeypatch.setattr(storages, "_open_database", refuse)
    with pytest.raises(UsageError) as caught:
        open_storage("postgresql://me:hunter%202@host/x")
    assert str(caught.value) == (
        "storage 'postgresql://me:***@host/x' cannot be used: invalid dsn near '***' in "
        "postgresql://me:***@host/x, password=***"
    )
    assert "hunter" not in repr(caught.value)
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("name", ["journal.log", "journal.log.lock"])
@pytest.mark.parametrize("exists", [True, False])
def test_a_journal_that_is_a_link_is_refused(tmp_path: Path, name: str, exists: bool) -> None:
    outside = tmp_path / "outside"
    if exists:
        outside.write_bytes(b"mine\nnot ended")
    (tmp_path / "search").mkdir()
    (tmp_path / "search" / name).symlink_to(outside)
    with pytest.raises(
        OutputError, match=f"{name}' cannot be written( to)?: it is a symbolic link, which is not followed here"
    ):
        open_storage(str(tmp_path / "search" / "journal.log"))
    assert (outside.read_bytes() if exists else outside.exists()) == (b"mine\nnot ended" if exists else False)


@pytest.mark.parametrize("name", ["journal.log", "journal.log.lock"])
def test_a_pipe_in_place_of_a_journal_is_refused(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(OutputError, match=f"{name}' cannot be written( to)?: (it is )?a named pipe"):
        open_storage(str(tmp_path / "journal.log"))


def test_a_journal_that_becomes_a_link_is_not_written_to(tmp_path: Path) -> None:
    path, outside = tmp_path / "journal.log", tmp_path / "outside"
    storage = open_storage(str(path))
    outside.write_bytes(b"mine")
    path.unlink()
    path.symlink_to(outside)
    with pytest.raises(OutputError, match="it is a symbolic link"):
        optuna.create_study(study_name="s", storage=storage)
    assert outside.read_bytes() == b"mine"
