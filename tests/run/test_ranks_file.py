"""group.json: the processes that train a run, and rank failures."""

import json
from pathlib import Path

import pytest

from timebox.distributed.heartbeat import RankInfo
from timebox.errors import RunError
from timebox.files.folders import Folder
from timebox.run.directories.replacement import make_beside
from timebox.run.ranks_file import (
    RanksRecord,
    find_run_of_launcher,
    launcher_id,
    read_ranks_record,
    record_rank_failures,
)

RANKS = [RankInfo(rank, "here", 100 + rank, 1.0, "cpu", 1) for rank in range(2)]


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    record = RanksRecord.new(RANKS, 5.0).with_failures(["rank 1 on here: it does not answer"])
    record.save(tmp_path)
    assert read_ranks_record(tmp_path) == record


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[1]",
        '{"launcher": 1, "started_at": 2.0, "members": [], "lost": []}',
        '{"format": 2, "launcher": "a", "ranks": []}',
    ],
)
def test_a_damaged_record_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "group.json").write_text(text)
    with pytest.raises(RunError, match=r"group\.json' (is damaged|cannot be read): "):
        read_ranks_record(tmp_path)
    assert read_ranks_record(tmp_path / "nowhere") is None


def test_a_launcher_finds_the_run_that_it_began(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("photos-1", "photos-2", "photos-3"):
        (tmp_path / "runs" / name).mkdir(parents=True)
    RanksRecord.new(RANKS, 5.0).save(tmp_path / "runs" / "photos-2")
    (tmp_path / "runs" / "photos-3" / "group.json").write_text(
        (tmp_path / "runs" / "photos-2" / "group.json").read_text().replace(launcher_id(), "another:1:2.0")
    )
    assert find_run_of_launcher(None) == Path("runs/photos-2")
    assert find_run_of_launcher(Path("runs/photos-2")) == Path("runs/photos-2")
    assert find_run_of_launcher(Path("runs/photos-3")) is None


def test_an_unfinished_replacement_of_a_run_is_found(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with Folder(tmp_path / "run") as run, make_beside(tmp_path / "run", run) as beside:
        RanksRecord.new(RANKS, 5.0).save(beside.path)
    assert find_run_of_launcher(tmp_path / "run") == beside.path


def test_a_directory_that_is_named_like_a_replacement_is_none(tmp_path: Path) -> None:
    beside = tmp_path / ".run.new-0123456789abcdef"
    beside.mkdir()
    RanksRecord.new(RANKS, 5.0).save(beside)
    assert find_run_of_launcher(tmp_path / "run") is None


def test_rank_failures_are_recorded_in_both_files(tmp_path: Path) -> None:
    RanksRecord.new(RANKS, 5.0).save(tmp_path)
    record_rank_failures(tmp_path, ["rank 0 on here: it does not answer"])
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary == {"format": 2, "stopped": True, "rank_failures": ["rank 0 on here: it does not answer"]}
    (tmp_path / "summary.json").write_text('{"stopped": true, "late": false}')
    record_rank_failures(tmp_path, ["rank 1 on here: it does not answer"])
    both = ["rank 0 on here: it does not answer", "rank 1 on here: it does not answer"]
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary == {"format": 2, "stopped": True, "late": False, "rank_failures": both}
    record = read_ranks_record(tmp_path)
    assert record is not None
    assert list(record.failures) == both
    (tmp_path / "summary.json").write_text('{"late": false}')
    record_rank_failures(tmp_path, ["rank 1 on here: it does not answer"])
    assert (tmp_path / "summary.json").read_text() == '{"late": false}', "a finished run stays as it is"


def test_a_directory_without_a_record_is_left_alone(tmp_path: Path) -> None:
    record_rank_failures(tmp_path, ["rank 0 on here: it does not answer"])
    assert not any(tmp_path.iterdir())
