"""Several processes under torchrun: the training of one process, shared; and what becomes of it when one is lost."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from timebox.run import load

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="tested with gloo on Linux")

DIGITS = ("digits", "--test", "0.2")
# At small rates rounding does not grow from step to step, so that what differs shows.
GENTLE = ("--set", "max_lr=1", "--set", "filter_lr=0.005")
TOLERANCE = 5e-5
# At usual rates it grows: one process with another number of threads is as far from itself.
FIRST, GROWN = 5, 0.05


def command(processes: int, *launcher: object) -> list[str]:
    """`timebox` in so many processes; in one, without a launcher."""
    if processes == 1:
        return [sys.executable, "-m", "timebox"]
    words = ("-m", "torch.distributed.run", "--nproc-per-node", processes, *launcher, "-m", "timebox")
    return [sys.executable, *map(str, words)]


def timebox(processes: int, *words: object, launcher: tuple[object, ...] = ()) -> subprocess.CompletedProcess[str]:
    full = [*command(processes, *launcher), *map(str, words)]
    return subprocess.run(full, capture_output=True, text=True, timeout=150, check=False)


def losses(run: Path) -> list[float]:
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [line["loss"] for line in lines if "loss" in line]


def summary_of(run: Path) -> dict[str, object]:
    summary: dict[str, object] = json.loads((run / "summary.json").read_text())
    return summary


@pytest.mark.parametrize(
    ("processes", "tolerance", "settings"),
    [
        ((2, 4), TOLERANCE, GENTLE),
        ((2,), GROWN, ("--recipe", "airbench94", "--set", "width=8", "--set", "flip=none", "--set", "members=2")),
    ],
)
def test_steps_are_those_of_one_process(
    tmp_path: Path, processes: tuple[int, ...], tolerance: float, settings: tuple[str, ...]
) -> None:
    words = ("train", *DIGITS, "--steps", 25, *settings, "--set", "ghost_size=16", "--set", "batch_size=64")
    assert timebox(1, *words, "--out", tmp_path / "alone").returncode == 0
    expected = losses(tmp_path / "alone")
    assert len(expected) == 25
    assert max(expected) - min(expected) > 0.05, "it learns"
    for number in processes:
        run = tmp_path / f"{number}"
        ended = timebox(number, *words, "--out", run)
        assert ended.returncode == 0, ended.stderr
        assert losses(run)[:FIRST] == pytest.approx(expected[:FIRST], abs=TOLERANCE)
        assert losses(run) == pytest.approx(expected, abs=tolerance)
        one, shared = summary_of(tmp_path / "alone"), summary_of(run)
        assert shared["test_images"] == one["test_images"], "every image is scored once, whatever the remainder"
        # The running statistics follow the groups of a batch in another order.
        assert shared["test_accuracy"] == pytest.approx(one["test_accuracy"], abs=0.02)


def test_a_budget_is_kept_and_told_once(tmp_path: Path) -> None:
    run = tmp_path / "run"
    ended = timebox(2, "train", *DIGITS, "--budget", "20s", "--out", run, "--json")
    assert ended.returncode == 0, ended.stderr
    printed = json.loads(ended.stdout)
    assert printed["run"] == str(run)
    assert printed["late"] is False
    assert 14 < printed["elapsed_seconds"] < 20
    assert printed["test_accuracy"] > 0.9
    assert [rank["rank"] for rank in printed["ranks"]] == [0, 1]
    assert all(rank["images_per_second"] > 0 and 0 <= rank["waiting_share"] < 1 for rank in printed["ranks"])
    assert printed["lost_ranks"] == []
    lines = ended.stderr.splitlines()
    assert len([line for line in lines if line.endswith("planning")]) == 1, "one process tells what happens"
    assert len([line for line in lines if "2 processes share each batch of" in line]) == 1
    assert len([line for line in lines if "alone they train" in line and "sets the pace" in line]) == 1
    load(run, device="cpu")


def test_a_lost_process_is_named_and_one_alone_goes_on(tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ("train", *DIGITS, "--budget", "32s", "--out", run)
    with subprocess.Popen(
        [*command(2), *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as group:
        kill_when_kept(run, 1)
        _, err = group.communicate(timeout=90)
    assert group.returncode != 0
    assert "internal error" not in err
    summary = summary_of(run)
    assert summary["stopped"] is True
    (named,) = list(summary["lost_ranks"])  # type: ignore[call-overload]
    assert named.startswith("rank 1 on ")
    assert "late" in summary
    load(run, device="cpu")
    resumed = timebox(1, "train", "--resume", run)
    assert resumed.returncode == 0, resumed.stderr
    assert summary_of(run)["late"] is False


def test_a_group_that_is_started_again_keeps_the_first_deadline(tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ("train", *DIGITS, "--budget", "32s", "--out", run)
    with subprocess.Popen(
        [*command(2, "--max-restarts", 1), *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as group:
        kill_when_kept(run, 0)
        out, err = group.communicate(timeout=90)
    assert group.returncode == 0, err
    summary = summary_of(run)
    assert summary["late"] is False
    elapsed, resumed_at = summary["elapsed_seconds"], summary["resumed_at_step"]
    assert isinstance(elapsed, float)
    assert isinstance(resumed_at, int)
    assert 18 < elapsed < 32
    assert resumed_at > 0
    assert "started again after rank 0 on " in err
    assert out.count("test accuracy") == 1


def test_a_stop_is_no_loss(tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ("train", *DIGITS, "--budget", "40s", "--out", run)
    with subprocess.Popen([*command(2), *map(str, words)], stderr=subprocess.PIPE, text=True) as group:
        kill_when_kept(run, None)
        group.send_signal(signal.SIGTERM)
        _, err = group.communicate(timeout=60)
    assert "internal error" not in err
    summary = summary_of(run)
    assert summary["stopped"] is True
    assert "lost_ranks" not in summary
    load(run, device="cpu")


def test_a_process_that_leaves_by_its_own_error_gives_the_reason(tmp_path: Path) -> None:
    """Its memory runs out in the middle of the training."""
    run = tmp_path / "run"
    script = tmp_path / "script.py"
    script.write_text(SHORT_OF_MEMORY)
    words = ("--nproc-per-node", 3, script, "train", *DIGITS, "--steps", 400, "--out", run)
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", *map(str, words)], capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert (run / "summary.json").is_file(), done.stderr
    (named,) = list(summary_of(run)["lost_ranks"])  # type: ignore[call-overload]
    assert named.startswith("rank 1 on ")
    assert "memory ran out with" in named
    load(run, device="cpu")


SHORT_OF_MEMORY = """
import os
from timebox.cli import main
from timebox.engine.state import TrainingState

