"""The pages of a Parquet file, measured by their headers before pyarrow reads any: it allocates what a header claims.

Source of the format: https://parquet.apache.org/docs/file-format/
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from timebox.data.tables.files.thrift import CompactReader, Structure

if TYPE_CHECKING:
    from pyarrow import parquet

_TAIL_BYTES = 8  # the length of the footer, and the file's last four bytes
_MAX_FOOTER_BYTES = 1 << 28
_HEADER_BYTES, _MAX_HEADER_BYTES = 1 << 14, 1 << 24  # as pyarrow reads them
# Fields of the metadata: of the file, of a row group, of a column chunk, and of the metadata of that chunk.
_ROW_GROUPS, _CHUNKS, _TOTAL_SIZE, _METADATA = 4, 1, 2, 3
_NUM_VALUES, _PACKED, _DATA_OFFSET, _DICTIONARY_OFFSET = 5, 7, 9, 11
# Fields of a page's header: its two sizes, and the structures that hold the number of values as their first field.
_UNPACKED_SIZE, _PACKED_SIZE, _DATA_PAGE, _DICTIONARY_PAGE, _DATA_PAGE_V2 = 2, 3, 5, 7, 8


@dataclass(frozen=True)
class ColumnPages:
    """The sizes that the pages of a column chunk claim.

    Attributes:
        is_repeated: whether a row holds a list of values.
        num_values: in all pages but the dictionary.
        num_bytes: of all pages, decompressed.
        largest_page: bytes of the largest page, decompressed; no value is longer.
        working_bytes: of a page, compressed and decompressed, and the dictionary, which are in memory together.
    """

    is_repeated: bool
    num_values: int
    num_bytes: int
    largest_page: int
    working_bytes: int


@dataclass(frozen=True)
class ColumnChunk:
    """A column of a row group, as the metadata describe it: its first byte, its length in bytes, its values."""

    begin: int
    num_bytes: int
    num_values: int


@dataclass(frozen=True)
class RowGroup:
    """Rows of a file: their bytes in all columns, decompressed, as the metadata claim, and their column chunks."""

    num_bytes: int
    chunks: list[ColumnChunk]


def footer_length(file: BinaryIO) -> int:
    """The length of the metadata at the end of a file. Raises ValueError where it is longer than it may be."""
    size = file.seek(0, 2)
    file.seek(max(0, size - _TAIL_BYTES))
    length = int.from_bytes(file.read(4), "little")
    file.seek(0)
    if length > min(size, _MAX_FOOTER_BYTES):
        raise ValueError(f"its metadata claim {length:,} bytes, of at most {min(size, _MAX_FOOTER_BYTES):,}")
    return length


def read_footer(file: BinaryIO) -> list[RowGroup]:
    """The row groups of a Parquet file, from the metadata at its end. Raises ValueError for damaged metadata.

    pyarrow ends the process for some damaged column chunks where it is asked for their metadata (seen with 26.0).
    """
    length = footer_length(file)
    file.seek(-_TAIL_BYTES - length, 2)
    try:
        groups = CompactReader(file.read(length)).structure().get(_ROW_GROUPS, [])
        return [
            RowGroup(group.get(_TOTAL_SIZE, 0), [_chunk(chunk[_METADATA]) for chunk in group[_CHUNKS]])
            for group in groups
        ]
    except (IndexError, KeyError, TypeError, AttributeError) as error:
        raise ValueError("its metadata are damaged") from error
    finally:
        file.seek(0)


def _chunk(metadata: Structure) -> ColumnChunk:
    """Raises KeyError or TypeError where a number is missing, or is none."""
    values, packed, begin = (metadata[field] for field in (_NUM_VALUES, _PACKED, _DATA_OFFSET))
    dictionary = metadata.get(_DICTIONARY_OFFSET) or 0
    # Some writers give an offset of 0 where there is no dictionary.
    position = dictionary if 0 < dictionary < begin else begin
    if min(values, packed, position) < 0:
        raise ValueError("its metadata claim an impossible size")
    return ColumnChunk(position, packed, values)


def column_pages(
    file: BinaryIO, table: "parquet.ParquetFile", names: Sequence[str], group: RowGroup
) -> list[ColumnPages]:
    """The pages of the columns of these names in a row group. Raises ValueError for damaged headers."""
    chunks = []
    if len(group.chunks) != len(table.schema):
        raise ValueError("its metadata are damaged: a row group has another number of columns than the table")
    for index, chunk in enumerate(group.chunks):
        schema = table.schema.column(index)
        if any(schema.path == name or schema.path.startswith(f"{name}.") for name in names):
            chunks.append(_chunk_pages(file, chunk, schema.max_repetition_level > 0, max(schema.length or 0, 0)))
    return chunks


def _chunk_pages(file: BinaryIO, chunk: ColumnChunk, is_repeated: bool, value_bytes: int) -> ColumnPages:
    position, end = chunk.begin, chunk.begin + chunk.num_bytes
    num_values = num_bytes = largest = largest_packed = dictionary_bytes = 0
    while position < end and num_values < chunk.num_values:
        header, length = _page_header(file, position)
        unpacked, packed = _number(header.get(_UNPACKED_SIZE)), _number(header.get(_PACKED_SIZE))
        if unpacked < 0 or not 0 <= packed <= end - position:
            raise ValueError("a page claims an impossible size")
        position += length + packed
        num_values += max(_first_number(header, _DATA_PAGE), _first_number(header, _DATA_PAGE_V2))
        num_bytes += unpacked
        largest, largest_packed = max(largest, unpacked, value_bytes), max(largest_packed, packed)
        if _DICTIONARY_PAGE in header:
            dictionary_bytes = max(dictionary_bytes, unpacked)
    working = largest + largest_packed + 2 * dictionary_bytes
    return ColumnPages(is_repeated, num_values, num_bytes, largest, working)


def _first_number(header: Structure, field: int) -> int:
    """The first field of a structure in a header: the number of values of a data page."""
    inner = header.get(field)
    return max(0, _number(inner.get(1))) if isinstance(inner, dict) else 0


def _number(value: object) -> int:
    """The value, or -1 where it is no number."""
    return value if isinstance(value, int) else -1


def _page_header(file: BinaryIO, position: int) -> tuple[Structure, int]:
    """(the header of the page at a position, its length)."""
    size = _HEADER_BYTES
    while True:
        file.seek(position)
        block = file.read(size)
        try:
            reader = CompactReader(block)
            return reader.structure(), reader.position
        except IndexError as error:
            if len(block) < size or size >= _MAX_HEADER_BYTES:
                raise ValueError("the header of a page is damaged") from error
            size *= 8
