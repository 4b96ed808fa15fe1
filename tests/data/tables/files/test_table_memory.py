"""A small table that asks for a huge one is refused before its cells are allocated; one that fits is read."""

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from timebox.data.reading.options import ReadOptions
from timebox.data.tables.files import table_memory, text_lines
from timebox.data.tables.files.table import Table
from timebox.data.tables.sources import READERS
from timebox.errors import DataError

pyarrow = pytest.importorskip("pyarrow", reason="pyarrow, of the extra `tables`, is not installed")
parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow, of the extra `tables`, is not installed")

GB, MB = 10**9, 10**6
BOMB = "looks like a decompression bomb: at most 200 times the size"


def read(path: Path) -> Table:
    return READERS[path.suffix](path, ReadOptions())


def leave(monkeypatch: pytest.MonkeyPatch, num_bytes: int | None) -> None:
    monkeypatch.setattr(table_memory, "available_memory", lambda: num_bytes)


def refusal(path: Path) -> str:
    """The words in which a table is refused. Neither Python nor pyarrow may allocate more than 200 MB."""
    before = pyarrow.default_memory_pool().bytes_allocated()
    tracemalloc.start()
    try:
        with pytest.raises(DataError) as caught:
            read(path)
        assert tracemalloc.get_traced_memory()[1] < 200 * MB
    finally:
        tracemalloc.stop()
    assert pyarrow.default_memory_pool().bytes_allocated() - before < 200 * MB
    assert str(path) in str(caught.value)
    return str(caught.value)


def sparse(path: Path, start: bytes) -> Path:
    with path.open("wb") as file:
        file.write(start)
        file.truncate(8 << 30)
    return path


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("a.csv", b"image,label\na.png,cat\n"),
        ("a.tsv", b"image\tlabel\n"),
        ("a.jsonl", b'{"a": 1}\n'),
        ("a.ndjson", b""),
    ],
)
def test_a_file_with_a_hole_of_gigabytes(tmp_path: Path, name: str, start: bytes) -> None:
    words = f"byte {len(start)} is zero, which no text holds: the file is damaged, or not saved as UTF-8"
    assert words in refusal(sparse(tmp_path / name, start))


def test_a_hole_in_place_of_parquet(tmp_path: Path) -> None:
    assert "not a Parquet table" in refusal(sparse(tmp_path / "a.parquet", b"PAR1"))


TEXTS: list[tuple[str, bytes]] = [
    ("short.csv", b"image" + b",x" * 9_000 + b"\n" + b"a\n" * 9_000),
    ("short.tsv", b"image" + b"\tx" * 9_000 + b"\n" + b"a\n" * 9_000),
    ("columns.jsonl", b"".join(b'{"%d":1}\n' % number for number in range(5_000))),
    ("last.jsonl", b'{"a":1}\n' * 9_000 + json.dumps(dict.fromkeys(map(str, range(9_000)), 1)).encode() + b"\n"),
]


@pytest.mark.parametrize(("name", "content"), TEXTS, ids=[name for name, _ in TEXTS])
def test_rows_that_are_padded_to_many_columns(tmp_path: Path, name: str, content: bytes) -> None:
    content = content.replace(b"x", b"%d") % tuple(range(9_000)) if content.count(b"x") == 9_000 else content
    (tmp_path / name).write_bytes(content)
    assert BOMB in refusal(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("commas.csv", b"image,label\n" + b"," * 100_000 + b"\n"),
        ("rows.csv", b"image,label\n" + b"a,b\n" * 10_000),
        ("objects.jsonl", b'{"a":[' + b"{}," * 400_000 + b"{}]}\n"),
        ("lists.jsonl", b'{"a":[' + b"[]," * 400_000 + b"[]]}\n"),
        ("keys.jsonl", b'{"a":{' + b"".join(b'"%d":0,' % number for number in range(120_000)) + b'"":0}}\n'),
        ("rows.jsonl", b'{"a":1}\n' * 20_000),
    ],
)
def test_cells_that_do_not_fit_into_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: bytes
) -> None:
    (tmp_path / name).write_bytes(content)
    leave(monkeypatch, MB)
    words = refusal(tmp_path / name)
    assert "MB of memory for" in words
    assert words.endswith("cells, and 1.0 MB are available here; split it into smaller tables")


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_a_line_that_is_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(text_lines, "MAX_LINE_CHARACTERS", 1 << 20)
    (tmp_path / name).write_bytes(b'{"a":1}\n"' + b"a" * (2 << 20) + b'"\n')
    assert "line 2 has 1,048,576 characters or more, the limit for a line of a table" in refusal(tmp_path / name)


Columns = Callable[[], dict[str, object]]


def dictionary(value: object, num_rows: int) -> object:
    return pyarrow.DictionaryArray.from_arrays(np.zeros(num_rows, np.int32), pyarrow.array([value]))


