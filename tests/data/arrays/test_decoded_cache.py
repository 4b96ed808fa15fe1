import json
import os
import subprocess
import sys
import time
import zlib

import numpy as np
import pytest

from data.making import photo_folder, picture, save
from timebox.data import load_data
from timebox.data.arrays import checksums
from timebox.data.arrays.decoded_cache import INCOMPLETE_PREFIX, INDEX, DecodedCache, FileFingerprint, cache_key
from timebox.data.reading import encoded_images as encoded

NOTE = "decoded by an earlier run: read from the cache"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache that keeps every source, however quickly it is decoded."""
    monkeypatch.setenv("TIMEBOX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(encoded, "MIN_CACHED_PIXELS", 0)
    return tmp_path / "cache" / "prepared"


def entries(cache):
    return sorted(path.name for path in cache.iterdir())


def same(one, other):
    return all(
        np.array_equal(a.images, b.images)
        and np.array_equal(a.labels, b.labels)
        and (a.ids, a.class_names) == (b.ids, b.class_names)
        for (_, a), (_, b) in zip(one.splits.items(), other.splits.items(), strict=True)
    )


def test_a_second_read_decodes_nothing_and_returns_the_same(tmp_path, cache, monkeypatch):
    photo_folder(tmp_path / "pets" / "train", per_class=10)
    photo_folder(tmp_path / "pets" / "test", per_class=2)
    save(tmp_path / "pets" / "train" / "cat" / "broken.png").write_bytes(b"")
    plain, first = load_data(tmp_path / "pets", cache=False), load_data(tmp_path / "pets")
    assert len(entries(cache)) == 1
    monkeypatch.setattr(encoded, "decode_image", None)
    monkeypatch.setattr(encoded, "read_header", None)
    second = load_data(tmp_path / "pets")
    assert same(first, plain)
    assert same(second, plain)
    assert second.notes == (*plain.notes, NOTE)
    assert (second.bad_files, second.sizes, second.modes, second.format, second.why) == (
        plain.bad_files, plain.sizes, plain.modes, plain.format, plain.why
    )  # fmt: skip
    assert isinstance(second.splits.train.images, np.memmap)


@pytest.mark.parametrize("change", ["pixels", "name", "class", "more", "size", "touched"])
def test_changed_sources_are_decoded_again(tmp_path, cache, change):
    folder = photo_folder(tmp_path / "pets")
    load_data(folder)
    file, options = folder / "cat" / "0.png", {}
    if change == "pixels":  # as long as before, and with its date
        before = file.stat()
        blob = bytearray(file.read_bytes())
        blob[-20] ^= 1
        file.write_bytes(blob)
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    elif change == "name":
        file.rename(file.with_name("9.png"))
    elif change == "class":
        file.rename(folder / "dog" / "9.png")
    elif change == "more":
        save(folder / "cat" / "9.png", picture(seed=9))
    elif change == "size":
        options = {"image_size": 8}
    else:
        file.touch()
    assert NOTE not in load_data(folder, max_bad_share=0.5, **options).notes
    assert len(entries(cache)) == 2
    assert NOTE in load_data(folder, max_bad_share=0.5, **options).notes


def test_an_archive_is_cached(tmp_path, cache):
    import shutil

    path = shutil.make_archive(str(tmp_path / "pets"), "zip", photo_folder(tmp_path / "pets"))
    load_data(path)
    assert NOTE in load_data(path).notes


def test_a_damaged_entry_is_replaced(tmp_path, cache):
    folder = photo_folder(tmp_path / "pets")
    load_data(folder)
    plain = load_data(folder, cache=False)
    (entry,) = cache.iterdir()
    for damage in ("cut", "index", "empty"):
        if damage == "cut":
            os.truncate(entry / "train.images", 10)
        elif damage == "index":
            (entry / INDEX).write_text(json.dumps({"name": "x"}))
        else:
            (entry / INDEX).write_text("")
        again = load_data(folder)
        assert NOTE not in again.notes
        assert same(again, plain)


def test_too_many_bad_files_are_refused_in_cached_data_too(tmp_path, cache):
    folder = photo_folder(tmp_path / "pets")
    save(folder / "cat" / "broken.png").write_bytes(b"")
    load_data(folder, max_bad_share=0.5)
    with pytest.raises(ValueError, match=r"1 of 7 images .* are unreadable, more than max_bad_share=0\.1 allows"):
        load_data(folder)


def test_quick_uncached_and_failed_reads_leave_no_entry(tmp_path, cache, monkeypatch):
    folder = photo_folder(tmp_path / "pets")
    load_data(folder, cache=False)
    monkeypatch.setattr(encoded, "MIN_CACHED_PIXELS", 10**9)
    load_data(folder)
    assert not cache.exists()
    monkeypatch.setattr(encoded, "MIN_CACHED_PIXELS", 0)
    monkeypatch.setattr(encoded, "decode_image", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        load_data(folder)
    assert entries(cache) == []


def test_a_full_disk_or_an_invalid_cache_folder_is_tolerated(tmp_path, cache, monkeypatch):
    folder = photo_folder(tmp_path / "pets")
    cache.parent.mkdir()
    cache.write_text("a file")
    assert len(load_data(folder).splits.train) == 6
    cache.unlink()
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    assert len(load_data(folder).splits.train) == 6
    assert entries(cache) == []


def test_old_and_incomplete_entries_are_removed(tmp_path, cache, monkeypatch):
    for age, name in ((200, "one"), (100, "two")):
        before = {path.name for path in cache.glob("*")}
        load_data(photo_folder(tmp_path / name))
        (entry,) = set(entries(cache)) - before
        os.utime(cache / entry, (time.time() - age, time.time() - age))
    load_data(tmp_path / "one")  # used again
    incomplete = cache / f"{INCOMPLETE_PREFIX}x"
    incomplete.mkdir()
    os.utime(incomplete, (0, 0))
    monkeypatch.setattr("timebox.data.arrays.decoded_cache.MAX_BYTES", 12_000)  # an entry has some 5,000
    load_data(photo_folder(tmp_path / "three"))
    load_data(photo_folder(tmp_path / "four"))
    assert NOTE in load_data(tmp_path / "one").notes
    assert NOTE not in load_data(tmp_path / "two").notes
    assert not incomplete.exists()


def test_other_files_in_the_cache_folder_are_never_removed(tmp_path, cache, monkeypatch):
    mine = cache / "mine"
    mine.mkdir(parents=True)
    (mine / "precious").write_bytes(bytes(100_000))
    monkeypatch.setattr("timebox.data.arrays.decoded_cache.MAX_BYTES", 50_000)
    load_data(photo_folder(tmp_path / "pets"))
    assert (mine / "precious").is_file()


def test_a_read_only_cache_is_still_read(tmp_path, cache, monkeypatch):
    folder = photo_folder(tmp_path / "pets")
    load_data(folder)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError("read-only")

    monkeypatch.setattr("os.utime", refuse)
    monkeypatch.setattr("tempfile.mkdtemp", refuse)
    assert NOTE in load_data(folder).notes
    assert len(load_data(photo_folder(tmp_path / "more")).splits.train) == 6


def test_taking_images_of_a_memory_map_returns_a_memory_map(tmp_path, cache):
    load_data(photo_folder(tmp_path / "pets", per_class=20))
    train = load_data(tmp_path / "pets").splits.train
    part = train.take([5, 0, 39])
    assert isinstance(part.images, np.memmap)
    assert np.array_equal(part.images, np.asarray(train.images)[[5, 0, 39]])
    assert len(list(cache.iterdir())) == 1  # its file has no name
    assert len(train.take([])) == 0


def test_different_content_and_settings_have_different_keys(tmp_path):
    (tmp_path / "a").write_text("x")
    fingerprint = FileFingerprint.of(tmp_path / "a", "a")
    keys = {
        cache_key([fingerprint], (1,)),
        cache_key([fingerprint], (2,)),
        cache_key([b"1"], (1,)),
        cache_key([fingerprint, fingerprint], (1,)),
    }
    assert len(keys) == 4
    assert cache_key([fingerprint], (1,)) == cache_key([FileFingerprint.of(tmp_path / "a", "a")], (1,))
    assert DecodedCache().find("x") is None


LARGE = """
import sys, resource
import timebox
run = timebox.train(sys.argv[1], steps=30, recipe="haet2021", out=sys.argv[2], test="none",
    settings=["width=4", "batch_size=32", "ghost_size=0", "tta=none", "image_size=64"], device="cpu", precision="fp32")
