"""The throughput cache: what one run measured counts for the next, while the machine is as it was."""

import json
import os
from pathlib import Path

import pytest
import torch

from timebox.planning.throughput import cache as module
from timebox.planning.throughput.cache import MAX_MEASUREMENTS, ThroughputCache, machine_key


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "measured/throughput.json"


@pytest.fixture
def filled(path: Path) -> Path:
    cache = ThroughputCache(path)
    cache.check("probe", 0.010)
    cache.record("network", 0.050)
    cache.record_precision("network", "bf16")
    cache.save()
    return path


def test_nothing_is_known_at_first(path: Path) -> None:
    cache = ThroughputCache(path)
    cache.check("probe", 0.010)
    assert (cache.holds, cache.precision("network"), cache.seconds("probe")) == (False, None, None)


def test_measurements_count_once_one_of_them_was_checked(filled: Path) -> None:
    cache = ThroughputCache(filled)
    assert cache.precision("network") == "bf16"
    assert cache.seconds("network") is None, "not checked yet"
    cache.check("probe", 0.012)
    assert cache.holds
    assert cache.seconds("network") == pytest.approx(0.060), "the machine is a fifth slower today"
    assert (cache.seconds("unknown"), cache.precision("unknown")) == (None, None)


@pytest.mark.parametrize("seconds", [0.005, 0.02])
def test_on_a_machine_that_has_changed_everything_is_forgotten(filled: Path, seconds: float) -> None:
    cache = ThroughputCache(filled)
    cache.check("probe", seconds)
    assert (cache.holds, cache.precision("network"), cache.seconds("network")) == (False, None, None)
    cache.save()
    again = ThroughputCache(filled)
    again.check("probe", seconds)
    assert (again.holds, again.seconds("network")) == (True, None)


def test_a_slow_moment_is_not_remembered_as_the_speed_of_the_machine(filled: Path) -> None:
    cache = ThroughputCache(filled)
    cache.check("probe", 0.0125)
    cache.record("other", 0.125)
    cache.save()
    again = ThroughputCache(filled)
    again.check("probe", 0.010)
    assert again.seconds("other") == pytest.approx(0.1)
    assert again.precision("network") == "bf16"


def test_an_unknown_network_checks_nothing_and_drops_nothing(filled: Path) -> None:
    cache = ThroughputCache(filled)
    cache.check("another probe", 1.0)
    assert not cache.holds
    cache.save()
    again = ThroughputCache(filled)
    again.check("probe", 0.010)
    assert again.seconds("network") == pytest.approx(0.050)


def test_nothing_is_written_where_nothing_is_new(filled: Path) -> None:
    before = filled.stat()
    cache = ThroughputCache(filled)
    cache.check("probe", 0.010)
    cache.record_precision("network", "bf16")
    cache.save()
    assert filled.stat().st_ino == before.st_ino


def test_other_processors_and_instructions_have_their_own(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    plain = ThroughputCache(filled)
    assert plain.precision("network") is None
    plain.record("network", 1.0)
    plain.save()
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA")
    assert ThroughputCache(filled).precision("network") == "bf16"
    assert len(json.loads(filled.read_text())) == 2


def test_the_file_stays_small(path: Path) -> None:
    cache = ThroughputCache(path)
    for number in range(MAX_MEASUREMENTS + 10):
        cache.record(str(number), 1.0)
    cache.record("0", 2.0)
    cache.save()
    kept = json.loads(path.read_text())[machine_key()]["seconds"]
    assert len(kept) == MAX_MEASUREMENTS
    assert "0" in kept and "1" not in kept, "the ones measured last"


def test_machines_used_long_ago_are_forgotten(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(10):
        monkeypatch.setattr(module, "machine_key", lambda number=number: str(number))
        cache = ThroughputCache(path)
        cache.record("probe", 1.0)
        cache.save()
    assert list(json.loads(path.read_text())) == [str(number) for number in range(2, 10)]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{",
        b'{"a": 1}',
        b'{"a": {"seconds": {"probe": -1}}}',
        b'{"a": {"seconds": {"probe": 1e400}}}',
        b'{"a": {"precisions": {"network": "fp16"}}}',
        b'{"a": {"checks": {"network": 0}}}',
        b"\xff\xfe",
        b"[" * 100_000,
        b" " * (module.MAX_BYTES + 1),
    ],
)
def test_a_damaged_file_is_written_anew(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    cache = ThroughputCache(path)
    assert cache.precision("network") is None
    cache.record_precision("network", "fp32")
    cache.save()
    assert ThroughputCache(path).precision("network") == "fp32"


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="this system has no owners of files")
@pytest.mark.parametrize("place", ["file", "folder", "owner", "link"])
def test_a_file_that_others_may_have_written_is_not_used(
    filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    if place == "file":
        filled.chmod(0o666)
    elif place == "folder":
        filled.parent.chmod(0o777)
    elif place == "owner":
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
    else:
        filled.rename(tmp_path / "elsewhere")
        filled.symlink_to(tmp_path / "elsewhere")
    assert ThroughputCache(filled).precision("network") is None


def test_a_pipe_in_its_place_is_not_waited_for(path: Path) -> None:
    path.parent.mkdir()
    os.mkfifo(path)
    assert ThroughputCache(path).precision("network") is None


def test_where_nothing_can_be_written_nothing_is_said(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    cache = ThroughputCache(tmp_path / "file/measured/throughput.json")
    cache.record("probe", 1.0)
    cache.save()
    assert capfd.readouterr() == ("", "")


def test_without_a_folder_nothing_is_remembered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    cache = ThroughputCache(None)
    cache.record("probe", 1.0)
    cache.save()
    assert list(tmp_path.iterdir()) == []


def test_the_key_names_what_speed_depends_on() -> None:
    key = machine_key()
    assert str(torch.__version__) in key
    assert torch.backends.cpu.get_cpu_capability() in key
