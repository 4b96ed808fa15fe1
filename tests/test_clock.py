"""Budgets, durations, and deadlines on a simulated clock."""

import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from timebox.clock import Deadline, call_started, format_duration, now, parse_budget, process_start
from timebox.errors import BudgetError, UsageError


class SimulatedClock:
    """A clock that only ``sleep`` advances."""

    def __init__(self, moment: float = 1000.0) -> None:
        self.moment = moment

    def __call__(self) -> float:
        return self.moment

    def sleep(self, seconds: float) -> None:
        self.moment += seconds


@pytest.mark.parametrize(
    ("budget", "seconds"),
    [
        ("90s", 90),
        ("90", 90),
        (90, 90),
        (7.5, 7.5),
        ("10m", 600),
        ("1h30m", 5400),
        ("1.5h", 5400),
        ("1h30m15s", 5415),
        ("1m30", 90),
        ("0.5s", 0.5),
        ("2H", 7200),
        ("  10m\n", 600),
        ("0h10m", 600),
    ],
)
def test_budget_in_seconds(budget: str | float, seconds: float) -> None:
    assert parse_budget(budget) == seconds


@pytest.mark.parametrize(
    "text", ["10x", "", "s", "m10", "ten minutes", "10 m", "1m1h", "1:30", "nan", "inf", "-", "1e3"]
)
def test_a_budget_that_is_no_duration_is_an_error(text: str) -> None:
    with pytest.raises(BudgetError) as caught:
        parse_budget(text)
    assert str(caught.value) == f"budget {text!r} is not a duration; write it like 90s, 10m or 1h30m"


@pytest.mark.parametrize("budget", ["-5s", "-10m", "-1h30m", -3, -0.5])
def test_a_negative_budget_is_an_error(budget: str | float) -> None:
    with pytest.raises(BudgetError) as caught:
        parse_budget(budget)
    assert str(caught.value) == f"budget {str(budget)!r} is negative; write it like 90s, 10m or 1h30m"


@pytest.mark.parametrize("budget", ["0", "0s", "0h0m0s", 0, 0.0])
def test_a_budget_of_zero_is_an_error(budget: str | float) -> None:
    with pytest.raises(BudgetError) as caught:
        parse_budget(budget)
    assert str(caught.value) == f"budget {str(budget)!r} must be longer than zero; write it like 90s, 10m or 1h30m"


