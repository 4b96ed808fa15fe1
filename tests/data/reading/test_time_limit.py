"""The share of a budget that reading has: refused early, refused in time, or a part is read."""

import re
import tarfile
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from small_runs import slow_down
from timebox.clock import Deadline
from timebox.data import LoadedData, load_data
from timebox.data.part import PartRead, part_order
from timebox.data.reading import encoded_images
from timebox.data.reading.threads import read_in_time
from timebox.data.reading.time_limit import ReadingTime, Stage, smallest_budget, timed
from timebox.errors import BudgetError, DataError, UsageError, flags_in_messages


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def reading_time(clock: Clock, budget: float = 20.0, allow_partial: bool = False) -> ReadingTime:
    time = ReadingTime(Deadline(budget, now=clock), allow_partial=allow_partial, now=clock)
    time.source = "z.zip"
    return time


def test_reading_has_six_tenths_of_the_time_left() -> None:
    clock = Clock()
    deadline = Deadline(20.0, now=clock)
    clock.seconds = 5.0
    assert ReadingTime(deadline, now=clock).seconds == pytest.approx(9.0)
    clock.seconds = 19.0
    assert ReadingTime(deadline, now=clock).seconds == 2.0, "planning refuses a budget that is too short for anything"
    assert not ReadingTime(Deadline(None)).is_limited


def test_it_is_refused_as_soon_as_the_speed_shows_it() -> None:
    clock = Clock()
    stage = Stage(reading_time(clock), lambda done: f"read {done:,} of 1,000 images", 1000)
    clock.seconds = 0.9
    assert stage.advance(10), "a speed is measured for a second"
    clock.seconds = 1.0
    with pytest.raises(BudgetError) as refused:
        stage.advance(10)
    assert str(refused.value) == (
        "budget 20s is too short: reading 'z.zip' takes about 1m40s here (read 10 of 1,000 images in 1.0s), and "
        "reading may take 12s of it; use at least 234s"
    )
    assert refused.value.smallest_seconds == 234


def test_passes_to_come_count() -> None:
    clock, calls = Clock(), []

    def later() -> float:
        calls.append(clock())
        return 50.0

    stage = Stage(reading_time(clock), lambda done: f"looked at {done} images", 1000, later)
    clock.seconds = 1.0
    with pytest.raises(BudgetError, match=r"takes about 52s here"):
        stage.advance(500)
    assert calls == [1.0], "measured once, and only where it may matter"


def test_it_is_refused_when_its_time_is_over() -> None:
    clock = Clock()
    stage = Stage(reading_time(clock), lambda done: f"read {done} of 1000 images", 1000)
    clock.seconds = 11.9
    assert stage.advance(900), "13 s are not so much more than 12 s: the speed may rise"
    clock.seconds = 12.1
    with pytest.raises(BudgetError, match=r"takes about 13s here \(read 900 of 1000 images in 12s\)"):
        stage.advance(900)


def test_a_read_that_stands_still_names_no_budget() -> None:
    clock = Clock()
    stage = Stage(reading_time(clock), lambda done: f"read {done} of 1000 images", 1000)
    clock.seconds = 0.5
    assert stage.advance(999)
    clock.seconds = 12.1
    with pytest.raises(BudgetError) as refused:
        stage.advance(999)
    assert refused.value.smallest_seconds is None
    assert str(refused.value).endswith(
        "reading 'z.zip' is not done after 12s: read 999 of 1000 images; reading may take 12s of it, and how long all "
        "of it takes is not known: use a longer budget"
    )


@pytest.mark.parametrize(("seconds", "named"), [(1.0, 9.0), (60.0, 100.0)])
def test_the_smallest_budget_leaves_reading_its_share(seconds: float, named: float) -> None:
    assert smallest_budget(0.0, seconds) == named
    assert smallest_budget(4.0, seconds) == named + 5.0


def test_a_download_is_left_out() -> None:
    clock = Clock()
    time = reading_time(clock)
    with time.paused():
        clock.seconds = 1000.0
        time.check()
        assert not time.has_stalled
    assert time.used == 0.0
    time.check()


def test_images_one_after_the_other() -> None:
    clock = Clock()
    images = timed(reading_time(clock), ["a", "b", "c"], "read")
    assert next(images) == "a"
    clock.seconds = 13.0
    with pytest.raises(BudgetError, match=r"read 1 of 3 images"):
        list(images)


def test_a_read_that_never_returns_is_abandoned() -> None:
    forever = threading.Event()
    time_ = ReadingTime(Deadline(3.0))
    time_.source = "mount"
    begin = time.monotonic()
    with pytest.raises(BudgetError, match=r"reading 'mount' is not done after .*: no image was found yet"):
        read_in_time(lambda notify: forever.wait(), time_, lambda text: None)
    assert time.monotonic() - begin < 3.0, "before the deadline"
    forever.set()
    with pytest.raises(BudgetError):  # what ends the thread, if it ever comes back
        time_.check()


