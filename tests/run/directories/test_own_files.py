"""Only what timebox has written counts as a run, and only that is removed."""

import json
import os
import shutil
from pathlib import Path

import pytest

from cut_runs import STEPS, KilledError, cut
from golden.conftest import VERSIONS, unpack
from small_runs import FILES, quick, weights
from timebox.errors import RunError, UsageError
from timebox.exporting.export import SUFFIXES
from timebox.files.folders import NOT_FOLLOWED, Folder
from timebox.pipelines import train
from timebox.run import load
from timebox.run.checkpoint import read_checkpoint
from timebox.run.directories.locks import remove_run
from timebox.run.directories.own_files import RUN_FILES, foreign_entry, is_run, remove_checkpoint


def refused(out: Path, data: Path) -> str:
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(UsageError) as caught:
        quick(data, out, overwrite=True)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    return str(caught.value)


NO_RUN = {
    "an empty model.json": {"model.json": b"{}"},
    "a model.json of Keras": {"model.json": b'{"class_name": "Sequential", "config": {"layers": []}}'},
    "a model.json that is no JSON": {"model.json": b"\x89PNG"},
    "a model.json of a newer version": {"model.json": b'{"format": 99}'},
    "any summary.json": {"summary.json": b'{"accuracy": 0.5}'},
    "a summary.json that says stopped": {"summary.json": b'{"format": 2, "stopped": true}'},
    "metrics of another program": {"metrics.jsonl": b'{"loss": 1.0, "step": 1}\n'},
    "metrics that are no JSON": {"metrics.jsonl": b"step,loss\n1,2\n"},
    "metrics without a line": {"metrics.jsonl": b"my notes"},
    "empty metrics beside an array": {"metrics.jsonl": b"", "trained_on.npy": b"my numbers"},
    "empty metrics beside a summary": {"metrics.jsonl": b"", "summary.json": b'{"mine": 1}'},
    "a search": {"tune.json": b"{}", "summary.json": b"{}", "trials.jsonl": b""},
    "a photo": {"holiday.png": b"\x89PNG"},
}


