"""Checkpoints on disk: the last complete one can be read, also after a kill while the next is written."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from timebox.errors import RunError
from timebox.files.folders import Folder
from timebox.run import checkpoint as checkpoints
from timebox.run.checkpoint import MANIFEST, Checkpoint, read_checkpoint, write_checkpoint
from timebox.training.state import Snapshot

FACTS = {"lr_factor": 0.5, "phases": {"reading": 1.25}, "lines": 12}


def snapshot(step: int, value: float = 1.0) -> Snapshot:
    tensors = {
        "model.weight": torch.full((3, 4), value).T,
        "model.count": torch.tensor(step),
        "momentum.weight": torch.linspace(0, value, 7, dtype=torch.bfloat16),
    }
    return Snapshot(step, step / 100, tensors, FACTS)


def read(folder: Path) -> Checkpoint:
    checkpoint = read_checkpoint(folder)
    assert checkpoint
    return checkpoint


def save(folder: Path, snapshot: Snapshot) -> None:
    with Folder(folder.parent) as run, run.folder(folder.name, create=True) as opened:
        write_checkpoint(opened, snapshot)


def value_of(folder: Path) -> float:
    """The value that all weights of the checkpoint in a folder have."""
    return float(read(folder).snapshot(snapshot(1).tensors).tensors["model.weight"][0, 0])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "checkpoint"


def test_a_checkpoint_is_read_as_it_was_written(folder: Path) -> None:
    written = snapshot(7, 0.1)
    save(folder, written)
    checkpoint = read(folder)
    assert (checkpoint.step, checkpoint.progress, checkpoint.metadata) == (7, 0.07, FACTS)
    found = checkpoint.snapshot(written.tensors)
    assert (found.step, found.progress, found.metadata) == (7, 0.07, FACTS)
    assert found.tensors.keys() == written.tensors.keys()
    for name, tensor in found.tensors.items():
        assert torch.equal(tensor, written.tensors[name])
        assert tensor.dtype == written.tensors[name].dtype


def test_a_checkpoint_of_step_0(folder: Path) -> None:
    save(folder, snapshot(0))
    assert (read(folder).step, read(folder).progress) == (0, 0.0)


def test_only_the_last_checkpoint_stays(folder: Path) -> None:
    for step in (1, 2, 30):
        save(folder, snapshot(step, float(step)))
        assert value_of(folder) == step
        assert len(list(folder.iterdir())) == 2


def test_without_a_manifest_there_is_no_checkpoint(folder: Path) -> None:
    assert read_checkpoint(folder) is None
    folder.mkdir()
    assert read_checkpoint(folder) is None
    (folder / "000000007.safetensors").write_bytes(b"half")
    assert read_checkpoint(folder) is None
    (folder.parent / "file").touch()
    assert read_checkpoint(folder.parent / "file") is None


def test_tensors_other_than_the_expected_ones_are_refused(folder: Path) -> None:
    save(folder, snapshot(7))
    with pytest.raises(RunError, match=r"its tensors are not the ones expected: it lacks 'model\.bias'"):
        read(folder).snapshot({**snapshot(7).tensors, "model.bias": torch.zeros(1)})


@pytest.mark.parametrize("position", [0, 9, 100, -1])
def test_a_flipped_bit_is_detected(folder: Path, position: int) -> None:
    save(folder, snapshot(7))
    file = read(folder).file
    content = bytearray(file.read_bytes())
    content[position] ^= 1
    file.write_bytes(content)
    with pytest.raises(RunError) as caught:
        read_checkpoint(folder)
    assert str(file) in str(caught.value)
    is_of_header = position in (0, 9, 100)
    assert (" cannot be read: " if is_of_header else "its checksum is not the one in manifest") in str(caught.value)


@pytest.mark.parametrize("claimed", [False, True])
def test_tensors_of_gigabytes_are_not_hashed(folder: Path, claimed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file with a hole takes no room on the disk; its header says its length, or does not."""
    save(folder, snapshot(7))
    file, num_bytes = read(folder).file, 1 << 40
    entry = {"dtype": "U8", "shape": [num_bytes], "data_offsets": [0, num_bytes]}
    header = json.dumps({"weight": entry if claimed else {**entry, "shape": [1], "data_offsets": [0, 1]}}).encode()
    file.write_bytes(len(header).to_bytes(8, "little") + header)
    os.truncate(file, 8 + len(header) + num_bytes)
    monkeypatch.setattr(checkpoints, "_sha256_of", lambda path: pytest.fail("it is hashed"))
    words = "it needs about 2,199.0 GB of memory" if claimed else "it is longer than its tensors"
    with pytest.raises(RunError, match=f"cannot be read: {words}"):
        read_checkpoint(folder)


