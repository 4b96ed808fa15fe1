"""Tables in archives name files of their archive only: any other name is refused with its row, and never opened."""

import builtins
import csv
import json
import os
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from timebox.data import load_data
from timebox.errors import DataError

from ..making import picture, save
from .test_archive import tarred, zipped


def write_csv(folder: Path, rows: list[tuple[str, str]]) -> None:
    with (folder / "t.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label"), *rows])


def write_json_lines(folder: Path, rows: list[tuple[str, str]]) -> None:
    (folder / "t.jsonl").write_text("".join(json.dumps({"path": path, "label": label}) + "\n" for path, label in rows))


def write_parquet(folder: Path, rows: list[tuple[str, str]]) -> None:
    paths, labels = zip(*rows, strict=True)
    parquet.write_table(pyarrow.table({"path": list(paths), "label": list(labels)}), folder / "t.parquet")


WRITERS = {"t.csv": write_csv, "t.jsonl": write_json_lines, "t.parquet": write_parquet}


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """pets/photos/0.png … 5.png, and secret.png beside pets/."""
    for number in range(6):
        save(tmp_path / "pets" / "photos" / f"{number}.png", picture(seed=number))
    save(tmp_path / "secret.png", picture(seed=9))
    return tmp_path / "pets"


def rows_of(folder: str = "photos") -> list[tuple[str, str]]:
    return [(f"{folder}/{number}.png", ("cat", "dog")[number % 2]) for number in range(6)]


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths of all files that are opened."""
    paths: list[str] = []

    def note(function: Callable[..., object]) -> Callable[..., object]:
        def noted(path: object, *rest: object, **more: object) -> object:
            paths.append(os.path.realpath(path) if isinstance(path, str | Path) else "")
            return function(path, *rest, **more)

        return noted

    monkeypatch.setattr(os, "open", note(os.open))
    monkeypatch.setattr(builtins, "open", note(builtins.open))
    return paths


def assert_refused(archive: Path, message: str, opened: list[str], secret: Path) -> None:
    with pytest.raises(DataError, match=message):
        load_data(archive, max_bad_share=1.0, cache=False)
    assert any(path == str(archive) for path in opened)
    assert str(secret) not in opened


@pytest.mark.parametrize("pack", [zipped, tarred])
@pytest.mark.parametrize("table", WRITERS)
def test_a_name_outside_is_refused_with_its_row(
    pets: Path, tmp_path: Path, opened: list[str], pack: Callable[..., Path], table: str
) -> None:
    secret = tmp_path / "secret.png"
    WRITERS[table](pets, [*rows_of(), (str(secret), "cat")])
    archive = pack(pets, tmp_path / f"a.{pack.__name__[:3]}")
    refused = f"{archive}/{table}: row 7 names '{secret}', which lies outside the archive; refused: a table in an "
    assert_refused(archive, re.escape(refused), opened, secret)


@pytest.mark.parametrize(
    "name",
    ["../secret.png", "photos/../../secret.png", "..\\secret.png", "file://{}", "C:\\secret.png", "\\secret.png"],
)
def test_other_ways_out_are_refused(pets: Path, tmp_path: Path, opened: list[str], name: str) -> None:
    secret = tmp_path / "secret.png"
    name = name.replace("{}", str(secret))
    write_csv(pets, [(name, "dog"), *rows_of()])
    message = re.escape(f"row 1 names {name!r}, which lies outside the archive; refused")
    assert_refused(zipped(pets, tmp_path / "a.zip"), message, opened, secret)


def test_a_table_of_nothing_but_names_outside_is_refused(pets: Path, tmp_path: Path, opened: list[str]) -> None:
    secret = tmp_path / "secret.png"
    write_csv(pets, [(str(secret), "cat"), (f"{tmp_path}/other.png", "dog")])
    message = re.escape(f"row 1 names '{secret}', which lies outside")
    assert_refused(zipped(pets, tmp_path / "a.zip"), message, opened, secret)


@pytest.mark.parametrize("pack", [zipped, tarred])
@pytest.mark.parametrize(("link", "name"), [("alias.png", "alias.png"), ("way", "way/secret.png")])
def test_a_name_of_a_link_is_refused(
    pets: Path, tmp_path: Path, opened: list[str], pack: Callable[..., Path], link: str, name: str
) -> None:
    secret = tmp_path / "secret.png"
    write_csv(pets, [*rows_of(), (name, "cat")])
    archive = tmp_path / f"a.{pack.__name__[:3]}"
    target = secret if link.endswith(".png") else tmp_path
    if pack is tarred:
        (pets / link).symlink_to(target)
        tarred(pets, archive)
    else:
        zipped(pets, archive)
        member = zipfile.ZipInfo(link)
        member.external_attr = 0o120777 << 16
        with zipfile.ZipFile(archive, "a") as file:
            file.writestr(member, str(target))
    message = f"row 7 names '{name}', a link in the archive, or a file behind one; refused"
    assert_refused(archive, message, opened, secret)


def test_links_in_a_zip_archive_are_left_out_as_in_a_tar_archive(pets: Path, tmp_path: Path) -> None:
    write_csv(pets, rows_of())
    archive = zipped(pets, tmp_path / "a.zip")
    member = zipfile.ZipInfo("alias.png")
    member.external_attr = 0o120777 << 16
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr(member, "photos/0.png")
    loaded = load_data(archive)
    assert loaded.notes[0] == "1 link in the archive left out"
    assert len(loaded.splits.train) == 6


@pytest.mark.parametrize("place", ["tables", "a/tables"])
def test_a_table_in_a_folder_of_the_archive_may_name_what_lies_beside_it(
    pets: Path, tmp_path: Path, place: str, opened: list[str]
) -> None:
    above = "../" * (place.count("/") + 1)
    (pets / place).mkdir(parents=True)
    write_csv(pets / place, rows_of(f"{above}photos"))
    loaded = load_data(zipped(pets, tmp_path / "a.zip"))
    assert len(loaded.splits.train) == 6
    assert loaded.outside_files is None
    write_csv(pets / place, [*rows_of(f"{above}photos"), (f"{above}../secret.png", "cat")])
    message = re.escape(f"row 7 names '{above}../secret.png', which lies outside")
    assert_refused(zipped(pets, tmp_path / "b.zip"), message, opened, tmp_path / "secret.png")


def test_a_missing_file_of_the_archive_is_unreadable_and_not_refused(pets: Path, tmp_path: Path) -> None:
    write_csv(pets, [*rows_of(), ("photos/9.png", "cat")])
    loaded = load_data(zipped(pets, tmp_path / "a.zip"), max_bad_share=0.5)
    assert [(bad.path, bad.reason) for bad in loaded.bad_files] == [("photos/9.png", "No such file or directory")]


def test_class_folders_are_read_beside_a_table_that_names_where_they_came_from(tmp_path: Path) -> None:
    for number in range(6):
        save(tmp_path / "pets" / ("cat", "dog")[number % 2] / f"{number}.png", picture(seed=number))
    sources = [(f"/home/ann/raw/{number}.png", f"photographer {number % 3}") for number in range(6)]
    with (tmp_path / "pets" / "sources.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("source", "who"), *sources])
    loaded = load_data(zipped(tmp_path / "pets", tmp_path / "a.zip"))
    assert loaded.splits.train.class_names == ("cat", "dog")
    assert any("sources.csv" in note for note in loaded.notes)
