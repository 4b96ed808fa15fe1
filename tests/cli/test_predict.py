"""`timebox predict`: which files, in which order, written how."""

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from timebox.cli.predict import image_files
from timebox.errors import DataError

from .conftest import Command, Replace

Listed = Callable[[bytes], list[dict[str, str]]]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name in ("b.png", "a.JPG", "deep/er/c.jpeg", "notes.txt", "broken, really.png"):
        file = tmp_path / "photos" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    return tmp_path / "photos"


@pytest.fixture
def fake_run(replace: Replace) -> None:
    """A run of three classes that reads every file but those called broken."""

    def predict_files(paths: Iterable[Path], tta: str) -> Iterator[SimpleNamespace]:
        for path in paths:
            broken = "broken" in path.name
            yield SimpleNamespace(
                path=str(path),
                probabilities=None if broken else np.array([0.25, 0.5, 0.25], np.float32),
                error="it is empty" if broken else None,
            )

    run = SimpleNamespace(class_names=("cat", 'dog, "old"', "emu"), predict_files=predict_files)
    replace("timebox.run.run", load=lambda path, device, trust_code: run)


@pytest.fixture
def listed(timebox: Command, monkeypatch: pytest.MonkeyPatch) -> Listed:
    """`listed(content)`: the rows that `timebox predict RUN -` writes for a list on stdin."""

    def predict(content: bytes) -> list[dict[str, str]]:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
        return list(csv.DictReader(io.StringIO(timebox("predict", "runs/x", "-").out)))

    return predict


def test_folders_are_searched_and_files_taken_as_they_are(photos: Path) -> None:
    found = list(image_files([str(photos), str(photos / "notes.txt")]))
    assert [path.name for path in found] == ["a.JPG", "b.png", "broken, really.png", "c.jpeg", "notes.txt"]


def test_a_path_that_is_none_and_a_folder_without_images_are_refused(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file or folder: 'nowhere'"):
        list(image_files(["nowhere"]))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty' holds no images$"):
        list(image_files([str(tmp_path / "empty")]))


@pytest.mark.usefixtures("fake_run")
def test_csv_has_a_line_for_each_file(timebox: Command, photos: Path) -> None:
    outcome = timebox("predict", "runs/x", photos)
    assert (outcome.status, outcome.err) == (0, "")
    rows = list(csv.DictReader(io.StringIO(outcome.out)))
    assert list(rows[0]) == ["path", "label", "probability", "error"]
    assert [row["label"] for row in rows] == ['dog, "old"', 'dog, "old"', "", 'dog, "old"']
    assert [row["error"] for row in rows] == ["", "", "it is empty", ""]
    assert rows[0]["path"] == str(photos / "a.JPG")
    assert rows[0]["probability"] == "0.500000"


@pytest.mark.usefixtures("fake_run")
def test_top_labels_get_columns_of_their_own_and_no_more_than_there_are_classes(timebox: Command, photos: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(timebox("predict", "runs/x", photos, "--top", 9).out)))
    assert ",".join(rows[0]) == "path,label,probability,label_2,probability_2,label_3,probability_3,error"
    assert (rows[0]["label_2"], rows[0]["label_3"]) == ("cat", "emu")


@pytest.mark.usefixtures("fake_run")
@pytest.mark.parametrize("flag", [("--format", "jsonl"), ("--json",)])
def test_json_lines(timebox: Command, photos: Path, flag: tuple[str, ...]) -> None:
    lines = [json.loads(line) for line in timebox("predict", "runs/x", photos, *flag, "--top", 2).out.splitlines()]
    assert len(lines) == 4
    assert lines[0]["label"] == 'dog, "old"'
    assert lines[0]["top"][1] == {"label": "cat", "probability": 0.25}
    assert lines[2] == {"path": str(photos / "broken, really.png"), "error": "it is empty"}


@pytest.mark.usefixtures("fake_run")
def test_status_2_where_nothing_could_be_read(timebox: Command, photos: Path) -> None:
    outcome = timebox("predict", "runs/x", photos / "broken, really.png")
    assert outcome.status == 2
    assert "it is empty" in outcome.out
    assert "no image could be read, of 1 file; each line says why" in outcome.err


