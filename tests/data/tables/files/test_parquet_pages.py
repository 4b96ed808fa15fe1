"""The metadata of Parquet files, read without pyarrow."""

from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from timebox.data import load_data
from timebox.data.tables.files.parquet_pages import column_pages, read_footer
from timebox.data.tables.files.thrift import CompactReader
from timebox.errors import DataError

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

TABLES: dict[str, dict[str, list[Any]]] = {
    "texts": {"path": [f"{n}.png" for n in range(500)], "label": ["cat", "dog"] * 250},
    "numbers": {"a": list(range(500)), "b": [0.5] * 500, "c": [True, False] * 250},
    "lists": {"one_hot": [[0, 1], [1, 0], []] * 100, "more": [None, [1], [2, 3]] * 100},
    "images": {"image": [{"bytes": bytes([n % 256]) * 50, "path": None} for n in range(90)], "label": [0, 1, 2] * 30},
}


def written(values: dict[str, list[Any]], **options: Any) -> BytesIO:
    stream = BytesIO()
    parquet.write_table(pyarrow.table(values), stream, **options)
    stream.seek(0)
    return stream


@pytest.mark.parametrize("values", TABLES.values(), ids=TABLES)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"row_group_size": 50},
        {"compression": "gzip", "use_dictionary": False},
        {"data_page_version": "2.0", "data_page_size": 100, "write_statistics": False},
        {"write_page_index": True, "version": "1.0"},
    ],
    ids=str,
)
def test_sizes_equal_those_that_pyarrow_reads(values: dict[str, list[Any]], options: dict[str, Any]) -> None:
    stream = written(values, **options)
    table = parquet.ParquetFile(stream)
    groups = read_footer(stream)
    assert len(groups) == table.metadata.num_row_groups
    for number, group in enumerate(groups):
        theirs = table.metadata.row_group(number)
        assert (group.num_bytes, len(group.chunks)) == (theirs.total_byte_size, theirs.num_columns)
        for index, chunk in enumerate(group.chunks):
            column = theirs.column(index)
            begin = column.dictionary_page_offset if column.has_dictionary_page else column.data_page_offset
            assert (chunk.begin, chunk.num_bytes) == (begin, column.total_compressed_size)
            assert chunk.num_values == column.num_values
        pages = column_pages(stream, table, list(values), group)
        assert [page.num_values for page in pages] == [chunk.num_values for chunk in group.chunks]


def test_metadata_for_which_pyarrow_ends_the_process_are_refused(tmp_path: Path) -> None:
    """A histogram of definition levels longer than the schema has levels: pyarrow does not catch that error of C++.

    Some of these bytes are the repetition of a column; asked for the metadata of its chunks, pyarrow 26.0 aborts.
    """
    blob = written({"path": ["0.png", "1.png"], "label": ["cat", "dog"]}, compression="none").getvalue()
    reasons = []
    for step in (1, 254):
        for position in range(len(blob) - 520, len(blob) - 470):
            damaged = bytearray(blob)
            damaged[position] = (damaged[position] + step) % 256
            (tmp_path / "a.parquet").write_bytes(damaged)
            with pytest.raises(DataError) as caught:  # there are no images either
                load_data(tmp_path / "a.parquet")
            reasons.append(str(caught.value))
    assert any("histogram size mismatch" in reason for reason in reasons)


@pytest.mark.parametrize("block", [b"", b"\x15", b"\x19\xf5\xff\xff\xff\x0f", b"\x18\xff\x01", b"\x15" + b"\xff" * 20])
def test_a_structure_that_does_not_end(block: bytes) -> None:
    with pytest.raises((IndexError, ValueError)):
        CompactReader(block).structure()


def test_a_structure_nested_too_deeply() -> None:
    with pytest.raises(ValueError, match="nested too deeply"):
        CompactReader(b"\x1c" * 1000).structure()