@pytest.mark.parametrize("kind", NO_RUN)
def test_a_folder_that_is_no_run_is_not_overwritten(kind: str, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "mine"
    out.mkdir()
    for name, content in NO_RUN[kind].items():
        (out / name).write_bytes(content)
    assert refused(out, data) == (
        f"output directory {str(out)!r} holds something that is no timebox run; it is not overwritten"
    )


@pytest.mark.parametrize(
    "name",
    [
        "holiday.png", ".DS_Store", "notes/today.txt", "checkpoint/holiday.png", "model.json.bak", ".model.json.swp",
        "checkpoint/000000007.safetensors", ".holiday.png.tmp", "summary.json/holiday.png", "final/model.json",
    ],
)  # fmt: skip
def test_a_run_that_holds_a_file_of_the_user_is_not_overwritten(name: str, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    quick(data, out)
    file = out / name
    if name.startswith("summary.json"):
        (out / "summary.json").unlink()
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(b"of the user")
    named = name if name.startswith("checkpoint") else name.partition("/")[0]
    assert refused(out, data) == (
        f"output directory {str(out)!r} holds {named!r}, which timebox has not written; it is not overwritten: "
        "move that elsewhere, or give another directory"
    )
    assert not remove_run(out)
    assert file.read_bytes() == b"of the user"


@pytest.mark.parametrize("name", ["report.html", "checkpoint", "metrics.jsonl"])
def test_a_link_is_not_ours_whatever_its_name(name: str, data: Path, tmp_path: Path) -> None:
    out, mine = tmp_path / "run", tmp_path / "mine"
    quick(data, out)
    mine.mkdir()
    (mine / "holiday.png").write_bytes(b"of the user")
    (out / name).unlink(missing_ok=True)
    (out / name).symlink_to(mine)
    assert f"holds {name!r}, which timebox has not written" in refused(out, data)
    assert (mine / "holiday.png").exists()


def test_what_other_commands_write_into_a_run_is_ours(data: Path, tmp_path: Path) -> None:
    assert {f"model{suffix}" for suffix in SUFFIXES.values()} <= RUN_FILES
    out = tmp_path / "run"
    quick(data, out)
    for name in ("model.onnx", "model.pt2", "estimator.json", "classes.npy", ".report.html.0123456789abcdef.tmp"):
        (out / name).write_bytes(b"")
    quick(data, out, overwrite=True)
    assert {path.name for path in out.iterdir()} == FILES


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", ["auto", "killed", "stopped", "launched", "estimator", "unscored"])
def test_runs_of_every_version_can_be_replaced(version: str, name: str, data: Path, tmp_path: Path) -> None:
    out = unpack(version, name, tmp_path)
    with Folder(out) as folder:
        assert is_run(folder)
        assert foreign_entry(folder) is None
    quick(data, out, overwrite=True)
    assert {path.name for path in out.iterdir()} == FILES
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_run_killed_at_any_time_can_be_replaced(data: Path, tmp_path: Path) -> None:
    """Before its first checkpoint, and after a worker rank has recorded that the main rank died."""
    out = tmp_path / "run"
    out.mkdir()
    (out / "metrics.jsonl").write_text('{"format": 1}\n')
    (out / "group.json").write_text("{}")
    (out / "summary.json").write_text(json.dumps({"format": 2, "stopped": True, "rank_failures": []}))
    (out / "checkpoint").mkdir()
    (out / "checkpoint" / "probe").write_bytes(b"0")
    (out / "checkpoint" / ".probe.0123456789abcdef.tmp").write_bytes(b"0")
    quick(data, out, overwrite=True)
    assert {path.name for path in out.iterdir()} == FILES


@pytest.fixture
def stopped(data: Path, tmp_path: Path) -> Path:
    """A run that was killed after its first checkpoint."""
    run: Path = tmp_path / "run"
    cut(6, KeyboardInterrupt, quick, data, run, STEPS)
    return run


LINKS = (
    "metrics.jsonl", "summary.json", "model.json", "trained_on.npy", "report.html", "predictions.npz", "examples.npz",
    "group.json", "model.safetensors", "checkpoint", "checkpoint/manifest.json",
)  # fmt: skip


@pytest.mark.parametrize("name", LINKS)
def test_a_run_with_a_link_is_not_resumed(name: str, stopped: Path, tmp_path: Path) -> None:
    mine, link = tmp_path / "mine", stopped / name
    if link.exists():
        link.rename(mine)
    else:
        mine.write_bytes(b"of the user")
    link.symlink_to(mine)
    before = {path: path.read_bytes() for path in (mine, *mine.rglob("*")) if path.is_file()}
    with pytest.raises(RunError) as caught:
        train(resume=stopped)
    reason = NOT_FOLLOWED.replace("the file", "the directory") if mine.is_dir() else NOT_FOLLOWED
    assert str(caught.value) in (
        f"{str(link)!r} cannot be used: {reason}",
        f"{str(link)!r} cannot be read: {reason}",
    )
    assert {path: path.read_bytes() for path in (mine, *mine.rglob("*")) if path.is_file()} == before
    assert link.is_symlink()


@pytest.mark.parametrize("name", ["model.safetensors", "model.json", "summary.json"])
def test_a_finished_run_with_a_link_is_not_read(name: str, data: Path, tmp_path: Path) -> None:
    run = quick(data, tmp_path / "run").path
    (run / name).rename(tmp_path / "mine")
    (run / name).symlink_to(tmp_path / "mine")
    with pytest.raises(RunError) as caught:
        _ = load(run).summary
    assert str(caught.value) == f"{str(run / name)!r} cannot be read: {NOT_FOLLOWED}"


def test_links_under_temporary_names_are_left_alone(stopped: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.write_bytes(b"of the user")
    places = [stopped / f".{name}.tmp" for name in ("summary.json", "model.safetensors", "report.html")]
    places.append(stopped / "checkpoint" / ".manifest.json.tmp")
    for place in places:
        place.symlink_to(mine)
    train(resume=stopped)
    assert mine.read_bytes() == b"of the user"
    assert all(place.is_symlink() for place in places)


def test_metrics_with_another_name_are_copied_before_they_are_cut(stopped: Path, tmp_path: Path) -> None:
    backup = tmp_path / "backup.jsonl"
    os.link(stopped / "metrics.jsonl", backup)
    before = backup.read_bytes()
    train(resume=stopped)
    assert backup.read_bytes() == before
    assert (stopped / "metrics.jsonl").read_bytes() != before


def test_a_file_of_the_user_in_the_checkpoint_stays(stopped: Path, data: Path) -> None:
    (stopped / "checkpoint" / "holiday.png").write_bytes(b"of the user")
    train(resume=stopped)
    assert [path.name for path in (stopped / "checkpoint").iterdir()] == ["holiday.png"]


@pytest.mark.parametrize("num_removed", [1, 2])
def test_a_kill_while_a_checkpoint_is_removed_leaves_none_that_is_damaged(
    stopped: Path, monkeypatch: pytest.MonkeyPatch, num_removed: int
) -> None:
    """The listing gives the tensors first."""
    (stopped / "checkpoint/000000001-00000000.safetensors").write_bytes(b"left by a process that was killed")
    left, remove, names = [num_removed], Folder.remove, Folder.names

    def remove_and_die(self: Folder, name: str) -> None:
        if not left[0]:
            raise KilledError
        left[0] -= 1
        remove(self, name)

    monkeypatch.setattr(Folder, "names", lambda self: sorted(names(self)))
    monkeypatch.setattr(Folder, "remove", remove_and_die)
    with pytest.raises(KilledError), Folder(stopped) as folder:
        remove_checkpoint(folder)
    assert list((stopped / "checkpoint").iterdir()) != []
    assert read_checkpoint(stopped / "checkpoint") is None


def test_unfinished_files_of_a_killed_process_are_cleared_away(stopped: Path) -> None:
    left = stopped / ".report.html.0123456789abcdef.tmp"
    left.write_bytes(b"<html")
    train(resume=stopped)
    assert {path.name for path in stopped.iterdir()} == FILES


def test_a_failed_training_leaves_a_file_that_came_in(data: Path, tmp_path: Path) -> None:
    def add_and_die(*given: object, **more: object) -> None:
        (tmp_path / "run" / "holiday.png").write_bytes(b"of the user")
        raise KilledError

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KilledError):
        patch.setattr("timebox.jobs.fit.train_model", add_and_die)
        quick(data, tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["holiday.png"]


def test_a_run_is_removed_whole(data: Path, tmp_path: Path) -> None:
    run = quick(data, tmp_path / "run").path
    shutil.copytree(run, tmp_path / "copy")
    (tmp_path / "link").symlink_to(tmp_path / "copy")
    assert not remove_run(tmp_path / "link")
    assert remove_run(tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    assert weights(load(run))
