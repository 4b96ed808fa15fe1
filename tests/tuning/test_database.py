"""A search in a PostgreSQL database, with two workers of this machine and one that joins and is killed."""

import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import optuna
import pytest

from small_runs import save_npz
from timebox.configs.data import DataConfig
from timebox.configs.tune import TuneConfig
from timebox.errors import UsageError
from timebox.tuning import study as studies
from timebox.tuning import tune
from timebox.tuning.storage import open_storage

from .conftest import arguments, lines_of, trial_seconds
from .pace import Lines, end_early, num_measured

pytest.importorskip("psycopg", reason="psycopg, which talks to PostgreSQL, is not installed")
BIN = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), None)
POSTGRES = str(BIN / "postgres") if BIN else shutil.which("postgres")
pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(POSTGRES is None, reason="PostgreSQL's server is not installed"),
]


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The URL of a fresh database on loopback, served by an unprivileged user: PostgreSQL does not run as root."""
    folder = Path(tempfile.mkdtemp(prefix="timebox-postgres-"))
    as_whom: dict[str, Any] = {}
    if os.getuid() == 0:
        users = {user.pw_name: user for user in pwd.getpwall()}
        user = users.get("postgres") or users["nobody"]
        os.chown(folder, user.pw_uid, user.pw_gid)
        as_whom = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    assert POSTGRES is not None
    programs = Path(POSTGRES).resolve().parent
    quiet: dict[str, Any] = {"cwd": folder, "stdout": subprocess.DEVNULL, "stderr": subprocess.STDOUT, **as_whom}
    subprocess.run([programs / "initdb", "-D", folder / "data", "-U", "me", "-A", "trust"], check=True, **quiet)
    process, port = None, 0
    while process is None or process.poll() is not None:  # another process may take the port first
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        options = ["-D", folder / "data", "-k", folder, "-h", "127.0.0.1", "-p", str(port), "-F"]
        process = subprocess.Popen([programs / "postgres", *options], **quiet)
        while process.poll() is None and not accepts_connections(port):
            time.sleep(0.1)
    try:
        yield f"postgresql://me@127.0.0.1:{port}/postgres"
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()
    shutil.rmtree(folder, ignore_errors=True)


def accepts_connections(port: int) -> bool:
    """Whether the database accepts connections."""
    with suppress(UsageError):
        open_storage(f"postgresql://me@127.0.0.1:{port}/postgres")
        return True
    return False


@pytest.mark.endurance
def test_three_workers_one_of_them_killed(
    server: str, space: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = save_npz(tmp_path / "data.npz", 300)
    killed = threading.Event()

    def join_and_die() -> None:
        """Join the search from another process, which is killed during a trial."""
        words = ["tune", str(data), "--join", "ours", "--storage", server, "--device", "cpu"]
        study = None
        while study is None:
            time.sleep(0.2)
            with suppress(UsageError):
                study = studies.load(open_storage(server), "ours")[0]
        with subprocess.Popen([sys.executable, "-m", "timebox", *words]) as process:
            while not any("join" in str(one.user_attrs.get("worker")) for one in studies.running_trials(study)):
                time.sleep(0.1)
            process.kill()
        killed.set()

    joiner = threading.Thread(target=join_and_die, daemon=True)
    joiner.start()

    def enough(lines: Lines) -> bool:
        return killed.is_set() and is_retried(lines) and num_measured(lines) >= 3

    end_early(monkeypatch, enough, trial_seconds())
    secret = server.replace("me@", "me:secret@")
    tuned = tune(data, **arguments(space, tmp_path / "tune", workers=2, storage=secret, study="ours"))
    joiner.join()
    assert not tuned.summary["late"]
    assert not (tmp_path / "tune" / "journal.log").exists()
    assert "secret" not in (tmp_path / "tune" / "tune.json").read_text()
    assert all(b"secret" not in file.read_bytes() for file in (tmp_path / "tune").rglob("*") if file.is_file())
    with pytest.raises(UsageError, match="give storage once more"):
        tune(resume=tmp_path / "tune")
    with pytest.raises(UsageError, match="cannot be given"):
        tune(resume=tmp_path / "tune", storage="postgresql://me:secret@elsewhere/x")
    searched = [line for line in lines_of(tuned.path) if line["phase"] == "search"]
    (lost,) = (line for line in searched if "join" in str(line["worker"]) and line["state"] == "failed")
    (again,) = (line for line in searched if line["retry_of"] == lost["trial"])
    assert again["params"] == lost["params"]
    started = [line for line in searched if line["state"] != "failed" and "the same as" not in str(line["reason"])]
    done = [json.dumps(line["settings"]) for line in started]
    assert len(done) == len(set(done))  # no settings were trained twice
    assert len({line["worker"] for line in searched}) >= 3


def is_retried(lines: Lines) -> bool:
    """Whether another worker ran the trial of the killed worker again."""
    lost = {line.trial for line in lines if "join" in str(line.worker) and line.state == "failed"}
    return any(line.retry_of in lost for line in lines)


def test_an_existing_study_name_is_refused(server: str, space: Path, tmp_path: Path) -> None:
    data = save_npz(tmp_path / "data.npz", 300)
    optuna.create_study(study_name="taken", storage=open_storage(server))
    with pytest.raises(UsageError, match="in the storage already"):
        tune(data, **arguments(space, tmp_path / "tune", storage=server, study="taken"))


def test_joining_a_study_of_other_data_is_refused(server: str, tmp_path: Path) -> None:
    from timebox.tuning.tune import join

    from .test_study import search

    data = save_npz(tmp_path / "data.npz", 300)
    spec = search(source=DataConfig("x", val=0.2), ends_at=time.time() + 60)
    studies.create(open_storage(server), "other", spec)
    with pytest.raises(UsageError, match="of other data"):
        join(TuneConfig(data=str(data), storage=server, join="other", device="cpu"))
    with pytest.raises(UsageError, match="not in the storage"):
        join(TuneConfig(data=str(data), storage=server, join="nothing", device="cpu"))
