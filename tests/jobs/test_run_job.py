"""Failures while a run is finished: complete files stay complete."""

import errno
import os
import shutil
from pathlib import Path

import pytest

from cut_runs import STEPS, cut, names, summary
from small_runs import FILES, quick, weights
from timebox.errors import OutputError
from timebox.files.folders import Folder
from timebox.pipelines import train
from timebox.run import load
from timebox.run import writer as writer_module
from timebox.run.directories import replacement
from timebox.run.metrics_log import MetricsLog
from timebox.run.writer import RunWriter


def test_an_interrupt_while_the_checkpoint_is_removed_leaves_the_complete_run(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*rest: object, **more: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(writer_module, "remove_checkpoint", interrupted)
        run = quick(data, tmp_path / "run")
    assert "stopped" not in summary(run)
    assert run.val_accuracy is not None
    assert weights(run) == weights(load(tmp_path / "run"))


def test_a_directory_that_cannot_be_replaced_is_an_output_error(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*rest: object) -> Path:
        raise OSError(errno.EACCES, "Permission denied")

    old = quick(data, tmp_path / "run")
    before = weights(old)
    monkeypatch.setattr(replacement, "_exchange", refused)
    with pytest.raises(OutputError, match=r"run' cannot be replaced: Permission denied$"):
        quick(data, tmp_path / "run", seed=4, overwrite=True)
    assert weights(load(tmp_path / "run")) == before


def test_a_stopped_replacement_replaces_the_run_when_resumed(data: Path, tmp_path: Path) -> None:
    quick(data, tmp_path / "run", steps=2)
    other = quick(data, tmp_path / "other", steps=STEPS, seed=4)
    stopped = cut(6, KeyboardInterrupt, quick, data, tmp_path / "run", STEPS, seed=4, overwrite=True)
    assert stopped.path.name.startswith(".run.new-")
    resumed = train(resume=stopped.path)
    assert resumed.path == tmp_path / "run"
    assert weights(resumed) == weights(other)
    assert names(tmp_path) == {"run", "other"}
    assert names(tmp_path / "run") == FILES


def test_a_stopped_replacement_is_resumed_where_the_run_is_gone(data: Path, tmp_path: Path) -> None:
    quick(data, tmp_path / "run", steps=2)
    stopped = cut(6, KeyboardInterrupt, quick, data, tmp_path / "run", STEPS, overwrite=True)
    shutil.rmtree(tmp_path / "run")
    assert train(resume=stopped.path).path == tmp_path / "run"
    assert names(tmp_path) == {"run"}


def test_the_summary_is_written_without_predictions(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*rest: object) -> None:
        raise OutputError("predictions.npz cannot be written: No space left on device")

    monkeypatch.setattr(RunWriter, "save_predictions", full)
    run = quick(data, tmp_path / "run")
    assert summary(run)["unwritten"] == ["predictions.npz"]
    assert run.val_accuracy is not None


def test_a_directory_whose_checkpoint_is_damaged_is_not_removed(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = RunWriter.new(tmp_path / "run", overwrite=False)
    (writer.path / "checkpoint").mkdir()
    (writer.path / "checkpoint" / "manifest.json").write_text("{}")
    assert writer.close_unfinished()
    assert (tmp_path / "run" / "checkpoint").is_dir()


def test_a_metrics_log_closes_its_file_once(tmp_path: Path) -> None:
    metrics = MetricsLog(Folder(tmp_path))
    metrics.close()
    reused = os.open(tmp_path / "other", os.O_CREAT | os.O_WRONLY)
    metrics.close()
    assert os.write(reused, b"still open") == 10
    metrics.add({"step": 1})
    with pytest.raises(OSError, match="Bad file descriptor"):
        metrics.flush()
    os.close(reused)
