"""The cells that `auto` is fitted on: what is run, on which cores, and what is kept of it."""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import pytest

import auto_cells

TRIAL = {
    "label": "auto", "seed": 1, "accuracy": 0.5, "num_images": 40, "train_images": 60, "late": False, "steps": 9,
    "elapsed_seconds": 14.0, "epochs": 2.5, "images_per_second": 10.0, "precision": "fp32", "tta": "shift",
    "commit": "abc", "recipe": {"width": 8, "ensemble_size": 1, "batch_size": 32, "flip": "none"}, "plan": ["x"],
}  # fmt: skip


class Machine:
    """Stands in for `timebox benchmark`: notes each command, writes a trial or two."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.commands: list[list[str]] = []
        self.at_once = self.most_at_once = 0
        self.status = 0
        self._lock = Lock()
        monkeypatch.setattr(subprocess, "run", self.run)

    def run(self, command: list[str], **given: Any) -> subprocess.CompletedProcess[str]:
        with self._lock:
            self.commands.append(command[3:])
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        if not self.status:
            flag = "--resume" if "--resume" in command else "--out"
            out = Path(command[command.index(flag) + 1])
            out.mkdir(exist_ok=True)
            for name, text in (("benchmark", "{}"), ("summary", "{}"), ("trials", json.dumps(TRIAL) + "\n")):
                (out / f"{name}.json{'l' if name == 'trials' else ''}").write_text(text)
        with self._lock:
            self.at_once -= 1
        return subprocess.CompletedProcess(command, self.status)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    folder = tmp_path / "tasks"
    folder.mkdir()
    for name in ("cifar10-50", "digits", "signs-32"):
        np.savez(folder / f"{name}.npz", train_images=np.zeros((60, 9, 8, 3), np.uint8))
    return folder


def run(tasks: Path, out: Path, *more: str) -> int:
    return auto_cells.main(
        [str(tasks), str(out), "--recipe", "auto", "--recipe", "haet2021", "--trial-budget", "9s", *more]
    )


def cells(out: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (out / auto_cells.CELLS).read_text().splitlines()]


def test_a_cell_is_a_benchmark_scored_on_validation_images(machine: Machine, tasks: Path, tmp_path: Path) -> None:
    assert run(tasks, tmp_path / "out", "--seeds", "2", "--only", "digits") == 0
    assert machine.commands == [
        ["benchmark", str(tasks / "digits.npz"), "--trial-budget", "9s", "--seeds", "2", "--score", "val",
         "--recipe", "auto", "--recipe", "haet2021", "--out", str(tmp_path / "out" / "digits_9s_full")]
    ]  # fmt: skip
    (cell,) = cells(tmp_path / "out")
    assert (cell["task"], cell["trial_budget"], cell["speed"], cell["side"]) == ("digits", "9s", "full", 8)
    assert (cell["accuracy"], cell["width"], cell["flip"], cell["start_size"]) == (0.5, 8, "none", None)
    assert "plan" not in cell


def test_cells_of_every_speed_are_collected_and_none_is_measured_twice(
    machine: Machine, tasks: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    run(tasks, out)
    assert len(machine.commands) == 3
    assert machine.most_at_once == 1
    run(tasks, out, "--speed", "quarter")
    run(tasks, out)
    assert len(machine.commands) == 6
    assert [cell["speed"] for cell in cells(out)] == ["full", "quarter"] * 3


def test_one_that_was_cut_off_is_taken_up(machine: Machine, tasks: Path, tmp_path: Path) -> None:
    started = tmp_path / "out" / "digits_9s_full"
    started.mkdir(parents=True)
    (started / "benchmark.json").write_text("{}")
    run(tasks, tmp_path / "out", "--only", "digits")
    assert machine.commands == [["benchmark", "--resume", str(started)]]


def test_a_failure_is_passed_on(machine: Machine, tasks: Path, tmp_path: Path) -> None:
    machine.status = 2
    assert run(tasks, tmp_path / "out") == 2
    assert cells(tmp_path / "out") == []


def test_the_neighbours_of_what_auto_took(machine: Machine, tmp_path: Path) -> None:
    tasks, given = tmp_path / "tasks", tmp_path / "cells.jsonl"
    tasks.mkdir()
    for name, side in (("low", 8), ("middle", 32), ("high", 96)):
        images = np.zeros((60, side, side, 3), np.uint8)
        np.savez(tasks / f"{name}.npz", train_images=images, class_names=np.array(["a", "b"]))
    cell = {"trial_budget": "9s", "speed": "full", "label": "auto"}
    model_scales = {"low": (8, 1, 2.0), "middle": (64, 1, 1.0), "high": (32, 1, 1.0)}
    lines = [
        *(
            {"task": task, **cell, "width": w, "ensemble_size": m, "input_scale": s}
            for task, (w, m, s) in model_scales.items()
        ),
        {"task": "middle", **cell, "label": "airbench94", "width": 8, "ensemble_size": 1, "input_scale": 1.0},
        {"task": "middle", **cell, "speed": "quarter", "width": 8, "ensemble_size": 1, "input_scale": 1.0},
    ]
    given.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert auto_cells.main([str(tasks), str(tmp_path / "out"), "--around", str(given), "--trial-budget", "9s"]) == 0
    asked = {Path(c[1]).stem: [c[i + 1] for i, word in enumerate(c) if word == "--recipe"] for c in machine.commands}
    assert asked == {
        "low": ["auto width=12 ensemble_size=1 input_scale=2.0"],
        "middle": ["auto width=48 ensemble_size=1 input_scale=1.0", "auto width=64 ensemble_size=1 input_scale=1.25"],
        "high": ["auto width=32 ensemble_size=1 input_scale=0.6667", "auto width=48 ensemble_size=1 input_scale=1.0"],
    }
    with pytest.raises(SystemExit, match="no trial of auto"):
        auto_cells.main([str(tasks), str(tmp_path / "out"), "--around", str(given), "--trial-budget", "8s"])


def test_the_last_cells_have_no_more_of_the_machine_than_the_others(
    machine: Machine, tasks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[set[int]] = []

    @contextmanager
    def noted(cores: set[int]) -> Iterator[None]:
        given.append(cores)
        yield

    monkeypatch.setattr(auto_cells, "kept_busy", noted)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {4, 7})
    run(tasks, tmp_path / "out", "--speed", "quarter")
    assert sorted(given, key=min) == [{4}, {4}, {7}, {7}], "each lane, once it has no more to do"
    monkeypatch.setattr(auto_cells, "measure", lambda *given: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(tasks, tmp_path / "other", "--speed", "quarter")


def test_a_lane_is_kept_busy_until_the_end(machine: Machine) -> None:
    started = []

    class Process:
        def __init__(self, command: list[str], **given: object) -> None:
            started.append(self)
            self.did: list[str] = []

        def kill(self) -> None:
            self.did.append("kill")

        def wait(self) -> None:
            self.did.append("wait")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess, "Popen", Process)
        with auto_cells.kept_busy({0}):
            assert [process.did for process in started] == [[]]
    assert [process.did for process in started] == [["kill", "wait"]]
