"""Following a training, a search or a benchmark by its files: phases, new lines, what is replaced, and damage."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("starlette", reason="the extra serve is not installed")
from starlette.testclient import TestClient

from timebox.benchmarking import directory as benchmarks
from timebox.configs.tune import TuneConfig
from timebox.errors import UsageError
from timebox.files import lock
from timebox.run import Run
from timebox.run.summary import TrainingStatus
from timebox.serving.watching import watcher as watching
from timebox.serving.watching.app import WatchServer
from timebox.serving.watching.values import Status
from timebox.serving.watching.watcher import MAX_NEW_BYTES, MAX_NEW_LINES, DirectoryWatcher, check_watchable

from .conftest import ADDRESS


def write_status(folder: Path, **changes: object) -> None:
    status = {
        "format": 1, "pid": os.getpid(), "host": socket.gethostname(), "started_at": time.time() - 10,
        "budget_seconds": 60.0, "expected_steps": 100, "train_images": 150, "num_classes": 3, "device": "cpu",
        "plan": ["a line of the plan"], "examples": [["red", "data:image/png;base64,"]],
    }  # fmt: skip
    (folder / "status.json").write_text(json.dumps({**status, **changes}))


def add_steps(folder: Path, first: int, last: int, of: int = 100) -> None:
    with (folder / "metrics.jsonl").open("a") as file:
        for step in range(first, last + 1):
            line = {
                "step": step,
                "epoch": step / 10,
                "progress": step / of,
                "loss": 2 / step,
                "lr": 0.1,
                "momentum": 0.9,
            }
            file.write(json.dumps(line) + "\n")


def test_a_training_from_its_beginning_to_its_end(tmp_path: Path, trained: Run) -> None:
    folder = tmp_path / "run"
    watcher = DirectoryWatcher(folder)
    assert watcher.poll()["phase"] == "waiting"
    folder.mkdir()
    write_status(folder)
    add_steps(folder, 1, 40)
    state = watcher.poll()
    assert (state["phase"], len(state["lines"])) == ("training", 40)
    assert 45 < state["seconds_left"] < 51
    assert watcher.poll()["lines"] == []
    add_steps(folder, 41, 100)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 101, "loss"')  # a line that is being written
    state = watcher.poll()
    assert (state["phase"], [line["step"] for line in state["lines"]]) == ("scoring", list(range(41, 101)))
    (folder / "status.json").unlink()
    (folder / "summary.json").write_bytes((trained.path / "summary.json").read_bytes())
    state = watcher.poll()
    assert (state["phase"], state["seconds_left"], state["report"]) == ("done", None, False)
    assert state["summary"]["test_accuracy"] == trained.test_accuracy


def test_a_training_whose_process_was_killed(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    write_status(tmp_path, pid=process.pid)
    assert DirectoryWatcher(tmp_path).poll()["phase"] == "killed"
    write_status(tmp_path, pid=process.pid, host="another")
    assert DirectoryWatcher(tmp_path).poll()["phase"] == "training"


def test_a_training_that_replaces_a_run(tmp_path: Path, trained: Run) -> None:
    old, new = tmp_path / "run", tmp_path / ".run.new-0123456789abcdef"
    old.mkdir()
    (old / "summary.json").write_bytes((trained.path / "summary.json").read_bytes())
    watcher = DirectoryWatcher(old)
    assert watcher.poll()["phase"] == "done"
    new.mkdir()
    write_status(new)
    add_steps(new, 1, 5)
    state = watcher.poll()
    assert (state["phase"], state["restarted"], len(state["lines"])) == ("training", True, 5)
    old.rename(tmp_path / "away")
    new.rename(old)
    add_steps(old, 6, 7)
    state = watcher.poll()
    assert (state["restarted"], [line["step"] for line in state["lines"]]) == (False, [6, 7])


def test_metrics_that_are_cut_begin_anew(tmp_path: Path) -> None:
    write_status(tmp_path)
    add_steps(tmp_path, 1, 20)
    watcher = DirectoryWatcher(tmp_path)
    watcher.poll()
    (tmp_path / "metrics.jsonl").write_text("")
    add_steps(tmp_path, 1, 3)
    state = watcher.poll()
    assert (state["restarted"], len(state["lines"])) == (True, 3)


def test_the_status_is_the_one_that_a_training_writes() -> None:
    assert set(Status.__struct_fields__) == set(TrainingStatus.__struct_fields__)


DAMAGE = [
    b"", b"{", b"[1]", b'{"format": 99}', b"\xff\xfe", b'{"pid": "x", "plan": 3}', b"[" * 100_000, b'{"a": ' * 50_000,
    b'{"step": 1, "progress": [], "loss": "x", "epoch": null}\n', b'{"progress": "x"}\n{"progress": {}}\n',
    b'{"step": NaN, "progress": -Infinity, "loss": NaN, "lr": 1e999}\n', b'{"progress": 1' + b"0" * 400 + b"}\n",
    b'{"progress": 1' + b"0" * 5000 + b"}\n", b'{"label": "\\ud800", "step": 1.5}\n',
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("damaged", ["status.json", "summary.json", "metrics.jsonl", "trials.jsonl"])
def test_damaged_files_end_nothing(tmp_path: Path, damage: bytes, damaged: str) -> None:
    write_status(tmp_path)
    if damaged == "trials.jsonl":
        (tmp_path / "tune.json").write_text('{"format": 1}')
    (tmp_path / damaged).write_bytes(damage)
    server = WatchServer(tmp_path, None)
    with TestClient(server.app, ADDRESS) as client:
        state = json.loads(client.get("/state").text, parse_constant=pytest.fail)
    assert state["phase"] == ("killed" if damaged == "trials.jsonl" else state["phase"])
    assert (server.seconds_since_end() == 0) is (damaged != "trials.jsonl")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda value: st.lists(value, max_size=3),
)
NAMES = st.sampled_from(
    [*watching.LINE_FIELDS, *watching.TRIAL_FIELDS, *watching.SUMMARY_FIELDS, *Status.__struct_fields__]
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["status.json", "summary.json", "metrics.jsonl", "trials.jsonl"]), st.dictionaries(NAMES, JSON))
def test_no_value_in_a_file_ends_the_page(tmp_path: Path, name: str, values: dict[str, Any]) -> None:
    write_status(tmp_path)
    path = tmp_path / name
    text = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**text, **values}) + "\n")
    json.dumps(DirectoryWatcher(tmp_path).poll(), allow_nan=False)
    path.unlink()


@pytest.mark.parametrize("pid", [2**31, 2**63, 10**400, 0, -1, True, 1.5, "1", None])
def test_a_process_id_that_none_can_have(tmp_path: Path, pid: object) -> None:
    write_status(tmp_path, pid=pid)
    assert DirectoryWatcher(tmp_path).poll()["phase"] == "planning"  # as of any status that cannot be read


def test_numbers_that_are_none_are_left_out(tmp_path: Path) -> None:
    write_status(tmp_path)
    (tmp_path / "metrics.jsonl").write_text('{"step": 3, "progress": 0.5, "loss": NaN, "lr": Infinity}\n')
    assert DirectoryWatcher(tmp_path).poll()["lines"] == [{"step": 3, "progress": 0.5}]


def test_an_endless_line_is_passed_over(tmp_path: Path) -> None:
    write_status(tmp_path)
    (tmp_path / "metrics.jsonl").write_bytes(b"x" * (MAX_NEW_BYTES + 5) + b"\n")
    add_steps(tmp_path, 1, 2)
    watcher = DirectoryWatcher(tmp_path)
    assert [len(watcher.poll()["lines"]) for _ in range(3)] == [0, 2, 0]


def test_a_link_that_leads_to_itself_ends_nothing(tmp_path: Path) -> None:
    for name in ("run", "status.json", "summary.json", "metrics.jsonl"):
        (tmp_path / name).symlink_to(name)
    assert DirectoryWatcher(tmp_path / "run").poll()["phase"] == "waiting"
    server = WatchServer(tmp_path, None)
    assert server.seconds_since_end() == 0


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("file", "is a file: give the directory of a training, a search or"), ("file/run", "Not a directory"),
        ("loop", "Too many levels of symbolic links"), ("x" * 300, "File name too long"), ("a\0b", "null byte"),
    ],
)  # fmt: skip
def test_what_can_be_no_directory_is_refused(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(UsageError, match=reason):
        check_watchable(tmp_path / name)
    check_watchable(tmp_path)
    check_watchable(tmp_path / "later" / "run")


def test_long_trainings_are_thinned_out(tmp_path: Path) -> None:
    write_status(tmp_path)
    add_steps(tmp_path, 1, 3 * MAX_NEW_LINES, of=10**6)
    assert len(DirectoryWatcher(tmp_path).poll()["lines"]) <= MAX_NEW_LINES + 1


@pytest.fixture
def looks_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "LOCK_SECONDS", 0.0)


@pytest.mark.parametrize(
    ("kind", "config", "locked"), [("benchmark", "benchmark.json", "trials.jsonl"), ("search", "tune.json", "lock")]
)
def test_searches_and_benchmarks_show_their_trials_until_they_end(
    tmp_path: Path, kind: str, config: str, locked: str, looks_at_once: None
) -> None:
    (tmp_path / config).write_text('{"format": 1}')
    trial = '{"label": "airbench94", "seed": 0, "accuracy": 0.5, "steps": 9}\n{"failed": "no memory", "seed": 1}\n'
    (tmp_path / "trials.jsonl").write_text(trial)
    watcher = DirectoryWatcher(tmp_path)
    with (tmp_path / locked).open("a") as file:
        lock(file.fileno())
        state = watcher.poll()
        assert (state["kind"], state["phase"]) == (kind, "training")
        assert state["lines"] == [
            {"label": "airbench94", "seed": 0, "accuracy": 0.5},
            {"failed": "no memory", "seed": 1},
        ]
        assert watcher.poll()["phase"] == "training"
    assert watcher.poll()["phase"] == "killed"
    (tmp_path / "summary.json").write_text('{"format": 1}')
    assert watcher.poll()["phase"] == "done"
    with (tmp_path / locked).open("a") as file:  # it is continued
        lock(file.fileno())
        assert watcher.poll()["phase"] == "training"


def test_a_search_holds_the_lock_that_is_looked_at(tmp_path: Path, looks_at_once: None) -> None:
    pytest.importorskip("optuna", reason="the extra tune is not installed")
    from timebox.tuning import directory as searches

    search = searches.TuneDirectory.new(tmp_path / "search", TuneConfig(data="photos", budget=100.0, study="one"))
    watcher = DirectoryWatcher(search.path)
    assert watcher.poll()["phase"] == "training"
    search.close()
    assert watcher.poll()["phase"] == "killed"
    assert {kind.name: kind.lock for kind in watching.KINDS_OF_TRIALS} == {
        "search": searches.LOCK, "benchmark": benchmarks.TRIALS,
    }  # fmt: skip


def test_the_lock_is_looked_at_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[Path] = []
    monkeypatch.setattr(watching, "is_locked", lambda path: looked.append(path) or True)
    (tmp_path / "tune.json").write_text('{"format": 1}')
    watcher = DirectoryWatcher(tmp_path)
    assert [watcher.poll()["phase"] for _ in range(5)] == ["training"] * 5
    assert looked == [tmp_path / "lock"]


def test_where_locks_cannot_be_seen_a_search_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "is_locked", lambda path: None)
    (tmp_path / "tune.json").write_text('{"format": 1}')
    assert DirectoryWatcher(tmp_path).poll()["phase"] == "training"
    (tmp_path / "summary.json").write_text('{"format": 1}')
    assert DirectoryWatcher(tmp_path).poll()["phase"] == "done"


def test_a_training_that_is_begun_again_in_its_directory(tmp_path: Path) -> None:
    write_status(tmp_path)
    add_steps(tmp_path, 1, 100)
    watcher = DirectoryWatcher(tmp_path)
    assert watcher.poll()["phase"] == "scoring"
    (tmp_path / "metrics.jsonl").unlink()
    state = watcher.poll()
    assert (state["phase"], state["restarted"], state["lines"]) == ("training", True, [])
    assert watcher.poll()["restarted"] is False
    add_steps(tmp_path, 1, 3)
    state = watcher.poll()
    assert (state["phase"], state["restarted"], len(state["lines"])) == ("training", True, 3)


def test_another_training_is_known_by_its_start(tmp_path: Path) -> None:
    begun = time.time() - 100
    write_status(tmp_path, started_at=begun)
    add_steps(tmp_path, 1, 3)
    watcher = DirectoryWatcher(tmp_path)
    watcher.poll()
    write_status(tmp_path, started_at=begun + 0.2)  # of the same one, once it is planned
    assert watcher.poll()["restarted"] is False
    write_status(tmp_path, started_at=begun + 50)
    add_steps(tmp_path, 4, 5)  # in the same file, as one that is resumed
    state = watcher.poll()
    assert (state["restarted"], len(state["lines"])) == (True, 5)


def test_a_training_that_ends_before_anything_is_kept(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    server, ends = WatchServer(folder, None), WatchServer(folder, None, lambda: True)
    assert server.seconds_since_end() == 0
    folder.mkdir()
    write_status(folder)
    assert server.seconds_since_end() == 0
    (folder / "status.json").unlink()
    folder.rmdir()
    for each in (server, ends):
        assert each.seconds_since_end() >= 0
        time.sleep(0.01)
        assert each.seconds_since_end() > 0
    assert DirectoryWatcher(folder, lambda: True).poll()["phase"] == "nothing"
    assert DirectoryWatcher(folder).poll()["phase"] == "waiting"  # for one that begins later
    folder.mkdir()
    write_status(folder)
    assert server.seconds_since_end() == 0


def test_a_training_that_is_known_to_have_ended(tmp_path: Path, trained: Run) -> None:
    write_status(tmp_path)
    assert DirectoryWatcher(tmp_path, lambda: True).poll()["phase"] == "killed"
    assert DirectoryWatcher(trained.path, lambda: True).poll()["phase"] == "done"
