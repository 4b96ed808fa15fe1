"""The page that follows a training ends with it, however that ends."""

import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

import timebox
from timebox import errors
from timebox.callbacks import live
from timebox.callbacks.live import LivePage
from timebox.errors import UsageError

pytest.importorskip("uvicorn", reason="the extra serve is not installed")

WAIT = 60
# Starts a page, prints the line with its address on stderr, and is killed without a word.
KILLED = """
import os, signal, sys, time
from pathlib import Path
from timebox.callbacks import live
live.EXIT_AFTER = "1s"
def killed(line, stream):
    print(line, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
live.print_line = killed
with live.LivePage() as page:
    page.start(Path(sys.argv[1]))
    time.sleep(60)
"""


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What pages print; they end soon."""
    printed: list[str] = []
    monkeypatch.setattr(live, "EXIT_AFTER", "1s")
    monkeypatch.setattr(live, "print_line", lambda line, stream: printed.append(line))
    yield printed
    for thread in threading.enumerate():
        if thread.name == "live":
            thread.join(WAIT)


def wait_for_end(address: str) -> None:
    port = int(re.search(r":(\d+)/", address)[1])  # type: ignore[index]
    end = time.monotonic() + WAIT
    while time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            return
        time.sleep(0.1)
    pytest.fail("the page stays")


@pytest.mark.integration
def test_a_page_ends_where_nothing_was_kept(tmp_path: Path, lines: list[str]) -> None:
    with LivePage() as page:
        page.start(tmp_path / "run")
        end = time.monotonic() + WAIT
        while not lines and time.monotonic() < end:
            time.sleep(0.05)
    assert "is shown at" in lines[0]
    assert page._process.wait(WAIT) == 0


@pytest.mark.integration
def test_a_page_that_is_started_as_the_training_ends(tmp_path: Path, lines: list[str]) -> None:
    with LivePage() as page:
        page.start(tmp_path / "run")
    while not lines:
        time.sleep(0.05)
    assert page._process.wait(WAIT) == 0


@pytest.mark.integration
@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
def test_a_page_ends_where_the_training_is_killed(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path / "run")], capture_output=True, text=True, timeout=WAIT
    )
    assert done.returncode == -9, done.stderr
    wait_for_end(done.stdout)


def test_a_page_that_cannot_be_started_is_said(
    tmp_path: Path, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object, **streams: object) -> None:
        raise OSError("no more processes")

    monkeypatch.setattr(live, "start_module", fail)
    with LivePage() as page:
        page._start(tmp_path / "run")
    assert lines == ["the page that follows the training could not be started"]


def test_a_training_that_fails_ends_its_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[bool] = []

    class Page(LivePage):
        def __exit__(self, *error: object) -> None:
            ended.append(True)

    monkeypatch.setattr(import_module("timebox.pipelines.train"), "LivePage", Page)
    with pytest.raises(timebox.TimeboxError):
        timebox.train(tmp_path / "nothing", steps=1, live=True)
    assert ended == [True]


@pytest.mark.parametrize("name", ["starlette", "uvicorn", "python_multipart", "httptools"])
def test_each_package_of_the_extra_is_asked_for(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = errors.find_spec
    monkeypatch.setattr(errors, "find_spec", lambda asked: None if asked == name else found(asked))
    with pytest.raises(UsageError, match=rf"^this needs {name}: pip install 'timebox-vision\[serve\]'$"):
        LivePage()
