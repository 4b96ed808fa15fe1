"""Readers check memory before they allocate it, and stay within the checked amount."""

import os
import shutil
import struct
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from timebox import machine
from timebox.data import load_data
from timebox.data.formats import FORMATS, cifar
from timebox.data.reading.options import ReadOptions
from timebox.errors import DataError

from .. import making

MB = 1_000_000


def photos(folder: Path) -> Path:
    for k in range(100):
        making.save(folder / ["cat", "dog"][k % 2] / f"{k}.bmp", making.picture((64, 64), seed=k))
    return folder


def npz(folder: Path) -> Path:
    images = np.zeros((1000, 32, 32, 3), np.uint8)
    images[0] = 1
    np.savez(folder / "a.npz", images=images, labels=np.arange(1000) % 10)
    return folder / "a.npz"


def idx(folder: Path) -> Path:
    for split, num in (("train", 1000), ("t10k", 200)):
        images, labels = np.zeros((num, 32, 32), np.uint8), (np.arange(num) % 10).astype(np.uint8)
        images[0] = 1
        (folder / f"{split}-images-idx3-ubyte").write_bytes(making.idx_bytes(images))
        (folder / f"{split}-labels-idx1-ubyte").write_bytes(making.idx_bytes(labels))
    return folder


def python_batches(folder: Path) -> Path:
    return making.cifar10_python(folder, per_batch=100)


def binary_batches(folder: Path) -> Path:
    return making.cifar10_binary(folder, per_batch=100)


def archive(folder: Path) -> Path:
    return making.tarball(making.cifar10_python(folder, per_batch=100), folder / "c.tar.gz")


def zipped(folder: Path) -> Path:
    return Path(shutil.make_archive(str(folder / "z"), "zip", photos(folder / "photos")))


def table(folder: Path) -> Path:
    rows = [f"{path.relative_to(folder)},{path.parent.name}" for path in photos(folder / "photos").rglob("*.bmp")]
    (folder / "a.csv").write_text("\n".join(["path,label", *rows]))
    return folder / "a.csv"


SOURCES = (photos, idx, npz, python_batches, binary_batches, archive, zipped, table)
Make = Callable[[Path], Path]


@pytest.fixture
def small_cifar(monkeypatch: pytest.MonkeyPatch) -> None:
    """The CIFAR reader checks for 600 images, a hundredth of the published 60,000, as in the batches made here."""
    monkeypatch.setattr(cifar, "_NUM_IMAGES", 600)


def leave(monkeypatch: pytest.MonkeyPatch, num_bytes: int | None) -> None:
    monkeypatch.setattr(machine, "UNCHECKED_BYTES", 0)
    monkeypatch.setattr(machine, "available_memory", lambda: num_bytes)


@pytest.mark.usefixtures("small_cifar")
@pytest.mark.parametrize(
    ("make", "available", "words"),
    [
        (
            photos,
            MB,
            "data/ needs about 1.2 MB of memory for 100 images of 64x64, and 1.0 MB are available here; "
            'use a smaller settings=["image_size=N"], or fewer images',
        ),
        (
            idx,
            MB,
            "data/train-images-idx3-ubyte needs about 1.0 MB of memory for an array of 1000x32x32, "
            "and 1.0 MB are available here; use fewer images",
        ),
        (npz, 3 * MB, "a.npz needs about 3.1 MB of memory for its arrays, and 3.0 MB are available here; use fewer"),
        (
            python_batches,
            4_900_000,
            "data/cifar-10-batches-py/ needs about 5.0 MB of memory for 600 images of 32x32, and 4.9 MB are available",
        ),
        (binary_batches, 4 * MB, "cifar-10-batches-bin/ needs about 5.0 MB of memory for 600 images of 32x32"),
        (archive, 4 * MB, "c.tar.gz needs about 5.0 MB of memory for 600 images of 32x32, and 4.0 MB are available"),
    ],
)
def test_data_larger_than_memory_are_refused_before_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Make, available: int, words: str
) -> None:
    (tmp_path / "data").mkdir()
    source = make(tmp_path / "data")
    leave(monkeypatch, 6 * MB)
    load_data(source)
    leave(monkeypatch, available)
    tracemalloc.start()
    with pytest.raises(DataError) as caught:
        load_data(source)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert words in str(caught.value)
    assert peak < MB / 2


def test_every_format_is_tried() -> None:
    assert len(FORMATS) == 6
    assert len(SOURCES) == 8


