"""RunWriter: directories that are refused, runs that are replaced, and the files that failures leave."""

import sys
from pathlib import Path

import numpy as np
import pytest

from small_runs import FILES, SMALL, Listing, UnforeseenError, coloured, fail, quick, weights
from timebox.errors import OutputError, TimeboxError, UsageError
from timebox.files.folders import Folder
from timebox.pipelines import train
from timebox.run import load
from timebox.run.writer import RunWriter
from timebox.runtime.write_speed import BYTES_MARGIN, SMALL_BYTES, WriteTime


def test_a_directory_that_holds_something_is_refused(data: Path, tmp_path: Path, files_under: Listing) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "letter.txt").write_text("dear diary")
    with pytest.raises(UsageError) as caught:
        quick(data, out)
    assert str(caught.value) == (
        f"output directory {str(out)!r} is not empty; give another, or overwrite=True to replace a run"
    )
    with pytest.raises(UsageError) as caught:
        quick(data, out, overwrite=True)
    assert str(caught.value) == (
        f"output directory {str(out)!r} holds something that is no timebox run; it is not overwritten"
    )
    assert files_under() == ["out", "out/letter.txt"]


def test_a_run_killed_before_its_first_checkpoint_can_be_overwritten(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "checkpoint").mkdir(parents=True)
    for name in ("metrics.jsonl", "trained_on.npy", ".model.json.tmp"):
        (out / name).write_bytes(b"")
    quick(data, out, overwrite=True)
    assert {path.name for path in out.iterdir()} == FILES


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux exchanges two names at once")
def test_a_run_is_replaced_in_one_instant(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two calls of rename would leave a moment without a run: rename is not called."""
    out = tmp_path / "out"
    old = weights(quick(data, out))
    monkeypatch.setattr(Path, "rename", fail)
    assert weights(quick(data, out, seed=1, overwrite=True)) != old
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_output_that_is_a_file_or_lies_under_one(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.write_text("a file")
    with pytest.raises(UsageError) as caught:
        quick(data, out, overwrite=True)
    assert str(caught.value) == f"output {str(out)!r} is a file; give a directory that is new or empty"
    with pytest.raises(OutputError, match=r"^output directory '.*/out/run' cannot be written to: "):
        quick(data, out / "run")
    assert out.read_text() == "a file"


def test_an_empty_directory_is_filled(data: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert {path.name for path in quick(data, tmp_path / "out").path.iterdir()} == FILES


def test_overwriting_replaces_a_run_whole(data: Path, tmp_path: Path, files_under: Listing) -> None:
    out = tmp_path / "out"
    old = weights(quick(data, out, seed=1))
    (out / "report.html").write_text("of the old run")
    out.chmod(0o755)
    run = quick(data, out, seed=2, overwrite=True)
    assert run.path == out
    assert weights(run) != old
    assert weights(run) == weights(load(out))
    assert files_under() == ["out", *sorted(f"out/{name}" for name in FILES)]
    assert out.stat().st_mode & 0o777 == 0o755


def test_a_failed_training_leaves_an_old_run_as_it_was(
    data: Path, tmp_path: Path, files_under: Listing, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    run = quick(data, out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    monkeypatch.setattr("timebox.jobs.fit.train_model", fail)
    with pytest.raises(UnforeseenError):
        quick(data, out, seed=5, overwrite=True)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert files_under() == ["out", *sorted(f"out/{name}" for name in FILES)]
    assert len(run.predict(coloured(2)[0])) == 2


@pytest.mark.parametrize("empty_directory", [False, True])
@pytest.mark.parametrize("moment", ["planning", "training"])
def test_a_failure_before_the_first_checkpoint_leaves_nothing(
    moment: str,
    empty_directory: bool,
    data: Path,
    tmp_path: Path,
    files_under: Listing,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if empty_directory:
        (tmp_path / "out").mkdir()
    functions = {"planning": "timebox.jobs.job.make_plan", "training": "timebox.jobs.fit.train_model"}
    monkeypatch.setattr(functions[moment], fail)
    with pytest.raises(UnforeseenError):
        quick(data, tmp_path / "out")
    assert files_under() == (["out"] if empty_directory else [])


def test_the_checkpoint_stays_where_the_final_model_cannot_be_written(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("timebox.run.writer.to_safetensors", fail)
    with pytest.raises(UnforeseenError):
        quick(data, tmp_path / "out")
    run = load(tmp_path / "out")
    assert run.summary == {}
    assert run.checkpoint().step >= 1
    assert len(run.predict(coloured(2)[0])) == 2


def test_a_training_that_keeps_diverging_leaves_its_last_good_state(data: Path, tmp_path: Path) -> None:
    settings = [*SMALL, "max_lr=100", "policy=constant", "logit_scale=10", "bias_lr_multiplier=1000"]
    with pytest.raises(TimeboxError, match=r"^the loss became \w+ at a learning rate of 1.56 at step \d+, and again "):
        quick(data, tmp_path / "out", steps=200, settings=settings)
    assert all(bool(tensor.isfinite().all()) for tensor in load(tmp_path / "out").model.state_dict().values())


def test_a_failure_after_the_model_was_saved_keeps_it(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("timebox.jobs.finishing.finisher.score_held_out", fail)
    with pytest.raises(UnforeseenError):
        quick(data, tmp_path / "out")
    run = load(tmp_path / "out")
    assert run.summary == {}
    assert (run.val_accuracy, run.test_accuracy) == (None, None)
    assert len(run.predict(coloured(3)[0])) == 3


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = RunWriter.new(tmp_path / "out", overwrite=False)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("timebox.files.folders.os.fsync", full)
    with pytest.raises(OutputError) as caught:
        writer.save_training_hashes(np.zeros(3, np.uint64))
    assert str(caught.value) == (
        f"trained_on.npy cannot be written in {str(tmp_path / 'out')!r}: No space left on device"
    )
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["metrics.jsonl"]
    writer.close_unfinished()
    assert list(tmp_path.iterdir()) == []


def test_seconds_per_byte_are_measured_once_and_only_for_large_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []

    def slowly(folder: Folder, name: str, content: bytes) -> None:
        assert (folder.path.name, name) == ("checkpoint", "probe")
        written.append(len(content))
        moments.append(moments[-1] + (4.0 if len(written) == 2 else 30.0))

    moments = [0.0]
    monkeypatch.setattr("timebox.run.writer.now", lambda: moments[-1])
    monkeypatch.setattr(Folder, "write_durably", slowly)
    writer = RunWriter.new(tmp_path / "run", overwrite=False)
    writer.write_time = WriteTime(lambda: 0.0, 0.5)
    assert writer.write_speed.expected_seconds(3, SMALL_BYTES) == 1.5
    assert written == []
    for _ in range(2):
        assert writer.write_speed.expected_seconds(3, 5 * SMALL_BYTES) == 1.5 + 5 * 4.0
        assert writer.write_speed.planned_seconds(0, 5 * SMALL_BYTES) == BYTES_MARGIN * 5 * 4.0
    assert written == [pytest.approx(SMALL_BYTES, rel=0.01)] * 2, "the faster of two"
    assert not writer.can_be_loaded
    assert not writer.close_unfinished()
    assert not (tmp_path / "run").exists()


def test_writes_of_large_files_do_not_count_as_those_of_small_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moments = iter([0.0, 0.25, 1.0])
    monkeypatch.setattr("timebox.run.writer.now", lambda: next(moments))
    writer = RunWriter.new(tmp_path / "run", overwrite=False)
    writer.save_report("small")
    assert writer.write_time.seconds == 0.25
    writer.save_report("large" * (SMALL_BYTES // 4))
    assert writer.write_time.seconds == 0.25


def test_a_failed_measurement_of_the_write_speed_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(folder: Folder, name: str, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Folder, "write_durably", full)
    writer = RunWriter.new(tmp_path / "run", overwrite=False)
    assert 0.0 <= writer.write_speed.expected_seconds(0, 2 * SMALL_BYTES) < 1.0


def test_the_default_directory_is_named_after_data_and_time(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = train(data, steps=2, recipe="haet2021", settings=SMALL, device="cpu")
    assert run.path.parent == Path("runs")
    assert run.path.name.startswith("colours-20")
