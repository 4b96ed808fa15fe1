"""metrics.jsonl: failed writes lose no line, a resume cuts it to its checkpoint, a replay reads its step plans."""

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

import pytest

from timebox.errors import RunError, UsageError
from timebox.files.folders import Folder
from timebox.run.directories.locks import lock_folder
from timebox.run.files import in_use
from timebox.run.metrics_log import MetricsLog, final_step_plans, prefix_at_checkpoint, read_metrics
from timebox.run.writer import RunWriter
from timebox.training.schedule import StepPlan

Entry = Mapping[str, object]


def step(number: int, progress: float = 0.5, lr: float = 0.1) -> Entry:
    return {"step": number, "progress": progress, "lr": lr, "momentum": 0.9, "micro_batch": 8, "loss": 1.5}


def back_to(number: int) -> Entry:
    return {"step": number, "rolled_back": True}


def accuracy(number: int) -> Entry:
    return {"step": number, "progress": 0.5, "val_accuracy": 0.75}


def lines_of(path: Path) -> list[Entry]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "metrics.jsonl"


def opened(path: Path, keep_bytes: int = 0) -> MetricsLog:
    return MetricsLog(Folder(path.parent), keep_bytes)


def save(path: Path, entries: list[Entry]) -> None:
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))


def test_flush_writes_the_lines(path: Path) -> None:
    writer = opened(path)
    writer.add(step(1))
    writer.add(step(2))
    assert path.read_bytes() == b""
    assert writer.num_lines == 2
    writer.flush()
    writer.flush()
    writer.add(step(3))
    writer.flush()
    writer.close()
    assert lines_of(path) == [step(1), step(2), step(3)]