print([int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssAnon")][0])
"""


@pytest.mark.integration
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_mapped_images_take_no_anonymous_memory(tmp_path):
    """Images four times as large take as much disk and no more memory."""
    peaks = []
    for number in (500, 4000):
        folder = tmp_path / str(number)
        for k in range(20):
            save(folder / f"{k % 2}" / f"{k}.bmp", picture((64, 64), seed=k))
        for k in range(20, number):  # links, which need no space
            os.link(folder / f"{k % 2}" / f"{k % 20}.bmp", folder / f"{k % 2}" / f"{k}.bmp")
        environment = {**os.environ, "TIMEBOX_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
        code = "from timebox.data.reading import encoded_images as encoded; encoded.MIN_CACHED_PIXELS = 0\n" + LARGE
        command = [sys.executable, "-c", code, str(folder), str(tmp_path / f"run-{number}")]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        peaks.append(int(done.stdout) * 1024)
    assert peaks[1] - peaks[0] < 0.5 * 3500 * 64 * 64 * 3


def _replace(path, make):
    path.unlink()
    make(path)


def _flip(path):
    blob = bytearray(path.read_bytes())
    blob[-1] ^= 1
    path.write_bytes(blob)


def _change_label(path):
    values = json.loads(path.read_text())
    values["splits"]["train"]["labels"][0] ^= 1
    path.write_text(json.dumps(values))


def _link(path):
    elsewhere = path.with_name("elsewhere")
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


DAMAGES = {
    "a pixel": ("train.images", _flip, "train.images is damaged: its checksum is wrong"),
    "cut off": ("train.images", lambda path: os.truncate(path, 10), "train.images has 10 bytes in place of 4,608"),
    "longer": ("train.images", lambda path: os.truncate(path, 5000), "train.images has 5,000 bytes in place of 4,608"),
    "empty": ("train.images", lambda path: os.truncate(path, 0), "train.images has 0 bytes in place of 4,608"),
    "a pipe": ("train.images", lambda path: _replace(path, os.mkfifo), "it is a named pipe, not a file"),
    "a link": ("train.images", _link, "it is a symbolic link, which is not followed here"),
    "a link that leads nowhere": (
        "train.images", lambda path: _replace(path, lambda path: path.symlink_to("nowhere")), "it is a symbolic link",
    ),
    "a label": (INDEX, _change_label, "index.json is damaged: its checksum is wrong"),
    "an index that is a pipe": (INDEX, lambda path: _replace(path, os.mkfifo), "it is a named pipe, not a file"),
    "an empty index": (INDEX, lambda path: path.write_text(""), "it is empty"),
    "a number out of range": (INDEX, lambda path: path.write_text('{"name": 1e999}'), "is no number of JSON"),
    "a number of 5,000 digits": (INDEX, lambda path: path.write_text('{"name": ' + "9" * 5000 + "}"), "is no number"),
    "brackets": (INDEX, lambda path: path.write_text("[" * 100_000), "nested too deeply"),
    "a key twice": (INDEX, lambda path: path.write_text('{"name": "a", "name": "b"}'), "has the key 'name' twice"),
    "no UTF-8": (INDEX, lambda path: path.write_bytes(b'{"name": "\xff"}'), "it is not UTF-8: byte 10 is 0xff"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "damage", "reason"), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_entry_is_named_not_used_and_written_again(tmp_path, cache, name, damage, reason):
    folder = photo_folder(tmp_path / "pets")
    load_data(folder)
    plain = load_data(folder, cache=False)
    (entry,) = cache.iterdir()
    assert (entry / "train.images").stat().st_size == 4608
    damage(entry / name)
    notes = []
    again = load_data(folder, notify=notes.append)
    assert NOTE not in again.notes
    assert same(again, plain)
    (note,) = (note for note in notes if "decoded again" in note)
    assert note.startswith(f"the cached images in {str(entry)!r} are not used, but decoded again: ")
    assert reason in note
    if name != "a link":  # the file that it led to is none of ours, so the folder stays as it is
        assert NOTE in load_data(folder).notes or (entry / "elsewhere").exists()


def test_the_damages_are_all_tried():
    assert len(DAMAGES) == 15


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give files to other users")
@pytest.mark.parametrize("whose", ["train.images", INDEX, ".", ".."])
def test_what_belongs_to_another_user_is_not_used(tmp_path, cache, whose):
    folder = photo_folder(tmp_path / "pets")
    load_data(folder)
    (entry,) = cache.iterdir()
    os.chown(entry / whose, 12345, -1)
    notes = []
    assert NOTE not in load_data(folder, notify=notes.append).notes
    assert any("belongs to another user (number 12345)" in note for note in notes)
    notes.clear()
    is_ours = whose in ("train.images", INDEX)  # else there is nothing that is ours to write again
    assert (NOTE in load_data(folder, notify=notes.append).notes) == is_ours
    assert any(note.startswith("decoded images are not kept for the next run: ") for note in notes) != is_ours


@pytest.mark.parametrize("which", [".", ".."])
def test_a_folder_that_everyone_can_write_to_is_not_used(tmp_path, cache, which):
    folder = photo_folder(tmp_path / "pets")
    load_data(folder)
    (entry,) = cache.iterdir()
    (entry / which).chmod(0o777)
    notes = []
    assert NOTE not in load_data(folder, notify=notes.append).notes
    assert any("can be written to by every user: chmod o-w " in note for note in notes)
    (entry / which).chmod(0o755)
    assert NOTE in load_data(folder).notes


def test_an_entry_that_is_a_link_is_neither_used_nor_removed(tmp_path, cache):
    folder = photo_folder(tmp_path / "pets")
    load_data(folder)
    (entry,) = cache.iterdir()
    entry.rename(tmp_path / "elsewhere")
    entry.symlink_to(tmp_path / "elsewhere")
    notes = []
    assert NOTE not in load_data(folder, notify=notes.append).notes
    assert any(f"{str(entry)!r} is a symbolic link; remove it" in note for note in notes)
    assert sorted(path.name for path in (tmp_path / "elsewhere").iterdir()) == [INDEX, "train.images"]


def test_checksums_are_of_blocks_and_the_first_fault_ends_reading(monkeypatch):
    monkeypatch.setattr(checksums, "BLOCK_BYTES", 10)
    array, calls = np.arange(95, dtype=np.uint8).reshape(5, 19), []
    found = list(checksums.block_checksums(array, lambda: calls.append(1)))
    assert found == [zlib.crc32(array.tobytes()[start : start + 10]) for start in range(0, 95, 10)]
    assert 1 <= len(calls) <= 10
    assert list(checksums.block_checksums(array[:0])) == []