def test_a_missing_file_of_tensors_is_named(folder: Path) -> None:
    save(folder, snapshot(7))
    file = read(folder).file
    file.unlink()
    with pytest.raises(RunError, match=re.escape(f"{str(file)!r} cannot be read: ")):
        read_checkpoint(folder)


class Killed(BaseException):
    """The process was killed."""


class Disk:
    """Counts disk operations and fails at one of them: once with an OSError, or from then on as a kill does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fail_at: int, kill: bool) -> None:
        self.count, self._fail_at, self._kill = 0, fail_at, kill
        for name in ("fsync", "replace", "mkdir"):
            monkeypatch.setattr(os, name, self._failing(getattr(os, name)))
        unlink, self._open, self._write = os.unlink, os.open, os.write
        monkeypatch.setattr(os, "unlink", lambda *args, **more: self._alive() or unlink(*args, **more))
        monkeypatch.setattr(os, "open", self._opened)
        monkeypatch.setattr(os, "write", self._torn)

    @property
    def failed(self) -> bool:
        return self.count > self._fail_at

    def tick(self) -> None:
        self._alive()
        self.count += 1
        if self.count == self._fail_at + 1:
            raise Killed if self._kill else OSError(28, "No space left on device")

    def _alive(self) -> None:
        if self._kill and self.failed:
            raise Killed

    def _failing(self, function: Callable[..., object]) -> Callable[..., object]:
        def wrapped(*args: object, **more: object) -> object:
            self.tick()
            return function(*args, **more)

        return wrapped

    def _opened(self, path: Any, flags: int, *args: Any, **more: Any) -> int:
        if flags & os.O_CREAT:
            self.tick()
        return self._open(path, flags, *args, **more)

    def _torn(self, descriptor: int, content: bytes) -> int:
        """Half of the write at which the disk fails arrives."""
        try:
            self.tick()
        except BaseException:
            self._write(descriptor, content[: len(content) // 2])
            raise
        return self._write(descriptor, content)


NUM_OPERATIONS = 11  # making the folder; and twice opening, writing, fsync, rename, fsync of the folder


@pytest.mark.parametrize("same_step", [False, True])
@pytest.mark.parametrize("kill", [False, True])
@pytest.mark.parametrize("fail_at", range(NUM_OPERATIONS))
def test_a_failed_write_leaves_the_checkpoint_before(
    folder: Path, monkeypatch: pytest.MonkeyPatch, fail_at: int, kill: bool, same_step: bool
) -> None:
    """Also where a training reaches the same step again after a rollback."""
    save(folder, snapshot(7, 1.0))
    before = {path.name for path in folder.iterdir()}
    with monkeypatch.context() as patch:
        disk = Disk(patch, fail_at, kill)
        with pytest.raises(Killed if kill else OSError):
            save(folder, snapshot(7 if same_step else 8, 2.0))
        assert disk.failed
    value = value_of(folder)
    assert value == (2.0 if fail_at == NUM_OPERATIONS - 1 else 1.0)
    if not kill:
        assert not [path.name for path in folder.iterdir() if path.name.startswith(".")]
        assert len(list(folder.iterdir())) == 2, "what a failed attempt wrote gives its room back"
        assert ({path.name for path in folder.iterdir()} == before) == (value == 1.0)
    save(folder, snapshot(9, 3.0))
    assert value_of(folder) == 3.0
    assert len(list(folder.iterdir())) == 2, "what was left behind is cleared away"


def test_every_operation_of_a_write_is_covered(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(monkeypatch, 1000, kill=False)
    save(folder, snapshot(7))
    assert disk.count == NUM_OPERATIONS


@pytest.mark.parametrize("fail_at", range(NUM_OPERATIONS - 1))
def test_a_failed_first_write_is_no_checkpoint(folder: Path, monkeypatch: pytest.MonkeyPatch, fail_at: int) -> None:
    with monkeypatch.context() as patch:
        Disk(patch, fail_at, kill=True)
        with pytest.raises(Killed):
            save(folder, snapshot(7))
    assert read_checkpoint(folder) is None


@pytest.mark.parametrize("fail_at", range(5))
def test_a_durable_write_is_complete_or_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fail_at: int
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old content")
    with monkeypatch.context() as patch:
        Disk(patch, fail_at, kill=False)
        with pytest.raises(OSError, match="No space left"), Folder(tmp_path) as folder:
            folder.write_durably("file", b"new content")
    assert path.read_bytes() == (b"new content" if fail_at == 4 else b"old content")
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    "name", ["../outside", "/etc/hostname", "a/b", "..", ".", "", "checkpoint/../../outside", "nul\0", "x" * 5000]
)
def test_a_file_in_another_directory_is_refused(folder: Path, name: str) -> None:
    save(folder, snapshot(7))
    content = read(folder).file.read_bytes()
    (folder.parent / "outside").write_bytes(content)
    edit(folder, file=name)
    with pytest.raises(RunError):
        read_checkpoint(folder)


def edit(folder: Path, **changes: object) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps({**manifest, **changes}))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format": 3}, "has format 3; this version of timebox reads formats up to 2"),
        ({"step": -1}, "is damaged: expected int >= 0 at step"),
        ({"step": True}, "is damaged: expected int, got bool at step"),
        ({"progress": 1.5}, r"is damaged: expected float <= 1\.0 at progress"),
        ({"step": "7"}, "is damaged: expected int, got str at step"),
        ({"training_state": None}, "is damaged: expected object, got null at training_state"),
        ({"progress": float("nan")}, "cannot be read: NaN is no number of JSON"),
        ({"sha256": "0" * 64}, "its checksum is not the one in manifest.json"),
    ],
)
def test_a_damaged_manifest_is_refused(folder: Path, changes: dict[str, object], words: str) -> None:
    save(folder, snapshot(7))
    edit(folder, **changes)
    with pytest.raises(RunError, match=words):
        read_checkpoint(folder)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda inner: st.lists(inner, max_size=3)
) | st.dictionaries(st.text(max_size=3), st.integers(), max_size=3)
KEYS = ["format", "file", "sha256", "step", "progress", "training_state"]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with a checkpoint, and its manifest as it was written."""
    folder = tmp_path_factory.mktemp("damaged") / "checkpoint"
    save(folder, snapshot(7))
    return folder, (folder / MANIFEST).read_text()


@pytest.mark.integration
@settings(derandomize=True, max_examples=200, deadline=None)
@given(
    changes=st.dictionaries(st.sampled_from(KEYS), json_values, max_size=3),
    cut=st.none() | st.integers(0, 400),
    junk=st.binary(max_size=4),
)
def test_any_damage_of_a_manifest_is_a_run_error(
    written: tuple[Path, str], changes: dict[str, object], cut: int | None, junk: bytes
) -> None:
    folder, manifest = written
    (folder / MANIFEST).write_text(manifest)
    edit(folder, **changes)
    content = (folder / MANIFEST).read_bytes()
    (folder / MANIFEST).write_bytes(content[:cut] + junk)
    try:
        checkpoint = read_checkpoint(folder)
    except RunError as error:
        assert "\n" not in str(error)
    else:
        assert checkpoint
        assert checkpoint.step >= 0
        assert 0 <= checkpoint.progress <= 1
