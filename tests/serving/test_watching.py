"""The servers of `timebox watch` and of `train --live`, and their page in Chromium."""

import json
import re
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
from timebox.serving.watching.watcher import DirectoryWatcher

from .conftest import ADDRESS
from .test_watcher import add_steps, write_status

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
