"""The directory of a benchmark: no link in it is followed, and nothing of the user's in it is removed."""

import os
from importlib import import_module
from pathlib import Path

import pytest

from benchmarking.conftest import Measure, Trials
from cut_runs import STEPS, KilledError, cut
from small_runs import quick
from timebox.errors import OutputError, TimeboxError, UsageError
from timebox.files.folders import NOT_FOLLOWED
from timebox.run.directories.locks import locked_run

module = import_module("timebox.benchmarking.benchmark")


def test_trials_that_are_a_link_are_not_written(measure: Measure, tmp_path: Path) -> None:
    done = measure()
    mine = tmp_path / "mine"
    (done.path / "trials.jsonl").rename(mine)
    mine.write_text(f"{mine.read_text()}half a li")
    before = mine.read_bytes()
    (done.path / "trials.jsonl").symlink_to(mine)
    with pytest.raises(TimeboxError) as caught:
        measure(resume=done.path)
    assert str(caught.value) == f"{str(done.path / 'trials.jsonl')!r} cannot be written to: {NOT_FOLLOWED}"
    assert mine.read_bytes() == before


def test_trials_with_another_name_are_copied(measure: Measure, tmp_path: Path) -> None:
    done = measure()
    mine = tmp_path / "mine"
    os.link(done.path / "trials.jsonl", mine)
    mine.write_text(f"{mine.read_text()}half a li")
    measure(resume=done.path)
    assert mine.read_text().endswith("half a li")
    assert not (done.path / "trials.jsonl").read_text().endswith("half a li")


@pytest.mark.parametrize("name", ["summary.json", "recipes"])
def test_links_are_not_written_through(name: str, measure: Measure, tmp_path: Path, trials: Trials) -> None:
    done = measure()
    mine = tmp_path / "mine"
    place = done.path / name
    if place.is_dir():
        for file in place.iterdir():
            file.unlink()
        place.rmdir()
        mine.mkdir()
    else:
        place.unlink()
        mine.write_bytes(b"of the user")
    place.symlink_to(mine)
    (done.path / "trials.jsonl").unlink()
    if name == "recipes":
        with pytest.raises(TimeboxError) as caught:
            measure(resume=done.path)
        assert str(caught.value) == f"benchmark {str(done.path)!r} cannot be written to: {NOT_FOLLOWED}"
        assert not any(mine.iterdir())
    else:
        measure(resume=done.path)
        assert mine.read_bytes() == b"of the user"
        assert not place.is_symlink()


def test_only_runs_of_killed_trials_are_removed(measure: Measure, data: Path) -> None:
    done = measure()
    live, dead, photos, link = (done.path / f"in-flight-{name}" for name in ("1", "2", "photos", "3"))
    for run in (live, dead):
        cut(6, KeyboardInterrupt, quick, data, run, STEPS)
    photos.mkdir()
    (photos / "a.png").write_bytes(b"of the user")
    link.symlink_to(photos)
    with locked_run(live):
        measure(resume=done.path)
    assert not dead.exists()
    assert (live / "checkpoint").exists()
    assert (photos / "a.png").exists()
    assert link.is_symlink()


def test_a_benchmark_without_a_trial_leaves_a_file_that_came_in(
    measure: Measure, trials: Trials, tmp_path: Path
) -> None:
    out = tmp_path / "bench"

    def add_and_die(*given: object, **more: object) -> None:
        (out / "a.png").write_bytes(b"of the user")
        raise KilledError

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KilledError):
        patch.setattr(module, "run_trial", add_and_die)
        measure(out=out)
    assert [path.name for path in out.iterdir()] == ["a.png"]


def test_a_directory_that_another_benchmark_takes_meanwhile(
    measure: Measure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both have found it empty; the second one changes nothing."""
    done = measure(out=tmp_path / "bench")
    before = (done.path / "benchmark.json").read_bytes()
    monkeypatch.setattr("timebox.benchmarking.directory.check_free", lambda *given: None)
    monkeypatch.setattr(module, "check_free", lambda *given: None)
    with pytest.raises(UsageError) as caught:
        measure(out=tmp_path / "bench", seeds=2)
    assert str(caught.value) == f"benchmark {str(done.path)!r} is being written by another process"
    assert (done.path / "benchmark.json").read_bytes() == before


def test_benchmarks_of_the_same_second(measure: Measure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("timebox.run.directories.output.time.strftime", lambda form: "now")
    names = [measure(out=None).path.name for _ in range(2)]
    assert names[1] == f"{names[0]}-2"


def test_trials_that_could_not_be_read_again_are_not_written(
    measure: Measure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("timebox.benchmarking.directory._MAX_BYTES", 100)
    with pytest.raises(OutputError, match=r"trials\.jsonl' would have over 100 bytes: begin another benchmark$"):
        measure()
