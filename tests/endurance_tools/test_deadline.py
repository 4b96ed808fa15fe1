"""The benchmark of the deadline: how it judges, disturbs and times runs."""

import json
import os
import subprocess
import sys
import threading
import time
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from random import Random

import pytest

from .conftest import ENDURANCE

from deadline import SCENARIOS, Cell, order, train_words  # isort: skip
from deadline import program as program_of  # isort: skip
from deadlines.disturbances import Installation, evict, keep_busy, leave_alone, stop_and_continue  # isort: skip
from deadlines.process_timing import Observed, longest_stall, observe  # isort: skip
from deadlines.report import Figures, Record, Schedule, broken_promises, judge_schedule  # isort: skip
from deadlines.report import misses, read_records, table  # isort: skip
from deadlines.slow_disk import from_file, from_moment, slow_down_disk  # isort: skip

FIGURES = Figures(
    late=False,
    elapsed_seconds=9.4,
    reserve_seconds=0.7,
    schedule=Schedule(end_reached=True, last_decade_steps=40, largest_drop=0.003),
    steps=400,
    training_share=0.6,
    steps_share=0.59,
    scoring_share=0.0,
    val_images=0,
    val_images_total=0,
    test_images=0,
    test_images_total=0,
    phases={"training": 6.0},
    plan=("a plan",),
)
RANKS = Record(
    scenario="idle",
    budget_seconds=10.0,
    repeat=0,
    seed=0,
    command="timebox train digits",
    commit="abc",
    load_before=0.1,
    wall_seconds=9.5,
    late=False,
    stalled_seconds=0.01,
    status=0,
    disturbance={},
    stderr="",
    figures=FIGURES,
)


def annealed(num_steps: int, down_to: float = 0.0) -> list[dict[str, float]]:
    """The steps of a straight fall from 1 to ``down_to``."""
    return [{"progress": i / num_steps, "lr": 1 - (1 - down_to) * i / num_steps} for i in range(1, num_steps + 1)]


def test_a_schedule_that_falls_evenly_is_gradual() -> None:
    schedule = judge_schedule(annealed(100), final_lr=0.0, lowest_lr=0.0)
    assert (schedule.end_reached, schedule.last_decade_steps, schedule.gradual) == (True, 10, True)
    assert schedule.largest_drop == pytest.approx(0.01, rel=0.02)


def test_a_cliff_and_a_short_last_decade_are_not_gradual() -> None:
    steps = annealed(100)
    cliff = judge_schedule([*steps[:85], steps[-1]], 0.0, 0.0)
    assert cliff.end_reached
    assert cliff.largest_drop == pytest.approx(0.15, rel=0.02)
    assert not cliff.gradual
    few = judge_schedule([*steps[:90], *({"progress": 1.0, "lr": lr} for lr in (0.06, 0.02, 0.0))], 0.0, 0.0)
    assert few.last_decade_steps == 3
    assert not few.gradual


def test_a_schedule_cut_off_has_not_reached_its_end() -> None:
    steps = annealed(100)
    assert not judge_schedule(steps[:99], steps[98]["lr"], 0.0).end_reached
    assert not judge_schedule(steps, 0.1, 0.0).end_reached
    assert not judge_schedule(annealed(100, down_to=0.2), 0.2, 0.1).end_reached
    assert not judge_schedule([], 0.0, 0.0).end_reached


def test_what_a_run_must_not_do() -> None:
    def found(**changes: object) -> list[str]:
        return misses(replace(RANKS, **changes))

    def inside(**changes: object) -> list[str]:
        return found(figures=replace(FIGURES, **changes))

    assert misses(RANKS) == []
    assert found(late=True, wall_seconds=10.25) == ["late by 0.25s", "its own late flag says False, at 9.40s"]
    assert found(status=2, figures=None) == ["refused"]
    assert found(status=2, figures=None, late=True, wall_seconds=10.25) == ["late by 0.25s", "refused"]
    assert found(status=2, figures=None, scenario="first-run") == []
    assert found(status=2, figures=None, scenario="first-run", budget_seconds=30.0) == ["refused"]
    assert found(status=1, figures=None) == ["ended with status 1", "no summary"]
    assert inside(elapsed_seconds=9.9) == ["its own clock says 9.90s"]
    assert inside(schedule=Schedule(False, 40, 0.003)) == ["final lr not reached"]
    assert inside(schedule=Schedule(False, 3, 0.08, aborted=True)) == [
        "a step was aborted before the end of the schedule"
    ]
    assert inside(schedule=Schedule(True, 2, 0.08)) == ["last decade in 2 steps, largest drop 8.0%"]
    long = {"budget_seconds": 120.0, "wall_seconds": 119.0}
    assert found(**long) == ["training steps filled only 59.0% of the budget"]
    assert found(**long, scenario="busy") == []
    assert found(scenario="large-val", figures=replace(FIGURES, scoring_share=0.2)) == [
        "scoring took 20.0% of the budget"
    ]


