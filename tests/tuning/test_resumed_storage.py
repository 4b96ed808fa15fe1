"""Resuming a search: which storage is opened, and that no password is shown."""

import json
import sys
import time
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest

from timebox.configs.tune import TuneConfig
from timebox.errors import RunError, UsageError, flags_in_messages
from timebox.tuning import tune
from timebox.tuning.directory import TuneDirectory
from timebox.tuning.worker import WorkerConfig
from timebox.tuning.worker_pool import WorkerPool

from .conftest import BUDGET


def begun_elsewhere(path: Path, data: Path, storage: str | None) -> Path:
    """The directory of a search that was begun with a storage, as somebody may have sent it."""
    config = TuneConfig(data=str(data), budget=BUDGET, trial_budget="20s", study="s", storage=storage)
    TuneDirectory.new(path, config).close()
    return path


def record_storage(path: Path, storage: str) -> None:
    """Write a URL into tune.json as it is, passwords included."""
    content = json.loads((path / "tune.json").read_text())
    content["config"]["storage"] = storage
    (path / "tune.json").write_text(json.dumps(content))


@pytest.fixture
def never_opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The storages that are opened; none is."""
    opened: list[str] = []

    def open_no_storage(storage: str) -> None:
        opened.append(storage)
        raise UsageError("opened")

    monkeypatch.setattr(sys.modules["timebox.tuning.tune"], "open_storage", open_no_storage)
    return opened


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me@evil.example/searches", "postgresql://me@evil.example/searches"),
        ("postgresql://me:hunter2@evil.example/searches", "postgresql://me:***@evil.example/searches"),
        ("mysql://evil.example/searches?passwd=hunter2", "mysql://evil.example/searches?passwd=***"),
        ("sqlite:////home/me/.thunderbird/mail.sqlite", "sqlite:////home/me/.thunderbird/mail.sqlite"),
    ],
)
def test_a_url_that_a_file_names_is_not_opened(
    data: Path, tmp_path: Path, never_opened: list[str], url: str, shown: str
) -> None:
    path = begun_elsewhere(tmp_path / "tune", data, url)
    assert "hunter2" not in (path / "tune.json").read_text()
    record_storage(path, url)
    before = (path / "tune.json").read_bytes()
    with pytest.raises(UsageError) as caught:
        tune(resume=path, budget="1h")
    assert str(caught.value) == (
        f"give storage once more: the search keeps its trials in '{shown}', and a URL that only a file names is not "
        "opened"
    )
    with flags_in_messages(), pytest.raises(UsageError, match=r"^give --storage once more: "):
        tune(resume=path)
    assert never_opened == []
    assert (path / "tune.json").read_bytes() == before


@pytest.mark.parametrize(
    ("given", "recorded", "says"),
    [
        (
            "postgresql://me:hunter2@elsewhere/x",
            "postgresql://me:hunter2@host/searches",
            "storage 'postgresql://me:***@elsewhere/x' cannot be given: the search's is "
            "'postgresql://me:***@host/searches'",
        ),
        (
            "postgresql://me:hunter2@host/x?pwd=hunter2",
            None,
            "storage 'postgresql://me:***@host/x?pwd=***' cannot be given: the search keeps its trials in its own "
            "journal.log",
        ),
    ],
)
def test_another_storage_than_the_searchs_is_refused(
    data: Path, tmp_path: Path, never_opened: list[str], given: str, recorded: str | None, says: str
) -> None:
    path = begun_elsewhere(tmp_path / "tune", data, recorded)
    with pytest.raises(UsageError) as caught:
        tune(resume=path, storage=given)
    assert str(caught.value) == says
    assert never_opened == []


@pytest.mark.parametrize("given", ["postgresql://me:hunter2@host/x", "postgresql://me@host/x"])
def test_the_storage_that_is_given_once_more_is_opened(
    data: Path, tmp_path: Path, never_opened: list[str], given: str
) -> None:
    path = begun_elsewhere(tmp_path / "tune", data, "postgresql://me:hunter2@host/x")
    with pytest.raises(UsageError, match=r"^opened$"):
        tune(resume=path, storage=given)
    assert never_opened == [given]


@pytest.mark.parametrize("name", ["journal.log", "journal.log.lock"])
def test_a_journal_that_leads_out_of_the_search_is_not_opened(data: Path, tmp_path: Path, name: str) -> None:
    path, outside = begun_elsewhere(tmp_path / "tune", data, None), tmp_path / "outside"
    outside.write_bytes(b"mine")
    (path / name).symlink_to(outside)
    with pytest.raises(RunError, match=f"{name}' cannot be used: it is a symbolic link, which is not followed here"):
        tune(resume=path)
    assert outside.read_bytes() == b"mine"


def test_a_path_in_place_of_a_url_is_damage(data: Path, tmp_path: Path, never_opened: list[str]) -> None:
    path = begun_elsewhere(tmp_path / "tune", data, None)
    record_storage(path, "../outside.log")
    with pytest.raises(
        UsageError, match=r"the search keeps its trials in '\.\./outside\.log', and a URL that only a file"
    ):
        tune(resume=path)
    assert never_opened == []


def test_a_worker_has_no_password_in_its_words(tmp_path: Path) -> None:
    url = "postgresql://me:hunter2@127.0.0.1:9/x?sslpassword=hunter3"
    config = WorkerConfig(storage=url, study="s")
    assert "hunter" not in repr(config)
    pool = WorkerPool(1, config, tmp_path, 0)
    process = Path(f"/proc/{pool._workers[0].process.pid}")
    while not (words := (process / "cmdline").read_text().rstrip("\0").split("\0"))[0]:  # it is being started
        time.sleep(0.01)
    assert "hunter" not in (process / "environ").read_text()
    assert words[1:4] == ["-P", "-m", "timebox.tuning.worker"]
    assert not any("hunter" in word for word in words)
    with pytest.raises(UsageError) as caught:
        while True:
            time.sleep(0.1)
            pool.replace_dead(0)
    assert str(caught.value).startswith("storage 'postgresql://me:***@127.0.0.1:9/x?sslpassword=***' cannot be used: ")
    assert pool.stop() == []


@pytest.mark.parametrize(
    ("storage", "ending"),
    [
        ("journal.log", ""),
        ("postgresql://me@host/x", " --storage postgresql://me@host/x"),
        ("postgresql://me:hunter2@host/x", " --storage 'postgresql://me:***@host/x'"),
    ],
)
def test_a_stopped_search_says_how_to_go_on(
    data: Path, tmp_path: Path, storage: str, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*rest: object) -> None:
        raise KeyboardInterrupt

    module = sys.modules["timebox.tuning.tune"]
    monkeypatch.setattr(module, "open_storage", lambda storage: None)
    monkeypatch.setattr(
        module.studies, "load", lambda storage, name: (None, SimpleNamespace(recipe="auto", settings=()))
    )
    monkeypatch.setattr(module, "SearchRunner", stop)
    begun_elsewhere(tmp_path / "tune", data, None)
    said: list[str] = []
    with closing(TuneDirectory.existing(tmp_path / "tune")) as directory, pytest.raises(KeyboardInterrupt):
        module._run(directory, storage, None, said.append)
    assert said == [f"stopped; to go on: timebox tune --resume {tmp_path / 'tune'}{ending}"]
