"""Following a training by its files: phases, new lines, what is replaced, and the page in Chromium."""

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from starlette.testclient import TestClient

from browsers import DARK, WIDTHS, chromium, needs_chromium, set_width
from small_runs import SMALL, save_npz
from timebox.run import Run
from timebox.serving.watching.app import WatchServer
from timebox.serving.watching.watcher import MAX_NEW_LINES, DirectoryWatcher

from .conftest import ADDRESS

WAIT = 60


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


@pytest.mark.parametrize("damage", [b"", b"{", b"[1]", b'{"format": 99}', b"\xff\xfe", b'{"pid": "x", "plan": 3}'])
def test_damaged_files_end_nothing(tmp_path: Path, damage: bytes) -> None:
    for name in ("status.json", "summary.json", "metrics.jsonl"):
        (tmp_path / name).write_bytes(damage)
    with TestClient(WatchServer(tmp_path, None).app, ADDRESS) as client:
        assert client.get("/state").json()["phase"] in ("waiting", "planning", "done")


def test_long_trainings_are_thinned_out(tmp_path: Path) -> None:
    write_status(tmp_path)
    add_steps(tmp_path, 1, 3 * MAX_NEW_LINES, of=10**6)
    assert len(DirectoryWatcher(tmp_path).poll()["lines"]) <= MAX_NEW_LINES + 1


def test_searches_and_benchmarks_show_their_trials(tmp_path: Path) -> None:
    (tmp_path / "benchmark.json").write_text('{"format": 1}')
    (tmp_path / "trials.jsonl").write_text('{"label": "airbench94", "seed": 0, "accuracy": 0.5, "steps": 9}\n')
    state = DirectoryWatcher(tmp_path).poll()
    assert (state["kind"], state["phase"]) == ("benchmark", "training")
    assert state["lines"] == [{"label": "airbench94", "seed": 0, "accuracy": 0.5}]
    (tmp_path / "benchmark.json").rename(tmp_path / "tune.json")
    assert DirectoryWatcher(tmp_path).poll()["kind"] == "search"


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


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A browser with a page of its own."""
    pytest.importorskip("selenium", reason="selenium is not installed")
    with chromium() as driver:
        yield driver


@pytest.mark.integration
@needs_chromium
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_follows_in_any_width(browser: Any, tmp_path: Path, width: int, scheme: str) -> None:
    axe_core = pytest.importorskip("axe_core_python.selenium", reason="axe-core-python is not installed")
    write_status(tmp_path)
    add_steps(tmp_path, 1, 40)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 40, "progress": 0.4, "val_accuracy": 0.625}\n')
    command = [sys.executable, "-m", "timebox", "watch", str(tmp_path), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            found = re.search(r"http://\S+", process.stdout.readline())
            assert found is not None
            set_width(browser, width)
            browser.execute_cdp_cmd("Emulation.setEmulatedMedia", DARK if scheme == "dark" else {"features": []})
            browser.get(found[0])
            text = lambda name: browser.execute_script("return document.getElementById(arguments[0]).textContent", name)  # noqa: E731
            end = time.monotonic() + WAIT
            while text("accuracy") != "62.5 %" and time.monotonic() < end:
                time.sleep(0.1)
            assert (text("accuracy"), text("epoch"), text("loss")) == ("62.5 %", "4.0", "0.050")
            assert re.fullmatch(r"0:4\d", text("left"))
            assert browser.execute_script("return document.getElementById('bar').style.width") == "40%"
            add_steps(tmp_path, 41, 60)
            while text("epoch") != "6.0" and time.monotonic() < end:
                time.sleep(0.1)
            assert text("epoch") == "6.0"
            assert browser.execute_script("return document.documentElement.scrollWidth") <= width
            violations = axe_core.Axe().run(browser)["violations"]
            assert [(one["id"], one["nodes"][0]["html"]) for one in violations] == []
            assert browser.get_log("browser") == []
        finally:
            browser.get("about:blank")
            process.kill()
