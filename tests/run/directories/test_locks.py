"""A run that is still being trained is neither overwritten nor resumed."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cut_runs import STEPS, cut, names, summary
from small_runs import FILES, SMALL, quick, weights
from timebox.errors import RunError, TimeboxError, UsageError
from timebox.pipelines import train
from timebox.run import load
from timebox.run.directories import replacement
from timebox.run.directories.locks import lock_folder, locked_run, remove_run
from timebox.run.files import in_use
from timebox.run.metrics_log import MetricsLog
from timebox.run.writer import RunWriter


@pytest.fixture
def stopped(data: Path, tmp_path: Path) -> Path:
    run: Path = tmp_path / "run"
    cut(6, KeyboardInterrupt, quick, data, run, STEPS)
    return run


def refusal(path: Path, data: Path, **options: object) -> str:
    """The error of a training that is to go on with, or to replace, the run in ``path``."""
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    with pytest.raises(UsageError) as caught:
        train(resume=path) if options.get("resume") else quick(data, path, overwrite=True)
    assert {file: file.read_bytes() for file in path.rglob("*") if file.is_file()} == before
    return str(caught.value)


def test_the_message_names_the_run() -> None:
    assert in_use(Path("runs/one")) == (
        "run 'runs/one' is still being trained by another process; wait until that has ended, or stop it"
    )


@pytest.mark.parametrize("resume", [False, True])
def test_a_held_run_is_refused(resume: bool, stopped: Path, data: Path) -> None:
    with locked_run(stopped):
        assert refusal(stopped, data, resume=resume) == in_use(stopped)
        assert not remove_run(stopped)
    train(resume=stopped)


@pytest.mark.parametrize("resume", [False, True])
def test_a_run_that_timebox_0_1_0_trains_is_refused(resume: bool, stopped: Path, data: Path) -> None:
    """It locks metrics.jsonl alone, as do file systems that lock no directories."""
    folder = lock_folder(stopped)
    metrics = MetricsLog(folder, (stopped / "metrics.jsonl").stat().st_size)
    folder.close()
    assert refusal(stopped, data, resume=resume) == in_use(stopped)
    metrics.close()
    quick(data, stopped, overwrite=True)


def test_a_running_training_is_held_from_its_start_to_its_end(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also before its first checkpoint, while it replaces another run, and while the two are exchanged."""
    run, seen = tmp_path / "run", []

    def watch(module: object, name: str) -> None:
        real = getattr(module, name)

        def watched(*given: object, **more: object) -> object:
            held = [path for path in tmp_path.iterdir() if path.is_dir()]
            for path in held:
                with pytest.raises(UsageError, match="is still being trained by another process"):
                    lock_folder(path)
            with pytest.raises(TimeboxError):
                quick(data, run, overwrite=True)
            seen.append((name, len(held)))
            with monkeypatch.context() as patch:
                patch.setattr(module, name, real)
                return real(*given, **more)

        monkeypatch.setattr(module, name, watched)

    import timebox.jobs.job
    import timebox.jobs.run_job

    watch(timebox.jobs.job, "make_plan")
    watch(RunWriter, "save_model")
    watch(RunWriter, "finish")
    old = weights(quick(data, run))
    assert seen == [("make_plan", 1), ("save_model", 1), ("finish", 1)]
    watch(replacement, "_exchange_names")
    new = quick(data, run, seed=1, overwrite=True)
    assert seen[3:] == [("make_plan", 2), ("save_model", 2), ("finish", 2), ("_exchange_names", 2)]
    assert weights(new) != old
    assert names(tmp_path) == {"run"}
    lock_folder(run).close()


def test_a_resume_that_comes_while_the_run_is_finished_keeps_its_summary(
    stopped: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = RunWriter.finish

    def finish(self: RunWriter) -> None:
        assert refusal(stopped, data, resume=True) == in_use(stopped)
        real(self)

    monkeypatch.setattr(RunWriter, "finish", finish)
    run = train(resume=stopped)
    assert "stopped" not in summary(run)
    with pytest.raises(RunError, match="is finished: there is nothing to resume"):
        train(resume=stopped)
    assert "stopped" not in summary(run)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_the_lock_ends_with_the_training_however_that_ends(
    error: type[BaseException], data: Path, tmp_path: Path
) -> None:
    """Also in a process that goes on, such as a notebook, which may keep the error."""
    kept = None
    try:
        cut(6, error, quick, data, tmp_path / "run", STEPS)
    except ValueError as caught:
        kept = caught
    lock_folder(tmp_path / "run").close()
    assert train(resume=tmp_path / "run").summary["steps"] == STEPS
    assert (kept is None) == (error is KeyboardInterrupt)


def test_a_refused_resume_holds_nothing(stopped: Path) -> None:
    for _ in range(2):
        with pytest.raises(UsageError, match="counts steps: resume it without a budget"):
            train(resume=stopped, budget=60)
    lock_folder(stopped).close()


def test_a_run_that_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name, words in {"nowhere": "does not exist", "file": "is no directory"}.items():
        with pytest.raises(RunError) as caught:
            train(resume=tmp_path / name)
        assert str(caught.value) == f"run {str(tmp_path / name)!r} {words}"


@pytest.mark.parametrize("number", [errno.EBADF, errno.ENOTSUP])
def test_a_file_system_that_locks_no_directories(
    number: int, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On NFS, flock of a directory fails with EBADF: files are locked there, and hold the run."""
    import fcntl

    real = fcntl.flock

    def flock(descriptor: int, operation: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):  # noqa: PTH112
            raise OSError(number, os.strerror(number))
        real(descriptor, operation)

    monkeypatch.setattr("timebox.files.fcntl.flock", flock)
    run = tmp_path / "run"
    cut(6, KeyboardInterrupt, quick, data, run, STEPS)
    with locked_run(run) as folder:
        metrics = MetricsLog(folder, (run / "metrics.jsonl").stat().st_size)
        assert refusal(run, data) == in_use(run)
        assert refusal(run, data, resume=True) == in_use(run)
        metrics.close()
    quick(data, run, overwrite=True)
    assert names(run) == FILES


@pytest.fixture
def running(data: Path, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """A training in another process, with a checkpoint."""
    run = tmp_path / "live"
    command = [sys.executable, "-m", "timebox", "train", str(data), "--budget", "60s", "--recipe", "haet2021"]
    command += [word for setting in SMALL for word in ("--set", setting)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    process = subprocess.Popen(
        [*command, "--device", "cpu", "--out", str(run)], env=environment, stderr=subprocess.DEVNULL
    )
    for _ in range(400):
        if (run / "checkpoint" / "manifest.json").exists():
            break
        time.sleep(0.1)
    yield process, run
    process.kill()
    process.wait()


def test_another_process_that_trains_is_known(running: tuple[subprocess.Popen[bytes], Path], data: Path) -> None:
    """Also while it is stopped; its end, however it comes, frees the run."""
    process, run = running
    process.send_signal(signal.SIGSTOP)
    for resume in (False, True):
        assert refusal(run, data, resume=resume) == in_use(run)
    process.kill()
    process.wait()
    assert load(run).summary == {}
    quick(data, run, overwrite=True)
    assert json.loads((run / "summary.json").read_text())["steps"] == 6