def test_a_budget_error_is_a_usage_error_and_a_value_error() -> None:
    assert issubclass(BudgetError, UsageError)
    assert issubclass(BudgetError, ValueError)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0s"),
        (9.44, "9.4s"),
        (10.4, "10s"),
        (59.4, "59s"),
        (59.6, "1m"),
        (60, "1m"),
        (200, "3m20s"),
        (3599.6, "1h00m"),
        (3900, "1h05m"),
        (90000, "25h00m"),
    ],
)
def test_format_duration(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize("seconds", [42, 60, 200, 5400, 36000])
def test_a_formatted_duration_is_a_valid_budget(seconds: int) -> None:
    assert parse_budget(format_duration(seconds)) == seconds


def test_a_deadline_counts_down() -> None:
    clock = SimulatedClock()
    deadline = Deadline(60, now=clock)
    assert (deadline.elapsed(), deadline.remaining(), deadline.late) == (0, 60, False)
    clock.sleep(60)
    assert (deadline.elapsed(), deadline.remaining(), deadline.late) == (60, 0, False)
    clock.sleep(1)
    assert (deadline.elapsed(), deadline.remaining(), deadline.late) == (61, -1, True)


def test_without_a_budget_there_is_no_deadline() -> None:
    clock = SimulatedClock()
    deadline = Deadline(None, now=clock)
    clock.sleep(1e9)
    assert deadline.remaining() == float("inf")
    assert not deadline.late


def test_a_budget_may_begin_before_its_deadline_is_created() -> None:
    clock = SimulatedClock(500)
    deadline = Deadline(60, started_at=490, now=clock)
    assert deadline.elapsed() == 10
    assert deadline.phases_so_far() == {"start-up": 10}


def test_phases_nest_exclusively_and_sum_to_the_elapsed_time() -> None:
    clock = SimulatedClock()
    deadline = Deadline(100, started_at=998, now=clock)
    clock.sleep(1)
    with deadline.phase("reading"):
        clock.sleep(5)
    clock.sleep(0.5)
    with deadline.phase("training"):
        clock.sleep(10)
        with deadline.phase("validating"):
            clock.sleep(2)
            with deadline.phase("saving"):
                clock.sleep(0.25)
        clock.sleep(10)
    with deadline.phase("saving"):
        clock.sleep(4)
    expected = {"start-up": 3, "reading": 5, "other": 0.5, "training": 20, "validating": 2, "saving": 4.25}
    phases = deadline.phases_so_far()
    assert phases == expected
    assert list(phases) == ["start-up", "reading", "other", "training", "validating", "saving"]
    assert sum(phases.values()) == deadline.elapsed()


def test_the_open_phase_counts_until_now() -> None:
    clock = SimulatedClock()
    deadline = Deadline(None, now=clock)
    with deadline.phase("training"):
        clock.sleep(3)
        assert deadline.phases_so_far()["training"] == 3
        clock.sleep(4)
    assert deadline.phases_so_far()["training"] == 7
    deadline.phases_so_far()["training"] = 0
    assert deadline.phases_so_far()["training"] == 7


def test_a_phase_ends_with_an_error_in_it() -> None:
    clock = SimulatedClock()
    deadline = Deadline(None, now=clock)
    with pytest.raises(KeyError), deadline.phase("training"):
        clock.sleep(3)
        raise KeyError
    clock.sleep(2)
    assert deadline.phases_so_far() == {"start-up": 0, "training": 3, "other": 2}


def test_excluded_time_counts_in_no_phase() -> None:
    clock = SimulatedClock()
    deadline = Deadline(60, now=clock)
    with deadline.phase("reading"):
        clock.sleep(30)
        deadline.exclude(25)
        assert deadline.remaining() == 55
    phases = deadline.phases_so_far()
    assert phases["reading"] == 5
    assert sum(phases.values()) == deadline.elapsed() == 5


def test_now_never_runs_backwards() -> None:
    before = now()
    assert now() >= before


def test_the_process_start_is_in_the_past() -> None:
    assert process_start() < now()


def test_time_before_the_import_counts_as_start_up() -> None:
    code = (
        "import time; time.sleep(0.7)\n"
        "from timebox.clock import Deadline\n"
        "deadline = Deadline.since_process_start(60)\n"
        "print(deadline.phases_so_far()['start-up'], deadline.elapsed(), deadline.remaining())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    start_up, elapsed, remaining = map(float, done.stdout.split())
    least = 0.65 if sys.platform == "linux" else 0.0  # the kernel counts in hundredths
    assert least <= start_up <= elapsed
    assert 60 - remaining >= elapsed, "read from one clock, in this order"


@pytest.mark.parametrize(
    "content", ["", "1 (a) b", "1 (python) S " + "x " * 40, "1 (a (b) c) S " + "99999999999 " * 40]
)
def test_without_a_start_time_from_the_kernel_the_import_counts(content: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("timebox.clock.Path.read_text", lambda path: content)
    monkeypatch.setattr("timebox.clock._IMPORTED_AT", 5.0)
    assert process_start() == 5.0


def test_a_command_name_with_brackets_and_spaces(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks: Callable[[str], int] = lambda name: 100  # noqa: E731
    content = "7 (odd) name) S " + "0 " * 18 + "1234 " + "0 " * 30
    monkeypatch.setattr("timebox.clock.Path.read_text", lambda path: content)
    monkeypatch.setattr("timebox.clock.os.sysconf", ticks)
    monkeypatch.setattr("timebox.clock._IMPORTED_AT", 15.0)
    assert process_start() == 12.34


def test_a_budget_begins_with_the_call_that_asks_for_it() -> None:
    with call_started():
        time.sleep(0.05)
        assert Deadline.since_call(10.0).elapsed() >= 0.05
        assert Deadline.since_call(10.0).elapsed() < 0.05, "a call within has a clock of its own"
    assert Deadline.since_call(10.0).elapsed() < 0.05


def test_functions_with_a_budget_are_imported_by_their_call() -> None:
    code = (
        "import sys, pickle, inspect, timebox\n"
        "functions = [timebox.train, timebox.tune, timebox.benchmark, timebox.lr_find, timebox.plan]\n"
        "print('torch' in sys.modules)\n"
        "print([pickle.loads(pickle.dumps(one)) is one for one in functions])\n"
        "print(['budget' in inspect.signature(one).parameters for one in functions], timebox.train.__doc__[:18])\n"
        "import timebox.pipelines.train\n"
        "print(timebox.train.__wrapped__ is sys.modules['timebox.pipelines.train'].train, timebox.train)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "False",
        "[True, True, True, True, True]",
        "[True, True, True, True, True] Train a classifier",
        "True <function timebox.train>",
    ]