def one_list(num_items: int) -> object:
    return pyarrow.ListArray.from_arrays(pyarrow.array([0, num_items], pyarrow.int32()), np.zeros(num_items, np.int8))


PARQUET: list[tuple[str, Columns, dict[str, object]]] = [
    ("a text of a dictionary", lambda: {"a": dictionary("x" * MB, 300)}, {}),
    ("an image of a dictionary", lambda: {"a": dictionary(bytes(MB), 300)}, {}),
    ("numbers in runs", lambda: {"a": np.zeros(9 * MB, np.int8)}, {}),
    ("flags", lambda: {"a": np.zeros(9 * MB, bool)}, {}),
    ("empty cells", lambda: {"a": pyarrow.nulls(9 * MB, pyarrow.string())}, {}),
    ("a list of a row", lambda: {"a": one_list(9 * MB)}, {}),
    ("a long page", lambda: {"a": ["x" * 70 * MB]}, {"use_dictionary": False}),
    ("long pages", lambda: {"a": ["x" * 30 * MB] * 3}, {"use_dictionary": False, "data_page_version": "2.0"}),
    (
        "differences",
        lambda: {"a": np.zeros(9 * MB, np.int32)},
        {"use_dictionary": False, "column_encoding": "DELTA_BINARY_PACKED"},
    ),
    (
        "shared prefixes",
        lambda: {"a": ["x" * MB] * 100},
        {"use_dictionary": False, "column_encoding": "DELTA_BYTE_ARRAY"},
    ),
]


@pytest.mark.parametrize(("columns", "how"), [case[1:] for case in PARQUET], ids=[case[0] for case in PARQUET])
def test_a_small_parquet_file_of_a_huge_table(tmp_path: Path, columns: Columns, how: dict[str, object]) -> None:
    parquet.write_table(pyarrow.table(columns()), tmp_path / "a.parquet", compression="zstd", **how)
    assert (tmp_path / "a.parquet").stat().st_size < MB
    assert BOMB in refusal(tmp_path / "a.parquet")


def test_parquet_cells_that_do_not_fit_into_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = pyarrow.table({"a": np.arange(20_000), "b": [[1, 2, 3]] * 20_000})
    parquet.write_table(table, tmp_path / "a.parquet")
    leave(monkeypatch, MB)
    assert refusal(tmp_path / "a.parquet").endswith("and 1.0 MB are available here; split it into smaller tables")
    leave(monkeypatch, None)
    assert read(tmp_path / "a.parquet").num_rows == 20_000


def test_metadata_that_lie(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"a": ["x" * 100]}), path, compression="none")
    whole = path.read_bytes()
    path.write_bytes(whole[:-8] + (4 << 28).to_bytes(4, "little") + b"PAR1")
    assert "its metadata claim 1,073,741,824 bytes" in refusal(path)
    for position in range(4, 60):  # the headers of the first pages
        path.write_bytes(whole[:position] + b"\xff" + whole[position + 1 :])
        try:
            assert read(path).num_rows == 1
        except DataError as error:
            assert str(path) in str(error)


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("compression", ["none", "snappy", "zstd"])
def test_large_images_and_long_pages_are_read(tmp_path: Path, version: str, compression: str) -> None:
    rng = np.random.default_rng(0)
    images = [b"\xff\xd8\xff\xe0" + rng.bytes(100_000) for _ in range(90)]
    columns = {"image": [{"bytes": image, "path": None} for image in images], "label": [0, 1, 2] * 30}
    how = {"row_group_size": 40, "data_page_version": version, "compression": compression}
    parquet.write_table(pyarrow.table(columns), tmp_path / "a.parquet", **how)
    table = read(tmp_path / "a.parquet")
    assert [bytes(cell) for cell in table.columns["image"]] == images  # type: ignore[arg-type]
    assert table.columns["label"] == ["0", "1", "2"] * 30


def test_text_with_a_mark_old_line_ends_and_quotes(tmp_path: Path) -> None:
    head = b'\xef\xbb\xbfsep=;\r\nimage;label\r\na.png;"a\r\nb"\r\n'
    (tmp_path / "a.csv").write_bytes(head + b"b.png;caf\xc3\xa9\r\n" * 9_000)
    assert read(tmp_path / "a.csv").columns["label"][:2] == ["a\r\nb", "caf\u00e9"]
    (tmp_path / "b.csv").write_bytes(b"image,label\ra.png,b\r")
    assert read(tmp_path / "b.csv").columns == {"image": ["a.png"], "label": ["b"]}
    (tmp_path / "c.csv").write_bytes(b"image,label\n" + b"a.png,caf\xc3\xa9\n" * 9_000 + b"\xe9\n")
    assert f"byte {12 + 12 * 9_000:,} is not UTF-8" in refusal(tmp_path / "c.csv")