def test_memory_errors_use_readable_units(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leave(monkeypatch, 12_100_000_000)
    photos = tmp_path / "photos"
    photos.mkdir()
    with pytest.raises(DataError) as caught:
        ReadOptions().check_memory(200_000 * 256 * 256 * 3, "200,000 images of 256x256", photos, is_resized=True)
    assert str(caught.value) == (
        f"{photos}/ needs about 39.3 GB of memory for 200,000 images of 256x256, and 12.1 GB are available here; "
        'use a smaller settings=["image_size=N"], or fewer images'
    )


@pytest.mark.usefixtures("small_cifar")
@pytest.mark.parametrize("make", SOURCES)
def test_peak_memory_is_within_the_checked_amount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Make) -> None:
    source = make(tmp_path)
    load_data(source)  # imports and caches once
    checked = 0.0

    def check_memory(
        self: ReadOptions,
        num_bytes: int,
        description: str,
        source: Path,
        *,
        peak_copies: float = 1.0,
        is_resized: bool = False,
    ) -> None:
        nonlocal checked
        checked += num_bytes * peak_copies

    monkeypatch.setattr(ReadOptions, "check_memory", check_memory)
    tracemalloc.start()
    load_data(source)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < checked + 0.75 * MB  # names, labels and what Python itself takes


@pytest.mark.parametrize(("num_copies", "available", "fits"), [(1, 6100, True), (2, 6100, False), (2, 9300, True)])
def test_copies_of_the_caller_are_included(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_copies: int, available: int, fits: bool
) -> None:
    source = making.photo_folder(tmp_path)  # 6 x 16 x 16 x 3 = 4,608 bytes
    leave(monkeypatch, available)
    if fits:
        assert len(load_data(source, num_copies=num_copies).splits.train) == 6
    else:
        with pytest.raises(DataError, match="for 6 images of 16x16"):
            load_data(source, num_copies=num_copies)


def test_a_smaller_image_size_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = making.photo_folder(tmp_path)
    leave(monkeypatch, 2000)
    with pytest.raises(DataError, match=r'use a smaller settings=\["image_size=N"\]'):
        load_data(source)
    assert load_data(source, image_size=8).splits.train.image_shape == (8, 8, 3)


def test_arrays_resized_beyond_memory_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = npz(tmp_path)
    leave(monkeypatch, 10 * MB)
    with pytest.raises(DataError, match=r"needs about 12\.3 MB of memory for 1,000 images of 64x64, and 10\.0 MB"):
        load_data(source, image_size=64)
    assert load_data(source, image_size=32, num_copies=4).splits.train.image_shape == (32, 32, 3)


def test_unknown_available_memory_refuses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leave(monkeypatch, None)
    assert len(load_data(npz(tmp_path)).splits.train) == 1000


def test_under_the_limits_of_a_real_control_group(tmp_path: Path) -> None:
    """One processor and 200 MiB, set by systemd: a sparse file of 300 MB is refused in a line."""
    scope = ["systemd-run", *(["--user"] if os.geteuid() else []), "--scope", "--quiet"]
    scope += ["-p", "MemoryMax=200M", "-p", "CPUQuota=100%"]
    if not shutil.which(scope[0]):
        pytest.skip("systemd-run, which sets up a control group, is not there")
    limits = "cd /sys/fs/cgroup$(cut -d: -f3 /proc/self/cgroup) && cat memory.max cpu.max"
    probe = subprocess.run([*scope, "sh", "-c", limits], capture_output=True, text=True)
    if probe.stdout.split() != [str(200 << 20), "100000", "100000"]:
        pytest.skip(f"no limits can be set here: {(probe.stderr or probe.stdout).strip()}")
    with (tmp_path / "train-images-idx3-ubyte").open("wb") as file:
        file.write(bytes([0, 0, 8, 3]) + struct.pack(">3I", 300, 1000, 1000))
        file.truncate(16 + 300 * 1000 * 1000)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(making.idx_bytes(np.arange(300, dtype=np.uint8) % 2))
    code = (
        "import sys; from timebox.data import load_data; from timebox.machine import available_threads\n"
        "print(available_threads())\n"
        "try: load_data(sys.argv[1])\n"
        "except Exception as error: print(error)"
    )
    done = subprocess.run([*scope, sys.executable, "-c", code, tmp_path], capture_output=True, text=True)
    threads, message = done.stdout.splitlines()
    assert threads == "1"
    assert "needs about 300.0 MB of memory for an array of 300x1000x1000" in message
