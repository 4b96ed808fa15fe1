"""What a run directory says of the processes that train it."""

import json
from pathlib import Path

import pytest

from timebox.distributed.heartbeat import RankInfo
from timebox.run.ranks_file import launcher_id, new_ranks_record, read_ranks_record, record_rank_failures, restarted_run

MEMBERS = [RankInfo(rank, "here", 100 + rank, 1.0, "cpu", 1) for rank in range(2)]


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    record = new_ranks_record(MEMBERS, 5.0).with_lost(["rank 1 on here: it does not answer"])
    record.save(tmp_path)
    assert read_ranks_record(tmp_path) == record


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"launcher": 1, "started_at": 2.0, "members": [], "lost": []}'])
def test_what_is_no_record_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "group.json").write_text(text)
    assert read_ranks_record(tmp_path) is None
    assert read_ranks_record(tmp_path / "nowhere") is None


def test_a_run_is_found_by_the_launcher_that_began_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("photos-1", "photos-2", "photos-3"):
        (tmp_path / "runs" / name).mkdir(parents=True)
    new_ranks_record(MEMBERS, 5.0).save(tmp_path / "runs" / "photos-2")
    (tmp_path / "runs" / "photos-3" / "group.json").write_text(
        (tmp_path / "runs" / "photos-2" / "group.json").read_text().replace(launcher_id(), "another:1:2.0")
    )
    assert restarted_run(None) == Path("runs/photos-2")
    assert restarted_run(Path("runs/photos-2")) == Path("runs/photos-2")
    assert restarted_run(Path("runs/photos-3")) is None


def test_a_run_that_was_to_replace_another_is_found_beside_it(tmp_path: Path) -> None:
    beside = tmp_path / ".run.new-abc"
    beside.mkdir()
    new_ranks_record(MEMBERS, 5.0).save(beside)
    assert restarted_run(tmp_path / "run") == beside


def test_those_who_are_left_say_who_is_lost(tmp_path: Path) -> None:
    new_ranks_record(MEMBERS, 5.0).save(tmp_path)
    record_rank_failures(tmp_path, ["rank 0 on here: it does not answer"])
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary == {"format": 1, "stopped": True, "lost_ranks": ["rank 0 on here: it does not answer"]}
    (tmp_path / "summary.json").write_text('{"stopped": true, "late": false}')
    record_rank_failures(tmp_path, ["rank 1 on here: it does not answer"])
    both = ["rank 0 on here: it does not answer", "rank 1 on here: it does not answer"]
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary == {"format": 1, "stopped": True, "late": False, "lost_ranks": both}
    record = read_ranks_record(tmp_path)
    assert record is not None
    assert list(record.lost) == both
    (tmp_path / "summary.json").write_text('{"late": false}')
    record_rank_failures(tmp_path, ["rank 1 on here: it does not answer"])
    assert (tmp_path / "summary.json").read_text() == '{"late": false}', "a finished run stays as it is"


def test_a_directory_without_a_record_is_left_alone(tmp_path: Path) -> None:
    record_rank_failures(tmp_path, ["rank 0 on here: it does not answer"])
    assert not any(tmp_path.iterdir())