@pytest.mark.usefixtures("fake_run")
def test_files_listed_on_stdin(timebox: Command, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = f"{photos / 'a.JPG'}\n\n{photos / 'broken, really.png'}\n"
    monkeypatch.setattr("sys.stdin", io.StringIO(listed))
    rows = list(csv.DictReader(io.StringIO(timebox("predict", "runs/x", "-").out)))
    assert [(Path(row["path"]).name, row["error"]) for row in rows] == [
        ("a.JPG", ""),
        ("broken, really.png", "it is empty"),
    ]


@pytest.mark.usefixtures("fake_run")
def test_a_folder_in_the_list_stands_for_its_images(photos: Path, listed: Listed) -> None:
    (photos / "empty").mkdir()
    rows = listed(f"{photos / 'deep'}\r\n{photos / 'empty'}\r\n{photos / 'nowhere.png'}\r\n".encode())
    assert [Path(row["path"]).name for row in rows] == ["c.jpeg", "empty", "nowhere.png"]


@pytest.mark.usefixtures("fake_run")
def test_a_list_from_windows(photos: Path, listed: Listed) -> None:
    rows = listed(("\ufeff" + f'"{photos / "a.JPG"}"\r\n\r\n{photos / "b.png"}\r\n').encode("utf-16-le"))
    assert [Path(row["path"]).name for row in rows] == ["a.JPG", "b.png"]


@pytest.mark.parametrize("content", [b"", b"\r\n\r\n", b"\xef\xbb\xbf", None])
@pytest.mark.usefixtures("fake_run")
def test_an_empty_list_is_refused(timebox: Command, monkeypatch: pytest.MonkeyPatch, content: bytes | None) -> None:
    monkeypatch.setattr("sys.stdin", None if content is None else io.TextIOWrapper(io.BytesIO(content)))
    outcome = timebox("predict", "runs/x", "-")
    assert (outcome.status, outcome.out) == (2, "")
    assert outcome.err == "timebox predict: error: the list of files on standard input is empty\n"


@pytest.mark.usefixtures("fake_run")
def test_home_is_found_in_arguments_and_lists(
    timebox: Command, photos: Path, listed: Listed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(photos))
    assert str(photos / "b.png") in timebox("predict", "runs/x", "~/b.png").out
    assert [row["path"] for row in listed(b"~/b.png\n")] == [str(photos / "b.png")]


@pytest.fixture
def hostile_run(replace: Replace) -> None:
    """A run whose classes a spreadsheet or a terminal would obey, and which reads no file with a tab in its name."""

    def predict_files(paths: Iterable[Path], tta: str) -> Iterator[SimpleNamespace]:
        for path in paths:
            broken = "\t" in path.name
            probabilities = None if broken else np.array([0.75, 0.25], np.float32)
            yield SimpleNamespace(path=str(path), probabilities=probabilities, error="=broken\r" if broken else None)

    run = SimpleNamespace(class_names=('=cmd|"/C calc"!A0', "\x1b[31mred"), predict_files=predict_files)
    replace("timebox.run.run", load=lambda path, device, trust_code: run)


@pytest.fixture
def hostile_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    names = ["=1+1.png", "-a.png", "+a.png", "@a.png", "a\rb.png", "'a.png", "\ta.png", "a\nb.png"]
    for name in names:
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    return names


@pytest.mark.usefixtures("hostile_run")
def test_csv_is_safe_in_a_spreadsheet_and_can_be_undone(
    timebox: Command, hostile_files: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    content = "\0".join(hostile_files).encode()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
    out = timebox("predict", "runs/x", "-", "--top", 2).out
    rows = list(csv.DictReader(io.StringIO(out, newline="")))
    assert [row["path"].removeprefix("'") for row in rows] == hostile_files
    assert not [cell for row in rows for cell in row.values() if cell[:1] in ("=", "+", "-", "@", "\t", "\r")]
    assert {row["label"] for row in rows} == {"", '\'=cmd|"/C calc"!A0'}
    assert {row["label_2"] for row in rows} == {"", "\\x1b[31mred"}
    assert {row["probability"] for row in rows} == {"", "0.750000"}
    assert {row["error"] for row in rows} == {"", "'=broken\r"}
    assert '"a\rb.png"' in out


@pytest.mark.usefixtures("hostile_run")
def test_json_lines_are_exact(timebox: Command, hostile_files: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    content = "\0".join(hostile_files).encode()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
    out = timebox("predict", "runs/x", "-", "--format", "jsonl", "--top", 2).out
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["path"] for line in lines] == hostile_files
    assert lines[0]["top"][1]["label"] == "\x1b[31mred"
    assert lines[6]["error"] == "=broken\r"
    assert "\x1b" not in out


@pytest.mark.usefixtures("hostile_run")
def test_csv_on_a_terminal_has_no_line_ends_within_cells(
    timebox: Command, hostile_files: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    out = timebox("predict", "runs/x", "a\rb.png", "a\nb.png").out
    assert out.splitlines()[1:] == [
        'a\\rb.png,"\'=cmd|""/C calc""!A0",0.750000,',
        'a\\nb.png,"\'=cmd|""/C calc""!A0",0.750000,',
    ]