real = TrainingState.advance

def advance(self, progress):
    real(self, progress)
    if self.step == 60 and os.environ["RANK"] == "1":
        raise MemoryError

TrainingState.advance = advance
main()
"""


def kill_when_kept(run: Path, rank: int | None) -> None:
    """Kill a process, if one is named, once its run could be resumed."""
    until = time.monotonic() + 60
    while not (run / "checkpoint" / "manifest.json").exists():
        assert time.monotonic() < until
        time.sleep(0.05)
    time.sleep(0.5)
    if rank is None:
        return
    members = json.loads((run / "group.json").read_text())["members"]
    os.kill(members[rank]["pid"], signal.SIGKILL)


def test_what_cannot_be_done_together_is_refused(tmp_path: Path) -> None:
    ended = timebox(2, "inspect", "digits")
    assert "timebox inspect runs in one process: start it without torchrun" in ended.stderr
    ended = timebox(2, "train", "nowhere", "--steps", 5, "--out", tmp_path / "run")
    assert ended.returncode != 0
    assert len([line for line in ended.stderr.splitlines() if line.startswith("timebox train: error:")]) == 1
    ended = timebox(2, "train", *DIGITS, "--steps", 5, "--set", "batch_size=3", "--out", tmp_path / "run")
    assert "2 processes cannot share batches of 3 images" in ended.stderr
    assert not (tmp_path / "run").exists()