def test_what_a_run_must_not_do_on_any_machine() -> None:
    def found(**changes: object) -> list[str]:
        return broken_promises(replace(RANKS, **changes))

    assert found() == []
    assert found(status=2, figures=None) == []
    assert found(status=2, figures=None, late=True, wall_seconds=10.25) == []
    assert found(status=1, figures=None, late=True, wall_seconds=10.25) == [
        "late by 0.25s",
        "ended with status 1",
        "no summary",
    ]
    assert found(status=3) == ["ended with status 3"]
    assert found(figures=replace(FIGURES, schedule=Schedule(True, 2, 0.08))) == []
    assert found(figures=replace(FIGURES, schedule=Schedule(False, 3, 0.08, aborted=True))) == []
    assert found(figures=replace(FIGURES, schedule=Schedule(False, 40, 0.003))) == ["final lr not reached"]


def test_the_table_counts_and_fits_120_columns() -> None:
    noted = {"note": "no such moment: training began at 6.2s"}
    records = [
        *(replace(RANKS, repeat=repeat) for repeat in range(3)),
        replace(RANKS, scenario="busy", late=True, wall_seconds=10.5),
        replace(RANKS, scenario="busy", status=2, figures=None, stalled_seconds=3.0),
        replace(RANKS, scenario="stopped", disturbance=noted),
    ]
    text = table(records, SCENARIOS)
    rows = [line.split() for line in text.splitlines()]
    assert rows[1][:8] == ["idle", "10s", "3", "0", "0", "0", "3/3", "3/3"]
    assert rows[2][:8] == ["busy", "10s", "2", "1", "1", "0", "1/1", "1/1"]
    assert "busy 10s, repeat 0: refused (the benchmark itself stood still for 3.0s)" in text
    assert "stopped 10s: no such moment, 1 runs" in text
    assert text.splitlines()[-1].startswith("1 late of 6 runs, 1 refused; final lr reached in 5 of 5")
    assert max(map(len, text.splitlines())) <= 120


def test_records_read_back(tmp_path: Path) -> None:
    records = [RANKS, replace(RANKS, status=2, figures=None, stderr="refused")]
    path = tmp_path / "results.jsonl"
    path.write_text("".join(json.dumps(asdict(record)) + "\n" for record in records))
    assert table(read_records(path), SCENARIOS) == table(records, SCENARIOS)
    assert read_records(tmp_path / "none.jsonl") == []


def test_every_repeat_holds_all_cells_in_an_order_of_its_own() -> None:
    cells = order(SCENARIOS, (10.0, 30.0), repeats=3, seed=0)
    assert len(cells) == len(set(cells)) == 3 * 2 * len(SCENARIOS)
    assert cells == order(SCENARIOS, (10.0, 30.0), repeats=3, seed=0)
    size = 2 * len(SCENARIOS)
    blocks = [cells[start : start + size] for start in range(0, 3 * size, size)]
    assert all({cell.repeat for cell in block} == {repeat} for repeat, block in enumerate(blocks))
    assert len({tuple((cell.scenario, cell.budget_seconds) for cell in block) for block in blocks}) == 3


def program(reserve: str, seconds: float) -> list[str]:
    """A process that speaks like `timebox train`, and counts the time it was really at work."""
    code = f"""
import sys, time
print("    0.1s    2.0s of training; {reserve} in reserve", file=sys.stderr, flush=True)
print("    0.1s  training", file=sys.stderr, flush=True)
worked, last = 0.0, time.monotonic()
gap = 0.0
while worked < {seconds}:
    time.sleep(0.01)
    now = time.monotonic()
    gap = max(gap, now - last)
    worked, last = worked + min(now - last, 0.2), now
print(gap)
"""
    return [sys.executable, "-S", "-c", code]


