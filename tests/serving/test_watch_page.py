"""The page of `timebox watch` in Chromium: it follows, begins again, and says what is wrong."""

import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from browsers import DARK, WIDTHS, chromium, needs_chromium, set_width
from timebox.files import lock
from timebox.run import Run

from .test_watcher import add_steps, write_status
from .test_watching import watching

pytest.importorskip("selenium", reason="selenium is not installed")
pytestmark = [pytest.mark.integration, needs_chromium]

WAIT = 60
TOKENS = ("correct-horse", "battery-staple")
REFUSED = "The server refuses: a token is needed"


@pytest.fixture(scope="module")
def own_browser() -> Iterator[Any]:
    with chromium() as driver:
        yield driver


@pytest.fixture
def browser(own_browser: Any) -> Iterator[Any]:
    """A browser with a page of its own."""
    yield own_browser
    own_browser.get("about:blank")
    own_browser.get_log("browser")


def until(is_true: Callable[[], object]) -> None:
    end = time.monotonic() + WAIT
    while not is_true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


def text(browser: Any, name: str) -> str:
    return str(browser.execute_script("return document.getElementById(arguments[0]).textContent", name))


def is_shown(browser: Any, name: str) -> bool:
    return bool(browser.find_element("id", name).is_displayed())


def check_access(browser: Any) -> None:
    axe_core = pytest.importorskip("axe_core_python.selenium", reason="axe-core-python is not installed")
    violations = axe_core.Axe().run(browser)["violations"]
    assert [(one["id"], one["nodes"][0]["html"]) for one in violations] == []


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_follows_in_any_width(browser: Any, tmp_path: Path, width: int, scheme: str) -> None:
    write_status(tmp_path)
    add_steps(tmp_path, 1, 40)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 40, "progress": 0.4, "val_accuracy": 0.625}\n')
    with watching(tmp_path) as (address, _):
        set_width(browser, width)
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", DARK if scheme == "dark" else {"features": []})
        browser.get(address)
        until(lambda: text(browser, "accuracy") == "62.5 %")
        assert (text(browser, "epoch"), text(browser, "loss")) == ("4.0", "0.050")
        assert re.fullmatch(r"0:4\d", text(browser, "left"))
        assert browser.execute_script("return document.getElementById('bar').style.width") == "40%"
        add_steps(tmp_path, 41, 60)
        until(lambda: text(browser, "epoch") == "6.0")
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        check_access(browser)
        assert browser.get_log("browser") == []


def test_a_training_that_is_begun_again_is_shown_from_its_beginning(browser: Any, tmp_path: Path) -> None:
    write_status(tmp_path, started_at=time.time() - 30)
    add_steps(tmp_path, 1, 40)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 40, "progress": 0.4, "val_accuracy": 0.625}\n')
    with watching(tmp_path) as (address, _):
        browser.get(address)
        until(lambda: text(browser, "epoch") == "4.0")
        assert (text(browser, "plan"), text(browser, "accuracy")) == ("a line of the plan", "62.5 %")
        (tmp_path / "metrics.jsonl").unlink()
        write_status(tmp_path, expected_steps=None, plan=[], examples=[])
        until(lambda: "planning" in text(browser, "facts"))
        until(lambda: not is_shown(browser, "plan"))
        assert not is_shown(browser, "curves") and not is_shown(browser, "examples-section")
        assert [text(browser, name) for name in ("epoch", "loss", "accuracy", "speed")] == ["–"] * 4
        write_status(tmp_path, plan=["another plan"], examples=[["blue", "data:image/png;base64,"]])
        add_steps(tmp_path, 1, 3)
        until(lambda: text(browser, "plan") == "another plan")
        until(lambda: text(browser, "epoch") == "0.3")
        assert text(browser, "examples") == "blue"
        first = browser.execute_script(
            "return document.querySelector('#loss-chart polyline.raw').getAttribute('points')"
        )
        assert len(first.split()) == 3


def test_steps_without_a_loss_are_no_end_of_the_curves(browser: Any, tmp_path: Path) -> None:
    write_status(tmp_path)
    add_steps(tmp_path, 1, 10)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 11, "epoch": NaN, "progress": 0.11, "loss": NaN, "lr": Infinity}\n')
    with watching(tmp_path) as (address, _):
        browser.get(address)
        until(lambda: text(browser, "epoch") == "1.0")
        add_steps(tmp_path, 12, 20)
        until(lambda: text(browser, "epoch") == "2.0")
        assert browser.get_log("browser") == []


@pytest.mark.parametrize("kind", ["tune", "benchmark"])
def test_a_search_and_a_benchmark_lead_to_their_report(browser: Any, tmp_path: Path, kind: str) -> None:
    report = "tune.html" if kind == "tune" else "report.html"
    (tmp_path / f"{kind}.json").write_text('{"format": 1}')
    trials = [{"label": "haet2021", "seed": 0, "accuracy": 0.5}, {"label": "auto", "failed": "no memory"}]
    (tmp_path / "trials.jsonl").write_text("".join(json.dumps(trial) + "\n" for trial in trials))
    (tmp_path / report).write_text("<title>a report</title>")
    with (tmp_path / ("lock" if kind == "tune" else "trials.jsonl")).open("a") as file:
        lock(file.fileno())
        with watching(tmp_path) as (address, _):
            browser.get(address)
            until(lambda: "2 trials · training" in text(browser, "facts"))
            assert not is_shown(browser, "end")
            assert "no memory" in text(browser, "trials")
            (tmp_path / "summary.json").write_text('{"format": 1}')
            file.close()
            until(lambda: "done" in text(browser, "facts"))
            assert is_shown(browser, "end")
            check_access(browser)
            browser.find_element("id", "report").click()
            until(lambda: browser.title == "a report")


def test_a_search_that_was_killed(browser: Any, tmp_path: Path) -> None:
    (tmp_path / "tune.json").write_text('{"format": 1}')
    with watching(tmp_path) as (address, _):
        browser.get(address)
        until(lambda: "the process has ended without finishing" in text(browser, "facts"))


def test_a_server_that_has_gone_is_said_also_before_there_is_a_run(browser: Any, tmp_path: Path) -> None:
    with watching(tmp_path / "run") as (address, _):
        browser.get(address)
        until(lambda: text(browser, "name") == "run")
    until(lambda: is_shown(browser, "problem"))
    assert text(browser, "problem") == "The server does not answer; trying again."


def test_a_page_that_is_refused_says_so_and_comes_back(browser: Any, tmp_path: Path) -> None:
    write_status(tmp_path)
    add_steps(tmp_path, 1, 20)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    with watching(tmp_path, "--port", port, "--token", TOKENS[0]) as (address, _):
        browser.get(address)
        until(lambda: text(browser, "epoch") == "2.0")
    with watching(tmp_path, "--port", port, "--token", TOKENS[1]):
        until(lambda: text(browser, "problem").startswith(REFUSED))
        assert is_shown(browser, "problem")
    add_steps(tmp_path, 21, 30)
    with watching(tmp_path, "--port", port, "--token", TOKENS[0]):
        until(lambda: text(browser, "epoch") == "3.0")
        assert not is_shown(browser, "problem")


def test_a_finished_run_leads_to_its_report(browser: Any, trained: Run) -> None:
    with watching(trained.path) as (address, _):
        browser.get(address)
        until(lambda: is_shown(browser, "end"))
        assert text(browser, "accuracy-text") == "accuracy on 24 test images"
