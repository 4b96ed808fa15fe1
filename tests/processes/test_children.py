"""Child processes: their commands, their environment, what they can import."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from timebox.processes import children
from timebox.processes.children import child_environment, output_of, output_of_code, running_module, start_module
from timebox.processes.import_path import ROOT

REPORT = "import json, os, sys, timebox; print(json.dumps([sys.path, timebox.__file__, dict(os.environ)]))"


def test_a_module_is_started_without_the_working_directory_on_its_path(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[tuple[list[str], dict[str, Any]]] = []
    monkeypatch.setattr(subprocess, "Popen", lambda command, **rest: started.append((command, rest)))
    start_module("timebox", ["train", "-x"], stdin=children.DEVNULL, env={"TMPDIR": "/t"})
    ((command, rest),) = started
    assert command == [sys.executable, "-P", "-m", "timebox", "train", "-x"]
    assert (rest["env"]["PYTHONSAFEPATH"], rest["env"]["TMPDIR"], rest["stdin"]) == ("1", "/t", children.DEVNULL)
    assert "shell" not in rest


def test_a_module_is_killed_where_the_context_ends() -> None:
    with pytest.raises(KeyError), running_module("http.server", ["0"], stdout=children.DEVNULL) as process:
        assert process.poll() is None
        raise KeyError
    assert process.returncode == -signal.SIGKILL


def test_a_module_that_ended_by_itself_keeps_its_status() -> None:
    with running_module("timebox", ["nonsense"], stderr=children.DEVNULL) as process:
        process.wait()
    assert process.returncode == 2


def test_a_module_is_killed_where_a_signal_comes_while_it_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []

    def start_slowly(*arguments: Any, **streams: Any) -> subprocess.Popen[bytes]:
        signal.raise_signal(signal.SIGINT)
        time.sleep(0.2)
        started.append(start_module("http.server", ["0"], stdout=children.DEVNULL))
        return started[0]

    monkeypatch.setattr(children, "start_module", start_slowly)
    with pytest.raises(KeyboardInterrupt), running_module("timebox"):
        pytest.fail("the signal was lost")
    assert started[0].returncode == -signal.SIGKILL


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({}, ["-P"]),
        ({"isolated": 1}, ["-I"]),
        ({"ignore_environment": 1}, ["-P", "-E"]),
        ({"no_user_site": 1}, ["-P", "-s"]),
    ],
)
def test_children_have_the_flags_of_their_parent(
    flags: dict[str, int], expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from types import SimpleNamespace

    none = {"isolated": 0, "ignore_environment": 0, "no_user_site": 0}
    monkeypatch.setattr(sys, "flags", SimpleNamespace(**{**none, **flags}))
    assert children._python_flags() == expected


def test_code_runs_without_the_working_directory_and_so_does_what_it_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("open('PLANTED', 'w')")
    monkeypatch.chdir(tmp_path)
    paths, timebox, environment = json.loads(output_of_code(REPORT, 60))
    assert "" not in paths
    assert str(tmp_path) not in paths
    assert (timebox, environment["PYTHONSAFEPATH"]) == (str(Path(ROOT) / "timebox" / "__init__.py"), "1")
    grandchild = (
        f"import subprocess, sys; print(subprocess.check_output([sys.executable, '-c', {REPORT!r}], text=True))"
    )
    assert "" not in json.loads(output_of_code(grandchild, 60))[0]
    assert not (tmp_path / "PLANTED").exists()


def test_what_fails_or_takes_too_long_has_no_output() -> None:
    assert output_of_code("1/0", 60) == ""
    assert output_of_code("import time; time.sleep(60)", 0.2) == ""
    assert output_of(["no-such-program-of-this-name"], 1) == ""
    assert output_of([sys.executable, "-c", "print(' x ')"], 60) == "x"


@pytest.mark.parametrize("python_path", ["", ":", ":/opt/x", "/opt/x:", "/opt/x::/opt/y"])
def test_empty_entries_are_no_folders_to_import_from(python_path: str) -> None:
    entries = child_environment({"PYTHONPATH": python_path}, {})["PYTHONPATH"].split(os.pathsep)
    assert entries == [*(entry for entry in python_path.split(":") if entry), ROOT]


def test_the_package_is_found_by_children_of_a_program_that_added_its_folder_to_the_path(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert child_environment({}, {})["PYTHONPATH"] == ROOT
    assert child_environment({"PYTHONPATH": ROOT}, {})["PYTHONPATH"] == ROOT
    monkeypatch.setattr(children, "_installed_folders", lambda: [ROOT])
    assert "PYTHONPATH" not in child_environment({}, {})
    assert child_environment({"A": "b"}, {"C": "d"}) == {"A": "b", "C": "d", "PYTHONSAFEPATH": "1"}