def test_messages_and_errors_come_through_the_thread() -> None:
    messages: list[tuple[str, str]] = []

    def read(notify: Callable[[str], None]) -> int:
        notify("one")
        return 7

    def fail(notify: Callable[[str], None]) -> int:
        raise DataError("no")

    def note(text: str) -> None:
        messages.append((text, threading.current_thread().name))

    time_ = ReadingTime(Deadline(30.0))
    assert read_in_time(read, time_, note) == 7
    assert messages == [("one", threading.current_thread().name)]
    with pytest.raises(DataError, match="no"):
        read_in_time(fail, time_, note)


# ---- sources


def photos(root: Path, num: int = 12, classes: tuple[str, ...] = ("cat", "dog")) -> Path:
    rng = np.random.default_rng(0)
    for shade, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for number in range(num):
            pixels = rng.integers(60 * (shade % 3), 60 * (shade % 3) + 100, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    return root


@pytest.fixture
def is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Decoding takes 20 ms an image, on two threads."""
    monkeypatch.setattr("timebox.data.reading.threads.available_threads", lambda: 2)
    slow_down(monkeypatch, encoded_images, "decode_image", 0.02)


def read(source: Path, seconds: float, allow_partial: bool = False, part: PartRead | None = None) -> LoadedData:
    """Read under a limit of so many seconds, early refusals included."""
    time_ = ReadingTime(Deadline(seconds / 0.6), allow_partial=allow_partial)
    return read_in_time(lambda notify: load_data(source, cache=False, time=time_, part=part), time_, lambda text: None)


@pytest.mark.usefixtures("is_slow")
def test_slow_images_are_refused_early_with_a_budget(tmp_path: Path) -> None:
    source = photos(tmp_path / "ds", num=600)
    with pytest.raises(BudgetError) as refused:
        read(source, seconds=4.0)
    assert re.search(
        r"^budget 6\.7s is too short: reading '.*ds' takes about \d+s here \(read \d+ of 1,200 images in [123]\.\ds\), "
        r"and reading may take 4\.0s of it; use at least \d+s$",
        str(refused.value),
    )
    assert refused.value.smallest_seconds is not None
    assert 20 < refused.value.smallest_seconds < 120


@pytest.mark.usefixtures("is_slow")
def test_a_part_has_every_class_in_its_proportion_and_can_be_read_again(tmp_path: Path) -> None:
    source = photos(tmp_path / "ds", num=400, classes=("cat", "dog", "eel"))
    loaded = read(source, seconds=4.0, allow_partial=True)
    assert loaded.part is not None
    assert loaded.part.of == 1200
    assert 40 < loaded.part.images < 500
    counts = loaded.splits.train.class_counts()
    assert counts.sum() == loaded.part.images
    assert counts.max() - counts.min() <= 1
    again = load_data(source, cache=False, part=loaded.part)
    assert again.splits.train.ids == loaded.splits.train.ids
    assert np.array_equal(again.splits.train.images, loaded.splits.train.images)


@pytest.mark.usefixtures("is_slow")
def test_a_part_without_every_class_is_refused(tmp_path: Path) -> None:
    source = photos(tmp_path / "ds", num=2, classes=tuple(f"class{number}" for number in range(400)))
    with (
        flags_in_messages(),
        pytest.raises(
            BudgetError, match=r"\(--allow-partial does not help: there is no time for an image of each class\)"
        ),
    ):
        read(source, seconds=2.0, allow_partial=True)


def test_what_is_quick_is_read_whole(tmp_path: Path) -> None:
    source = photos(tmp_path / "ds")
    loaded = read(source, seconds=30.0, allow_partial=True)
    assert loaded.part is None
    assert loaded.splits.train.ids == load_data(source, cache=False).splits.train.ids


def hang(monkeypatch: pytest.MonkeyPatch, name: str) -> threading.Event:
    """Reading a file of this name never returns."""
    decode, forever = encoded_images.decode_image, threading.Event()

    def hanging(file: object, *arguments: object) -> object:
        if isinstance(file, Path) and file.name == name:
            forever.wait()
        return decode(file, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(encoded_images, "decode_image", hanging)
    return forever


def test_one_file_that_hangs_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forever = hang(monkeypatch, "7.png")
    source = photos(tmp_path / "ds", classes=("cat",))
    photos(tmp_path / "other", num=5, classes=("dog",))
    (tmp_path / "other" / "dog").rename(source / "dog")
    with pytest.raises(
        BudgetError, match=r"and has waited [\d.]+s for cat/7\.png; .* is not known: use a longer budget"
    ):
        read(source, seconds=2.0)
    forever.set()


def test_one_file_that_hangs_is_left_out_of_a_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forever = hang(monkeypatch, "7.png")
    source = photos(tmp_path / "ds", classes=("cat",))
    photos(tmp_path / "other", num=7, classes=("dog",))
    (tmp_path / "other" / "dog").rename(source / "dog")
    loaded = read(source, seconds=3.0, allow_partial=True)
    assert [(bad.path, bad.reason) for bad in loaded.bad_files] == [
        ("cat/7.png", "not read in time: the read did not return")
    ]
    assert len(loaded.splits.train) == 18
    pixels = loaded.splits.train.images.copy()
    forever.set()  # a result that comes late changes nothing
    time.sleep(0.3)
    assert np.array_equal(loaded.splits.train.images, pixels)


def zipped(folder: Path, target: Path) -> Path:
    with zipfile.ZipFile(target, "w") as archive:
        for file in sorted(folder.rglob("*.*")):
            archive.write(file, file.relative_to(folder))
    return target


def tarred(folder: Path, target: Path) -> Path:
    with tarfile.open(target, "w:gz") as archive:
        archive.add(folder, ".")
    return target


@pytest.fixture
def unpacks_slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unpacking takes 10 ms a file."""
    from timebox.data.formats import archive

    slow_down(monkeypatch, archive, "_write", 0.01)


@pytest.mark.usefixtures("unpacks_slowly")
@pytest.mark.parametrize(
    ("pack", "name", "progress"),
    [
        (zipped, "a.zip", r"unpacked \d+ of 1,000 files"),
        (tarred, "a.tar.gz", r"unpacked \d+ files, \d+% of the archive,"),
    ],
)
def test_archives_are_refused_early(
    tmp_path: Path, pack: Callable[[Path, Path], Path], name: str, progress: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = pack(photos(tmp_path / "ds", num=500), tmp_path / name)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    begin = time.monotonic()
    with pytest.raises(BudgetError, match=rf"takes about .*s here \({progress} in .*; use at least \d+s"):
        read(path, seconds=4.0)
    assert time.monotonic() - begin < 4.5
    assert list((tmp_path / "temporary").iterdir()) == []


@pytest.mark.usefixtures("unpacks_slowly")
def test_a_part_of_a_zip_archive(tmp_path: Path) -> None:
    path = zipped(photos(tmp_path / "ds", num=500), tmp_path / "a.zip")
    loaded = read(path, seconds=4.0, allow_partial=True)
    assert loaded.part is not None
    assert loaded.part.of == 1000
    assert loaded.part.unpacked
    assert 20 < loaded.part.images < 500
    counts = loaded.splits.train.class_counts()
    assert abs(counts[0] - counts[1]) <= 1
    again = load_data(path, cache=False, part=loaded.part)
    assert again.splits.train.ids == loaded.splits.train.ids


@pytest.mark.usefixtures("unpacks_slowly")
def test_tar_archives_and_zips_with_a_table_are_whole_or_refused(tmp_path: Path) -> None:
    folder = photos(tmp_path / "ds", num=500)
    with pytest.raises(BudgetError, match="does not help: a tar archive is read from its beginning to its end"):
        read(tarred(folder, tmp_path / "a.tar.gz"), seconds=3.0, allow_partial=True)
    (folder / "labels.csv").write_text("file,label\ncat/1.png,a\n")
    with pytest.raises(BudgetError, match="does not help: a zip archive with a table is unpacked as a whole"):
        read(zipped(folder, tmp_path / "a.zip"), seconds=3.0, allow_partial=True)


def test_listing_folders_and_rows_looks_at_the_clock(tmp_path: Path) -> None:
    clock = Clock()
    for source in (photos(tmp_path / "ds"), tmp_path / "t.csv", tmp_path / "t.jsonl"):
        (tmp_path / "t.csv").write_text("file,label\nds/cat/1.png,a\nds/dog/1.png,b\n")
        (tmp_path / "t.jsonl").write_text('{"file": "ds/cat/1.png", "label": "a"}\n' * 2000)
        time_ = reading_time(clock)
        clock.seconds += 13
        with pytest.raises(BudgetError, match=f"reading '{source}' is not done after 13s"):
            load_data(source, cache=False, time=time_)


def test_the_order_of_a_part() -> None:
    groups = [*["a"] * 90, *["b"] * 9, "c"]
    order = part_order(groups)
    assert sorted(order.tolist()) == list(range(100))
    assert sorted(groups[index] for index in order[:3]) == ["a", "b", "c"], "one of each comes first"
    half = [groups[index] for index in order[:50]]
    assert abs(half.count("a") - 45) <= 2
    assert order.tolist() == part_order(groups).tolist()


def test_images_in_memory_are_resized_within_the_time() -> None:
    from timebox.data import ImageDataset, load_images_in_memory

    images = np.random.default_rng(0).integers(0, 255, (300, 16, 16, 3), dtype=np.uint8)
    dataset = ImageDataset(images, np.arange(300) % 2, ("a", "b"), tuple(map(str, range(300))))
    clock = Clock()
    time_ = reading_time(clock)
    clock.seconds = 13
    with pytest.raises(BudgetError, match="reading 'images in memory' is not done after 13s"):
        load_images_in_memory(dataset, 24, time=time_)


def test_budget_errors_are_no_damaged_archives(tmp_path: Path) -> None:
    """BudgetError is a ValueError, which readers of damaged files catch."""
    assert issubclass(BudgetError, UsageError)
    clock = Clock()
    time_ = reading_time(clock)
    clock.seconds = 13
    with pytest.raises(BudgetError):
        load_data(zipped(photos(tmp_path / "ds"), tmp_path / "a.zip"), cache=False, time=time_)
