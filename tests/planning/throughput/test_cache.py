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
    cache.record("probe", 0.010)
    cache.record("network", 0.050)
    cache.save("bf16")
    return path


def test_nothing_is_known_at_first(path: Path) -> None:
    cache = ThroughputCache(path)
    cache.check("probe", pytest.fail)
    assert (cache.holds, cache.precision, cache.seconds("probe")) == (False, None, None)


def test_measurements_count_once_one_of_them_was_checked(filled: Path) -> None:
    cache = ThroughputCache(filled)
    assert cache.precision == "bf16"
    assert cache.seconds("network") is None, "not checked yet"
    cache.check("probe", lambda: 0.012)
    assert cache.holds
    assert cache.seconds("network") == pytest.approx(0.060), "the machine is a fifth slower today"
    assert cache.seconds("unknown") is None


@pytest.mark.parametrize("seconds", [0.005, 0.02])
def test_on_a_machine_that_has_changed_everything_is_forgotten(filled: Path, seconds: float) -> None:
    cache = ThroughputCache(filled)
    cache.check("probe", lambda: seconds)
    assert (cache.holds, cache.precision, cache.seconds("network")) == (False, None, None)
    cache.record("probe", seconds)
    cache.save("fp32")
    assert list(json.loads(filled.read_text())[machine_key()]["seconds"]) == ["probe"]


def test_a_slow_moment_is_not_remembered_as_the_speed_of_the_machine(filled: Path) -> None:
    cache = ThroughputCache(filled)
    cache.check("probe", lambda: 0.0125)
    cache.record("other", 0.125)
    cache.save(None)
    again = ThroughputCache(filled)
    again.check("probe", lambda: 0.010)
    assert again.seconds("other") == pytest.approx(0.1)
    assert again.precision == "bf16", "kept where only one precision was asked for"


def test_other_processors_and_instructions_have_their_own(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    plain = ThroughputCache(filled)
    assert plain.precision is None
    plain.record("probe", 1.0)
    plain.save("fp32")
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA")
    assert ThroughputCache(filled).precision == "bf16"
    assert len(json.loads(filled.read_text())) == 2


def test_the_file_stays_small(path: Path) -> None:
    cache = ThroughputCache(path)
    for number in range(MAX_MEASUREMENTS + 10):
        cache.record(str(number), 1.0)
    cache.record("0", 2.0)
    cache.save(None)
    kept = json.loads(path.read_text())[machine_key()]["seconds"]
    assert len(kept) == MAX_MEASUREMENTS
    assert "0" in kept and "1" not in kept, "the ones used last"


def test_machines_used_long_ago_are_forgotten(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(10):
        monkeypatch.setattr(module, "machine_key", lambda number=number: str(number))
        cache = ThroughputCache(path)
        cache.record("probe", 1.0)
        cache.save(None)
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
        b'{"a": {"precision": "int8"}}',
        b"\xff\xfe",
        b"[" * 100_000,
        b" " * (module.MAX_BYTES + 1),
    ],
)
def test_a_damaged_file_is_written_anew(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    cache = ThroughputCache(path)
    assert cache.precision is None
    cache.record("probe", 1.0)
    cache.save("fp32")
    assert ThroughputCache(path).precision == "fp32"


def test_a_pipe_in_its_place_is_not_waited_for(path: Path) -> None:
    path.parent.mkdir()
    os.mkfifo(path)
    assert ThroughputCache(path).precision is None


def test_where_nothing_can_be_written_nothing_is_said(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    cache = ThroughputCache(tmp_path / "file/measured/throughput.json")
    cache.record("probe", 1.0)
    cache.save("fp32")
    assert capfd.readouterr() == ("", "")


def test_without_a_folder_nothing_is_remembered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    cache = ThroughputCache(None)
    cache.record("probe", 1.0)
    cache.save("fp32")
    assert list(tmp_path.iterdir()) == []


def test_the_key_names_what_speed_depends_on() -> None:
    key = machine_key()
    assert str(torch.__version__) in key
    assert torch.backends.cpu.get_cpu_capability() in key
