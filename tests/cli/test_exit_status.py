"""How commands end: exit statuses, hidden tracebacks, signals, pipes that close and disks that are full."""

import argparse
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import msgspec
import pytest

from timebox import cli
from timebox.cli import exit_status as exits
from timebox.cli import recipes
from timebox.errors import DataError, OutputError

from .conftest import Command


@pytest.fixture
def verb_does(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], int]], None]:
    """Makes `timebox recipes` do something else."""

    def put(action: Callable[[], int]) -> None:
        def run(args: argparse.Namespace) -> int:
            return action()

        monkeypatch.setattr(recipes, "run", run)

    return put


NO_MEMORY = "memory ran out: end other programs, or raise the limit of this one (`ulimit -a`, or the container's)"


def raising(error: BaseException) -> Callable[[], int]:
    def action() -> int:
        raise error

    return action


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (DataError("no images in 'x'"), 2, "timebox recipes: error: no images in 'x'"),
        (DataError("no images in a\nb"), 2, "timebox recipes: error: no images in a\\nb"),
        (OutputError("'out' is a file"), 2, "timebox recipes: error: 'out' is a file"),
        (exits.PartlyWrittenError("disk full"), 3, "timebox recipes: error: disk full"),
        (
            ZeroDivisionError("division by zero"),
            1,
            "timebox recipes: error: internal error: ZeroDivisionError: division by zero; run again with --debug",
        ),
        (MemoryError(), 2, f"timebox recipes: error: {NO_MEMORY}"),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory"),
            2,
            f"timebox recipes: error: {NO_MEMORY}",
        ),
        (
            RuntimeError("can't start new thread"),
            2,
            "timebox recipes: error: no more threads can be started: memory, or the number of processes, is used up "
            "(see `ulimit -a`)",
        ),
        (KeyboardInterrupt(), 130, "timebox: stopped: nothing was saved"),
    ],
)
def test_an_error_is_one_line(
    timebox: Command, verb_does: Callable[..., None], error: BaseException, status: int, line: str
) -> None:
    verb_does(raising(error))
    assert timebox("recipes") == (status, "", line + "\n")


@pytest.mark.parametrize("error", [DataError("no images"), ZeroDivisionError("oops")])
def test_debug_shows_the_traceback(timebox: Command, verb_does: Callable[..., None], error: Exception) -> None:
    verb_does(raising(error))
    assert "Traceback" in timebox("recipes", "--debug").err


def test_the_status_of_a_verb_is_passed_on(timebox: Command, verb_does: Callable[..., None]) -> None:
    verb_does(lambda: exits.LATE_OR_PARTLY_WRITTEN)
    assert timebox("recipes").status == 3


def test_a_closed_pipe_is_no_error(timebox: Command, verb_does: Callable[..., None]) -> None:
    verb_does(raising(BrokenPipeError()))
    assert timebox("recipes") == (0, "", "")


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_and_its_number_is_the_status(
    timebox: Command, verb_does: Callable[..., None], signum: signal.Signals, status: int
) -> None:
    def action() -> int:
        signal.raise_signal(signum)
        return 0

    before = signal.getsignal(signum)
    verb_does(action)
    assert timebox("recipes").status == status
    assert signal.getsignal(signum) is before


def test_a_signal_that_comes_out_as_another_error_is_still_a_stop(
    timebox: Command, verb_does: Callable[..., None]
) -> None:
    """As where a module is interrupted while it is imported."""

    def interrupted() -> int:
        try:
            signal.raise_signal(signal.SIGTERM)
        except KeyboardInterrupt as error:
            raise RecursionError("maximum recursion depth exceeded") from error
        return 0

    verb_does(interrupted)
    assert timebox("recipes") == (143, "", "timebox: stopped: nothing was saved\n")


def test_a_verb_that_saves_what_it_has_still_ends_with_the_signals_status(
    timebox: Command, verb_does: Callable[..., None]
) -> None:
    verb_does(saving_after(signal.SIGTERM))
    assert timebox("recipes") == (143, "saved\n", "")


