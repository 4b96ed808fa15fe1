"""The pages of a Parquet file, measured by their headers before pyarrow reads any: it allocates what a header claims.

Source of the format: https://parquet.apache.org/docs/file-format/
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from pyarrow import parquet

_TAIL_BYTES = 8  # the length of the footer, and the file's last four bytes
_MAX_FOOTER_BYTES = 1 << 28
_HEADER_BYTES, _MAX_HEADER_BYTES = 1 << 14, 1 << 24  # as pyarrow reads them
_MAX_DEPTH = 16
_MAX_ITEMS = 1 << 16  # of a list in a header; statistics have none
# Types of Thrift's compact protocol.
_STOP, _TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _STRUCT = 0, 1, 2, 3, 7, 8, 9, 10, 12
_INTEGERS = (4, 5, 6)
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


def footer_length(file: BinaryIO) -> int:
    """The length of the metadata at the end of a file. Raises ValueError where it is longer than it may be."""
    size = file.seek(0, 2)
    file.seek(max(0, size - _TAIL_BYTES))
    length = int.from_bytes(file.read(4), "little")
    file.seek(0)
    if length > min(size, _MAX_FOOTER_BYTES):
        raise ValueError(f"its metadata claim {length:,} bytes, of at most {min(size, _MAX_FOOTER_BYTES):,}")
    return length


def column_pages(file: BinaryIO, table: "parquet.ParquetFile", names: Sequence[str], group: int) -> list[ColumnPages]:
    """The pages of the columns of these names in a row group. Raises ValueError for damaged headers."""
    metadata, chunks = table.metadata.row_group(group), []
    for index in range(metadata.num_columns):
        column, schema = metadata.column(index), table.schema.column(index)
        if any(schema.path == name or schema.path.startswith(f"{name}.") for name in names):
            chunks.append(_chunk_pages(file, column, schema.max_repetition_level > 0, max(schema.length or 0, 0)))
    return chunks


def _chunk_pages(
    file: BinaryIO, column: "parquet.ColumnChunkMetaData", is_repeated: bool, value_bytes: int
) -> ColumnPages:
    dictionary = column.dictionary_page_offset if column.has_dictionary_page else None
    begin = column.data_page_offset
    position = dictionary if dictionary and 0 < dictionary < begin else begin
    end = position + column.total_compressed_size
    num_values = num_bytes = largest = largest_packed = dictionary_bytes = 0
    while position < end and num_values < column.num_values:
        header, length = _page_header(file, position)
        unpacked, packed = header.get(_UNPACKED_SIZE), header.get(_PACKED_SIZE)
        if unpacked is None or packed is None or unpacked < 0 or not 0 <= packed <= end - position:
            raise ValueError("a page claims an impossible size")
        position += length + packed
        num_values += max(0, header.get(_DATA_PAGE, 0), header.get(_DATA_PAGE_V2, 0))
        num_bytes += unpacked
        largest, largest_packed = max(largest, unpacked, value_bytes), max(largest_packed, packed)
        if _DICTIONARY_PAGE in header:
            dictionary_bytes = max(dictionary_bytes, unpacked)
    working = largest + largest_packed + 2 * dictionary_bytes
    return ColumnPages(is_repeated, num_values, num_bytes, largest, working)


def _page_header(file: BinaryIO, position: int) -> tuple[dict[int, int], int]:
    """(the numbers of a page's header by field, its length). Of a structure, its first field."""
    size = _HEADER_BYTES
    while True:
        file.seek(position)
        block = file.read(size)
        try:
            reader = _CompactReader(block)
            return reader.structure(), reader.position
        except IndexError as error:
            if len(block) < size or size >= _MAX_HEADER_BYTES:
                raise ValueError("the header of a page is damaged") from error
            size *= 8


class _CompactReader:
    """Reads structures in Thrift's compact protocol. Raises IndexError where they do not end in the block."""

    def __init__(self, block: bytes) -> None:
        self._block, self.position = block, 0

    def structure(self, depth: int = 0) -> dict[int, int]:
        """The integers of a structure by field; of a structure in it, its first field; other values are skipped."""
        values: dict[int, int] = {}
        field = 0
        for kind, step in iter(self._field, (_STOP, 0)):
            field = field + step if step else self._signed()
            value = self._value(kind, depth)
            if value is not None:
                values[field] = value
        return values

    def _field(self) -> tuple[int, int]:
        byte = self._byte()
        return (byte & 15, byte >> 4) if byte & 15 else (_STOP, 0)

    def _value(self, kind: int, depth: int) -> int | None:
        if depth > _MAX_DEPTH:
            raise ValueError("the header of a page is nested too deeply")
        if kind in _INTEGERS:
            return self._signed()
        if kind == _STRUCT:
            return self.structure(depth + 1).get(1, 0)
        if kind in (_LIST, _SET):
            for item in self._items():
                self._value(item, depth + 1)
        elif kind in (_BYTE, _DOUBLE, _BINARY):
            self._skip({_BYTE: 1, _DOUBLE: 8}.get(kind) or self._unsigned())
        elif kind not in (_TRUE, _FALSE):
            raise ValueError("the header of a page is damaged")
        return None

    def _items(self) -> Iterator[int]:
        byte = self._byte()
        number = byte >> 4 if byte >> 4 < 15 else self._unsigned()
        if number > _MAX_ITEMS:
            raise ValueError("the header of a page is damaged")
        yield from [byte & 15] * number

    def _signed(self) -> int:
        value = self._unsigned()
        return (value >> 1) ^ -(value & 1)

    def _unsigned(self) -> int:
        value = shift = 0
        while shift < 64:
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7
        raise ValueError("the header of a page is damaged")

    def _byte(self) -> int:
        self.position += 1
        return self._block[self.position - 1]

    def _skip(self, num_bytes: int) -> None:
        self.position += num_bytes
        if self.position > len(self._block):
            raise IndexError
