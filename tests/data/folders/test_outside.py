"""Image files outside the folder of the data: counted, with one of them, in notes and in inspections."""

import csv
import json
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from timebox.data import inspect_data, load_data
from timebox.data.folders.outside import OutsideFiles, find_outside_files
from timebox.errors import BudgetError

from ..formats.test_archive import zipped
from ..making import photo_folder, picture, save


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """raw/0.png … raw/5.png, and an empty data/ beside it."""
    for number in range(6):
        save(tmp_path / "raw" / f"{number}.png", picture(seed=number))
    (tmp_path / "data").mkdir()
    return tmp_path / "raw"


def write_rows(path: Path, rows: list[tuple[str, str]]) -> Path:
    paths, labels = zip(*rows, strict=True)
    if path.suffix == ".csv":
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([("path", "label"), *rows])
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps({"path": path, "label": label}) + "\n" for path, label in rows))
    else:
        parquet.write_table(pyarrow.table({"path": list(paths), "label": list(labels)}), path)
    return path


def rows_of(folder: str) -> list[tuple[str, str]]:
    return [(f"{folder}{number}.png", ("cat", "dog")[number % 2]) for number in range(6)]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
@pytest.mark.parametrize("way", ["{}/", "../raw/"])
def test_files_that_a_table_names_elsewhere(raw: Path, suffix: str, way: str) -> None:
    way = way.replace("{}", str(raw))
    save(raw.parent / "data" / "6.png", picture(seed=6))
    table = write_rows(raw.parent / "data" / f"t{suffix}", [*rows_of(way), ("6.png", "cat")])
    for source in (table, table.parent):
        loaded = load_data(source)
        assert loaded.outside_files == OutsideFiles(6, 7, f"{way}0.png", f"{raw}/0.png")
        assert loaded.outside_files.sentence in loaded.notes


def test_a_table_in_its_folder_names_none_elsewhere(raw: Path) -> None:
    assert load_data(write_rows(raw / "t.csv", rows_of(""))).outside_files is None
    assert load_data(write_rows(raw / "t.csv", rows_of(f"{raw}/"))).outside_files is None, "an absolute path into it"


def test_links_of_files_and_folders_that_lead_elsewhere(raw: Path, tmp_path: Path) -> None:
    folder = photo_folder(tmp_path / "pets")
    (folder / "cat" / "9.png").symlink_to(raw / "0.png")
    (folder / "cat" / "8.png").symlink_to("0.png")
    elsewhere = photo_folder(tmp_path / "more", ("fox", "cow"))
    (folder / "fox").symlink_to(elsewhere / "fox")
    (folder / "cow").symlink_to(folder / "dog")
    loaded = load_data(folder)
    assert loaded.outside_files == OutsideFiles(4, 14, "cat/9.png", f"{raw}/0.png")
    assert f"4 of 14 image files lie outside the folder of the data: cat/9.png is {raw}/0.png, ..." in loaded.notes


def test_a_source_that_is_a_link_is_its_own_folder(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(photo_folder(tmp_path / "pets"))
    assert load_data(tmp_path / "link").outside_files is None


def test_images_of_a_test_split_that_an_annotation_file_labels(raw: Path, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    photo_folder(folder / "train")
    (folder / "test").mkdir()
    for number in range(6):
        (folder / "test" / f"t{number}.png").symlink_to(raw / f"{number}.png")
    labels = "".join(f"t{number}.png {('cat', 'dog')[number % 2]}\n" for number in range(6))
    (folder / "test" / "labels.txt").write_text(labels + f"{raw}/0.png cat\n")
    loaded = load_data(folder)
    assert len(loaded.splits.test) == 6
    assert loaded.outside_files == OutsideFiles(6, 12, "test/t0.png", f"{raw}/0.png")


def test_missing_files_and_images_in_tables_do_not_count(raw: Path) -> None:
    table = write_rows(raw / "t.csv", [*rows_of(""), ("/nowhere/9.png", "cat")])
    assert load_data(table, max_bad_share=0.5).outside_files is None


def test_an_inspection_says_how_many(raw: Path) -> None:
    inspection = inspect_data(load_data(write_rows(raw.parent / "data" / "t.csv", rows_of("../raw/"))))
    outside = {"count": 6, "total": 6, "name": "../raw/0.png", "path": f"{raw}/0.png"}
    assert inspection.as_dict()["outside_files"] == outside
    assert inspection.outside_files and inspection.outside_files.sentence in inspection.notes


def test_nothing_of_an_archive_lies_outside(tmp_path: Path) -> None:
    assert load_data(zipped(photo_folder(tmp_path / "pets"), tmp_path / "a.zip")).outside_files is None


def test_data_read_from_the_cache_say_the_same(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("timebox.data.reading.encoded_images.MIN_CACHED_PIXELS", 0)
    monkeypatch.setenv("TIMEBOX_CACHE", str(raw.parent / "cache"))
    table = write_rows(raw.parent / "data" / "t.csv", rows_of("../raw/"))
    first, again = load_data(table), load_data(table)
    assert any("read from the cache" in note for note in again.notes)
    assert first.outside_files == again.outside_files is not None
    assert sum("lie outside" in note for note in again.notes) == 1


def test_looking_for_them_ends_in_time(raw: Path) -> None:
    def out_of_time() -> None:
        raise BudgetError("no time left")

    with pytest.raises(BudgetError, match="no time left"):
        find_outside_files(raw, [("0.png", raw / "0.png")], out_of_time)


@pytest.mark.parametrize(
    ("outside", "sentence"),
    [
        (OutsideFiles(1, 1, "/a.png", "/a.png"), "1 of 1 image file lies outside the folder of the data: /a.png"),
        (
            OutsideFiles(2000, 3000, "b", "/a.png"),
            "2,000 of 3,000 image files lie outside the folder of the data: b is /a.png, ...",
        ),
    ],
)
def test_sentences(outside: OutsideFiles, sentence: str) -> None:
    assert outside.sentence == sentence