def test_lines_of_a_failed_write_are_written_with_the_next(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = opened(path)
    writer.add(step(1))
    writer.flush()
    writer.add(step(2))
    write = os.write

    def half(file: int, content: bytes) -> int:
        if len(content) < 50:
            raise OSError(28, "No space left on device")
        return write(file, content[: len(content) // 2])

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", half)
        with pytest.raises(OSError, match="No space left"):
            writer.flush()
    assert len(path.read_bytes()) > len(json.dumps(step(1))) + 1, "an incomplete line is at its end"
    assert [entry for _, entry in read_metrics(path)] == [step(1)], "which readers ignore"
    writer.add(step(3))
    writer.flush()
    writer.close()
    assert lines_of(path) == [step(1), step(2), step(3)]


def test_a_write_whose_sync_failed_is_repeated_in_place(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = opened(path)
    writer.add(step(1))

    def fail(file: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="Input/output"):
            writer.flush()
    writer.add(step(2))
    writer.flush()
    writer.close()
    assert lines_of(path) == [step(1), step(2)]


def test_lines_are_added_while_others_are_written(path: Path) -> None:
    writer = opened(path)
    done = threading.Event()

    def flush_on() -> None:
        while not done.is_set():
            writer.flush()

    thread = threading.Thread(target=flush_on)
    thread.start()
    for number in range(1, 2001):
        writer.add(step(number))
    done.set()
    thread.join()
    writer.flush()
    writer.close()
    assert [entry["step"] for entry in lines_of(path)] == list(range(1, 2001))


def test_the_file_is_cut_to_the_bytes_to_keep(path: Path) -> None:
    save(path, [step(1), step(2), step(3)])
    writer = opened(path, keep_bytes=len(json.dumps(step(1))) + 1)
    writer.add(step(2, lr=0.05))
    writer.flush()
    writer.close()
    assert lines_of(path) == [step(1), step(2, lr=0.05)]


def test_a_second_writer_is_refused_and_changes_nothing(path: Path) -> None:
    writer = opened(path)
    writer.add(step(1))
    writer.flush()
    expected = f"^{re.escape(in_use(path.parent))}$"
    with pytest.raises(UsageError, match=expected):
        opened(path)
    assert lines_of(path) == [step(1)]
    writer.close()
    opened(path).close()


def test_a_lock_ends_with_its_process(path: Path) -> None:
    code = (
        "import os; from pathlib import Path; from timebox.files.folders import Folder; "
        "from timebox.run.metrics_log import MetricsLog; "
        f"writer = MetricsLog(Folder(Path({str(path.parent)!r}))); os._exit(9)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    assert subprocess.run([sys.executable, "-c", code], env=environment).returncode == 9
    opened(path).close()


def test_a_place_that_cannot_be_written_to(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        opened(tmp_path / "nowhere" / "metrics.jsonl")


@pytest.mark.parametrize("junk", [b"[1]\n", b"{broken\n", b'{"a": NaN}\n', b"\xff\xfe\n", b'{"a": 1, "a": 2}\n'])
def test_a_damaged_line_is_a_run_error(path: Path, junk: bytes) -> None:
    save(path, [step(1)])
    path.write_bytes(path.read_bytes() + junk)
    with pytest.raises(RunError, match=re.escape(f"{str(path)!r} cannot be read: ")):
        list(read_metrics(path))


def test_a_missing_file_is_a_run_error(path: Path) -> None:
    with pytest.raises(RunError, match="cannot be read"):
        list(read_metrics(path))


@pytest.mark.parametrize(
    ("entries", "num_lines", "at_step", "kept"),
    [
        ([step(1), step(2), step(3)], 2, 2, 2),
        ([step(1), step(2), step(3)], 3, 3, 3),
        ([step(1), step(2), step(3)], 0, 0, 0),
        # The checkpoint was taken before the losses of its last two steps had arrived.
        ([step(1), step(2), step(3), step(4), step(5)], 2, 4, 4),
        ([step(1), accuracy(1), step(2), step(3), accuracy(3), step(4)], 4, 3, 4),
        # A rollback after the checkpoint is cut off too.
        ([step(1), step(2), step(3), back_to(2), step(3)], 2, 2, 2),
        ([step(1), step(2), back_to(1), step(2), step(3)], 4, 2, 4),
        ([], 0, 0, 0),
        # The disk has fewer lines than it should: all of them are kept.
        ([step(1), step(2)], 7, 6, 2),
    ],
)
def test_the_lines_that_belong_to_a_checkpoint(
    path: Path, entries: list[Entry], num_lines: int, at_step: int, kept: int
) -> None:
    save(path, entries)
    length, count, _ = prefix_at_checkpoint(path, num_lines, at_step)
    assert count == kept
    assert path.read_bytes()[:length].count(b"\n") == kept
    assert length == len("".join(json.dumps(entry) + "\n" for entry in entries[:kept]))


def test_an_incomplete_last_line_is_not_kept(path: Path) -> None:
    save(path, [step(1), step(2)])
    whole = len(path.read_bytes())
    path.write_bytes(path.read_bytes() + b'{"step": 3, "lo')
    assert prefix_at_checkpoint(path, 9, 9) == (whole, 2, 1)


def test_the_line_count_goes_on_from_the_lines_kept(tmp_path: Path, path: Path) -> None:
    """The next checkpoint counts lines that arrived late too, so that a second resume does not cut them off."""
    save(path, [step(1), step(2), step(3), step(4), step(5)])
    writer = RunWriter.resumed(lock_folder(tmp_path), num_lines=2, step=4)
    assert writer.metrics.num_lines == 4
    writer.metrics.add(accuracy(4))
    writer.metrics.flush()
    writer.metrics.close()
    assert lines_of(path) == [step(1), step(2), step(3), step(4), accuracy(4)]
    assert prefix_at_checkpoint(path, writer.metrics.num_lines, 4) == (len(path.read_bytes()), 5, 1)


def step_plans(*entries: Entry) -> list[tuple[float, float]]:
    found = final_step_plans(entries, Path("runs/one"))
    assert all(isinstance(step_plan, StepPlan) for step_plan in found)
    return [(step_plan.progress, step_plan.lr) for step_plan in found]


def test_without_rollbacks_every_step_counts() -> None:
    assert final_step_plans([step(1, 0.5, 0.2), accuracy(1), step(2, 1.0, 0.0)], Path("run")) == [
        StepPlan(0.5, 0.2, 0.9, 8),
        StepPlan(1.0, 0.0, 0.9, 8),
    ]


def test_steps_that_a_rollback_undid_are_left_out() -> None:
    assert step_plans(step(1, 0.3), step(2, 0.6), step(3, 0.9), back_to(1), step(2, 0.6, 0.05), step(3, 1.0, 0.0)) == [
        (0.3, 0.1),
        (0.6, 0.05),
        (1.0, 0.0),
    ]


def test_rollbacks_after_rollbacks() -> None:
    assert step_plans(
        *(step(1, 0.3), step(2, 0.6), back_to(1), step(2, 0.6, 0.05), back_to(1), back_to(0)),
        *(step(1, 0.5, 0.025), step(2, 1.0, 0.0)),
    ) == [(0.5, 0.025), (1.0, 0.0)]


def test_a_rollback_to_the_last_step_undoes_nothing() -> None:
    assert step_plans(step(1, 0.5), back_to(1), step(2, 1.0)) == [(0.5, 0.1), (1.0, 0.1)]


def test_an_aborted_step_ends_a_training_before_its_schedule() -> None:
    assert step_plans(step(1, 0.3), back_to(0), step(1, 0.4), {"step": 1, "aborted": True}) == [(0.4, 0.1)]


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([{"step": 0, "aborted": True}], "there is nothing to replay"),
        ([step(1), {"step": 1, "aborted": True}, step(2)], "there is nothing to replay"),
        ([step(1), step(3, 1.0)], "metrics.jsonl of 'runs/one' is damaged: step 2 is missing"),
        ([step(2, 1.0)], "step 1 is missing"),
        ([step(1), step(2), back_to(1), step(3, 1.0)], "step 2 is missing"),
        ([step(1), step(1, 1.0)], "step 2 is missing"),
        ([step(1), back_to(5), step(2, 1.0)], "a rollback goes to a step that is not there"),
        ([step(1), {"rolled_back": True}, step(1, 1.0)], "a rollback goes to a step that is not there"),
        ([step(1)], "run 'runs/one' did not come to the end of its schedule: there is nothing to replay"),
        ([], "there is nothing to replay"),
        ([step(1, 1.0), back_to(0)], "there is nothing to replay"),
        (
            [{**step(1, 1.0), "lr": "fast"}],
            "step 1 in metrics.jsonl of 'runs/one' is damaged: expected float, got str at lr",
        ),
        ([{**step(1, 1.0), "lr": -0.1}], "expected float >= 0.0 at lr"),
        ([{**step(1, 1.0), "micro_batch": 0}], "expected int >= 1 at micro_batch"),
        ([{**step(1, 1.0), "micro_batch": True}], "expected int, got bool at micro_batch"),
        ([{**step(1, 1.0), "momentum": 1.0}], "expected float < 1.0 at momentum"),
        ([{**step(1, 1.0), "momentum": 0.0}], "expected float > 0.0 at momentum"),
        ([{**step(1, 1.0), "lr": float("inf")}], "expected float <= 1.7976931348623157e+308 at lr"),
        ([{"step": 1, "loss": 1.0}], "object missing required field progress"),
    ],
)
def test_missing_and_damaged_steps_are_refused(entries: list[Entry], words: str) -> None:
    with pytest.raises(RunError, match=re.escape(words)):
        final_step_plans(entries, Path("runs/one"))
