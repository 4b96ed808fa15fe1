"""The servers of `timebox watch` and of `train --live`, and their page in Chromium."""

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import pytest
from starlette.testclient import TestClient

from small_runs import SMALL, save_npz
from timebox.run import Run
from timebox.serving.watching.app import WatchServer
from timebox.serving.watching.watcher import DirectoryWatcher

from .conftest import ADDRESS

WAIT = 60


def test_watching_imports_no_torch() -> None:
    code = (
        "import sys, timebox.cli.watch, timebox.serving.watching.app, timebox.serving.http.server\n"
        "print(sorted({'torch', 'numpy', 'PIL'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_finished_run_and_its_report(trained: Run) -> None:
    with TestClient(WatchServer(trained.path, None).app, ADDRESS) as client:
        assert client.get("/state").json()["phase"] == "done"
        report = client.get("/report")
        assert report.status_code == 200
        assert report.headers["content-security-policy"].startswith("default-src 'none'")
        assert client.get("/nothing").status_code == 404
        assert client.get("/state", headers={"Host": "evil.example"}).status_code == 403


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_npz(tmp_path_factory.mktemp("data") / "colours.npz", num=600)


def train(data: Path, out: Path, *options: str) -> "subprocess.Popen[str]":
    settings = [word for field in SMALL for word in ("--set", field)]
    command = [
        sys.executable,
        "-m",
        "timebox",
        "train",
        str(data),
        "--recipe",
        "airbench94",
        *settings,
        "--out",
        str(out),
    ]
    return subprocess.Popen([*command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.integration
def test_live_shows_the_training_and_ends_after_it(colours: Path, tmp_path: Path) -> None:
    with train(colours, tmp_path / "run", "--budget", "15s", "--live") as process:
        assert process.stderr is not None
        address = None
        for line in process.stderr:
            if found := re.search(r"is shown at (http://\S+) until it has ended", line):
                address = found[1]
                break
        assert address is not None
        phases, num_lines = set(), 0
        with urlopen(f"{address}events", timeout=WAIT) as stream:
            for raw in stream:
                if raw.startswith(b"data: "):
                    news = json.loads(raw[6:])
                    num_lines += len(news["lines"])
                    phases.add(news.get("phase"))
                    if news.get("phase") == "done":
                        break
        process.communicate(timeout=WAIT)
    assert process.returncode == 0
    assert {"training", "done"} <= phases
    assert num_lines >= 20
    assert not (tmp_path / "run" / "status.json").exists()
    with urlopen(f"{address}report", timeout=WAIT) as report:
        assert b"confusion matrix" in report.read()


@pytest.mark.integration
def test_a_page_ends_some_time_after_the_training(trained: Run) -> None:
    command = [sys.executable, "-m", "timebox", "watch", str(trained.path), "--port", "0", "--exit-after", "1s"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.integration
def test_metrics_are_on_disk_within_seconds(colours: Path, tmp_path: Path) -> None:
    with train(colours, tmp_path / "run", "--budget", "12s") as process:
        watcher, num_changes = DirectoryWatcher(tmp_path / "run"), 0
        while process.poll() is None:
            state = watcher.poll()
            num_changes += bool(state["lines"]) and state["phase"] == "training"
            time.sleep(0.3)
        process.communicate()
    assert num_changes >= 3


@contextmanager
def watching(path: Path, *options: str) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """The address of a page that follows what lies in a path, and its process."""
    command = [sys.executable, "-m", "timebox", "watch", str(path), *(options or ("--port", "0"))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None and process.stderr is not None
            line = process.stdout.readline()
            found = re.search(r"http://\S+", line)
            assert found is not None, (line, process.stderr.read())
            yield found[0], process
        finally:
            process.kill()


@pytest.mark.integration
def test_a_file_in_place_of_a_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.json").touch()
    command = [sys.executable, "-m", "timebox", "watch", str(tmp_path / "model.json"), "--port", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"timebox watch: error: '.*model.json' is a file: give the directory of .*\n", done.stderr)


@pytest.mark.integration
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_while_a_page_is_open_print_nothing(trained: Run, number: signal.Signals) -> None:
    with watching(trained.path) as (address, process), urlopen(f"{address}events", timeout=WAIT) as stream:
        assert stream.readline().startswith(b"data: ")
        process.send_signal(number)
        time.sleep(0.05)
        process.send_signal(number)
        _, errors = process.communicate(timeout=WAIT)
    assert (process.returncode, errors) == (0, "")