def saving_after(signum: signal.Signals) -> Callable[[], int]:
    """A function of the package, which raises a signal and catches the exception."""
    code = f"""
import signal
def action():
    try:
        signal.raise_signal({signum:d})
    except KeyboardInterrupt:
        print("saved")
    return 0
"""
    names: dict[str, Callable[[], int]] = {}
    exec(compile(code, str(Path(exits.__file__).with_name("saving.py")), "exec"), names)
    return names["action"]


class SignalsWhenDeleted:
    def __del__(self) -> None:
        signal.raise_signal(signal.SIGTERM)


class SignalsWhenHashed:
    is_made = False

    def __hash__(self) -> int:
        if self.is_made:
            signal.raise_signal(signal.SIGTERM)
        return 0


def in_a_destructor() -> None:
    SignalsWhenDeleted()


def in_an_extension_module() -> None:
    note = SignalsWhenHashed()
    kind = Annotated[int, note]
    note.is_made = True
    msgspec.convert(3, kind)


def in_a_library_that_catches_all() -> None:
    with suppress(BaseException):
        signal.raise_signal(signal.SIGTERM)


@pytest.mark.parametrize("receive", [in_a_destructor, in_an_extension_module, in_a_library_that_catches_all])
def test_a_signal_stops_where_another_library_drops_the_exception(
    timebox: Command,
    verb_does: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    receive: Callable[[], None],
) -> None:
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: None)  # pytest's keeps the exception

    def action() -> int:
        receive()
        for _ in range(1000):
            time.sleep(0.001)
        pytest.fail("the signal was lost")

    verb_does(action)
    assert timebox("recipes") == (143, "", "timebox: stopped: nothing was saved\n")


def test_an_ignored_signal_stays_ignored(timebox: Command, verb_does: Callable[..., None]) -> None:
    def action() -> int:
        signal.raise_signal(signal.SIGINT)
        return 0

    verb_does(action)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert timebox("recipes").status == 0
    finally:
        signal.signal(signal.SIGINT, before)


def test_outside_the_main_thread_no_handler_is_installed() -> None:
    seen: list[int] = []
    thread = threading.Thread(target=lambda: seen.append(cli.main(["recipes", "a", "b"])))
    thread.start()
    thread.join()
    assert seen == [2]


def test_a_second_signal_ends_at_once() -> None:
    code = """
import sys, time
from timebox import cli
from timebox.cli import recipes
def run(args):
    try:
        print("ready", flush=True)
        time.sleep(250)
    except KeyboardInterrupt:
        print("saving", flush=True)
        time.sleep(250)
recipes.run = run
sys.exit(cli.main(["recipes"]))
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "saving\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait() == -signal.SIGTERM, "it does not sleep to its end"


@pytest.mark.parametrize("num_signals", [1, 2])
def test_a_process_in_an_operation_that_python_cannot_interrupt_ends(num_signals: int) -> None:
    code = """
import hashlib, sys
from timebox import cli
from timebox.cli import recipes, signals
signals.MAX_STOP_SECONDS = 0.5
def run(args):
    print("ready", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)
recipes.run = run
sys.exit(cli.main(["recipes"]))
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.5)  # until the operation has begun
        for _ in range(num_signals):
            process.send_signal(signal.SIGTERM)
            time.sleep(0.05)
        err = process.communicate(timeout=20)[1]
    assert process.returncode == 143, err
    assert ("in the middle of something slow" in err) == (num_signals == 1)


def test_a_reader_that_leaves_is_no_error() -> None:
    command = f"{shlex.quote(sys.executable)} -m timebox recipes haet2021 | head -n 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0"
    assert done.stderr == ""


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full is Linux's")
def test_a_full_disk_under_stdout_is_told() -> None:
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = subprocess.run(
            [sys.executable, "-m", "timebox", "recipes"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 2
    assert done.stderr == "timebox recipes: error: cannot write to standard output: No space left on device\n"
