"""Passwords of URLs on the command line are never printed, wherever they were given and whatever goes wrong."""

import json
from pathlib import Path

import pytest

from timebox.tuning import storage

from .conftest import Command

URLS = (
    "postgresql://me:hunter2@127.0.0.1:9/searches",
    "postgresql://me:hunter%32@127.0.0.1:9/searches",
    "postgresql://me:it's hunter2@127.0.0.1:9/searches",
    "postgresql://127.0.0.1:9/searches?user=me&password=hunter2",
    "mysql+pymysql://me@127.0.0.1:9/searches?passwd=hunter2&token=hunter2",
)
COMMANDS = (
    "tune digits --budget 1h --storage {url}",
    "tune digits --budget 1h --storage={url}",
    "tune digits --budget 1h --storag {url}",
    "tune digits --budget 1h --storag={url}",
    "tune digits --join s --storage {url}",
    "tune digits {url} --budget 1h",
    "tune {url} --budget 1h",
    "tune digits --budget {url}",
    "tune digits --budget 1h --sampler {url}",
    "tune digits --budget 1h --recipe {url}",
    "tune digits --budget 1h --space {url}",
    "tune --resume {url} --storage {url}",
    "tune --resume nowhere --storage {url}",
    "train {url} --budget 1h",
    "train digits --storage {url} --budget 1h",
    "train digits --recipe {url} --steps 1",
    "train --resume {url}",
    "predict {url} photo.jpg",
    "predict nowhere {url}",
    "evaluate {url} digits",
    "inspect {url}",
    "report {url}",
    "{url}",
)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("url", URLS)
@pytest.mark.parametrize("extra", [(), ("--json",), ("--debug",)])
def test_no_password_is_printed(
    timebox: Command, command: str, url: str, extra: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [word.replace("{url}", url) for word in command.split()]
    outcome = timebox(*words, *extra)
    assert outcome.status == 2, outcome
    text = outcome.out + outcome.err
    assert "error: " in text
    assert "hunter" not in text
    assert ("Traceback" in text) == ("--debug" in extra)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("extra", [(), ("--json",), ("--debug",)])
def test_a_driver_that_quotes_the_password(
    timebox: Command, extra: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(url: str) -> None:
        raise ValueError(f"cannot use {url!r}: 'hunter2 x' is wrong")

    monkeypatch.setattr(storage, "_open_database", fail)
    outcome = timebox("tune", "digits", "--budget", "1h", "--storage", "postgresql://me:hunter2%20x@host/x", *extra)
    assert "hunter" not in outcome.out + outcome.err
    assert "'***' is wrong" in outcome.err


def test_the_refusal_names_host_and_database(timebox: Command) -> None:
    outcome = timebox("tune", "digits", "--budget", "1h", "--storage", URLS[0], "--json")
    message = json.loads(outcome.out)["error"]
    assert message.startswith("storage 'postgresql://me:***@127.0.0.1:9/searches' cannot be used: ")