@pytest.mark.endurance
def test_a_stop_that_fits_leaves_the_reserve(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deadlines.disturbances.STOP_SECONDS", 1.0)
    outcome = observe(program("1m02s", 2.0), 64.5, stop_and_continue, Random(0))
    happened = outcome.disturbance
    assert outcome.status == 0, outcome.stderr
    assert "note" not in happened
    assert happened["printed_reserve_seconds"] == 62
    assert float(str(happened["seconds"])) == pytest.approx(1, abs=0.3)
    assert float(str(happened["left_seconds"])) >= 62
    assert float(outcome.stdout) == pytest.approx(1, abs=0.5)


@pytest.mark.endurance
def test_where_no_moment_leaves_the_reserve_a_shorter_stop_is_made_and_said() -> None:
    outcome = observe(program("1.5s", 1.0), 3.0, stop_and_continue, Random(0))
    assert str(outcome.disturbance["note"]).startswith("no such moment: training began at ")
    assert 0.2 < float(str(outcome.disturbance["seconds"])) < 1.0
    assert float(str(outcome.disturbance["left_seconds"])) >= 1.5
    none = observe(program("4.0s", 0.1), 3.0, stop_and_continue, Random(0))
    assert "seconds" not in none.disturbance
    assert none.status == 0


def test_a_process_that_never_trains_is_not_stopped() -> None:
    outcome = observe([sys.executable, "-S", "-c", "raise SystemExit(2)"], 10.0, stop_and_continue, Random(0))
    assert outcome.status == 2
    assert "never stopped" in str(outcome.disturbance["note"])


@pytest.mark.endurance
def test_busy_processes_begin_at_a_random_moment_and_are_gone_with_the_run() -> None:
    before = children()
    outcome = observe(program("1.0s", 2.0), 1.0, keep_busy, Random(0))
    assert float(str(outcome.disturbance["moment"])) == pytest.approx(0.9 * Random(0).random(), abs=0.5)
    assert outcome.disturbance["processes"] == 4
    assert children() == before
    over = observe([sys.executable, "-S", "-c", ""], 50.0, keep_busy, Random(0))
    assert "was over before" in str(over.disturbance["note"])


def children() -> str:
    """The numbers of this process's children."""
    return "".join(path.read_text() for path in Path("/proc/self/task").glob("*/children"))


def test_a_failing_command_keeps_what_it_said() -> None:
    code = "import sys; print('out'); sys.exit('what went wrong')"
    outcome = observe([sys.executable, "-S", "-c", code], 10.0, leave_alone, Random(0))
    assert (outcome.status, outcome.stdout, outcome.stderr) == (1, "out\n", "what went wrong\n")


class LateOnce(threading.Event):
    """Wakes its waiter late, and is set from then on."""

    def wait(self, timeout: float | None = None) -> bool:
        was_set = self.is_set()
        time.sleep(0.0 if was_set else 0.4)
        self.set()
        return was_set


@pytest.mark.endurance
def test_the_observer_tells_when_it_was_kept_from_running() -> None:
    assert longest_stall(LateOnce()) >= 0.35


def test_a_disturbance_that_fails_ends_the_benchmark() -> None:
    def fail(observed: Observed, budget_seconds: float, random: Random) -> Mapping[str, object]:
        raise OSError("no process can be made")

    with pytest.raises(OSError, match="no process can be made"):
        observe([sys.executable, "-S", "-c", ""], 10.0, fail, Random(0))


@pytest.mark.endurance
def test_a_slow_disk_takes_its_time_and_the_exit_status_is_kept(tmp_path: Path) -> None:
    package = tmp_path / "timebox"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "cli.py").write_text(
        "import os, sys, time\n"
        "def main():\n"
        "    file = open('file', 'wb', buffering=0)\n"
        "    for size in (1_000_000, 100_000):\n"
        "        file.write(bytes(size))\n"
        "        before = time.monotonic()\n"
        "        os.fsync(file.fileno())\n"
        "        print(time.monotonic() - before, *sys.argv[1:], flush=True)\n"
        "    os._exit(3)\n"
    )
    slow = ["--fsync-seconds", "0.1", "--megabytes-per-second", "5", "--", "train", "--json"]
    done = subprocess.run(
        [sys.executable, ENDURANCE / "deadlines" / "slow_disk.py", *slow],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 3, done.stderr
    (first, *rest), (second, *_) = (line.split() for line in done.stdout.splitlines())
    assert rest == ["train", "--json"]
    assert float(first) >= 0.3
    assert float(second) >= 0.12


def test_eviction_counts_the_bytes_of_files(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(1000))
    (tmp_path / "link").symlink_to(tmp_path / "file")
    assert evict(tmp_path.rglob("*")) == 1000


def test_only_the_large_validation_set_is_scored() -> None:
    options = Namespace(data="cifar10", train_limit=5000, test=None, options=["--precision", "fp32"])
    plain = train_words(Cell("idle", 30.0, 0), options, seed=7)
    assert " ".join(plain) == (
        "train cifar10 --budget 30s --seed 7 --train-limit 5000 --val none --test none --precision fp32"
    )
    large = train_words(Cell("large-val", 30.0, 0), options, seed=7)
    assert " ".join(large[6:]) == "--train-limit 4545 --val rest --precision fp32"


def test_a_disk_becomes_slow_with_a_file_or_at_a_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds: list[float] = []
    monkeypatch.setattr(time, "sleep", seconds.append)
    monkeypatch.setattr(os, "fsync", lambda file: None)
    slow_down_disk(0.5, 1.0, from_file("model.safetensors"))
    for name in ("summary.json", ".model.json.1a.tmp", ".model.safetensors.1a.tmp", "summary.json"):
        with (tmp_path / name).open("wb") as file:
            os.fsync(file.fileno())
    assert seconds == [0.5, 0.5]
    moments = iter([10.0, 12.9, 13.0, 13.1])
    monkeypatch.setattr(time, "monotonic", lambda: next(moments))
    begins = from_moment(3.0)
    assert [begins(0) for _ in range(3)] == [False, True, True]


def test_the_disk_of_a_scenario_becomes_slow_in_its_way() -> None:
    installation = Installation(Path("/env"))
    assert program_of("slow-disk", installation, 7.5)[2:] == ["--"]
    assert program_of("slowing-disk", installation, 7.5)[2:] == ["--from-seconds", "7.5", "--"]
    assert program_of("slow-save", installation, 7.5)[2:] == ["--from-file", "model.safetensors", "--"]
    assert program_of("idle", installation, 7.5)[1:] == ["-m", "timebox"]
