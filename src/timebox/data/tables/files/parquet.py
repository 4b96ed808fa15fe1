"""Reads Parquet tables with pyarrow, including the image and class columns of Hugging Face."""

import json
import mmap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO

from timebox.data.images.signatures import is_encoded_image
from timebox.data.reading.decompression_limits import check_unpacked
from timebox.data.reading.options import ProgressNotifier, ReadOptions
from timebox.data.reading.text import first_repeated
from timebox.data.tables.files.parquet_pages import column_pages, footer_length, read_footer
from timebox.data.tables.files.table import Cell, Table, join_list
from timebox.data.tables.files.table_memory import TableMemory
from timebox.errors import DataError, TimeboxError
from timebox.files import open_regular, temporary_file

if TYPE_CHECKING:
    import pyarrow
    from pyarrow import parquet

# A value may be as long as the largest page, so that a dictionary, or a shared prefix, is copied so many times.
_ROWS_PER_BATCH, _BATCH_BYTES = 64, 1 << 29
_BUFFER_BYTES = 1 << 20  # pages are read piece by piece, rather than a whole column of a row group
# pyarrow's own limits on metadata.
_MAX_METADATA_ITEMS, _MAX_METADATA_TEXT = 1_000_000, 100_000_000
# Bytes of an item of a list, as pyarrow holds it with its levels, and as Python does.
_ARROW_ITEM_BYTES, _PYTHON_ITEM_BYTES = 12, 64
_MAX_TEXT_BYTES = 1_000


def read_parquet(path: Path, options: ReadOptions) -> Table:
    """Read the columns of text, numbers, booleans, bytes, lists of one of these, and Hugging Face images; others are
    left out. A list of one element is that element, a one-hot list the position of its 1; any other list becomes its
    elements joined by ``LIST_SEPARATOR``.

    Encoded images are copied to a memory-mapped temporary file. Raises DataError where pyarrow is missing or fails.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise DataError(f"{path}: reading Parquet takes pyarrow: pip install 'timebox-vision[tables]'") from error
    notify = ProgressNotifier(options.notify)
    try:
        with open_regular(path) as file, _open(file, parquet) as table, temporary_file() as temporary:
            if (repeated := first_repeated([field.name for field in table.schema_arrow])) is not None:
                raise DataError(f"{path}: two columns are named {repeated!r}")
            readable = [field.name for field in table.schema_arrow if _is_readable(field.type, pyarrow)]
            memory, buffer = TableMemory(path), _ImageBuffer(temporary, path)
            rows_per_batch = _check_pages(file, table, readable, path, memory)
            columns: dict[str, list[Cell | _Span]] = {name: [] for name in readable}
            # Without columns, pyarrow counts up to any number of rows that the metadata claim.
            # In one thread: glibc aborts the process where memory ends as another thread touches its local data.
            batches = table.iter_batches(rows_per_batch, columns=readable, use_threads=False) if readable else ()
            for batch in batches:
                for name, cells in columns.items():
                    cells.extend(_cells(batch.column(name), buffer, memory))
                options.time.check()
                notify(f"read {len(next(iter(columns.values()), [])):,} of {table.metadata.num_rows:,} rows")
            images = buffer.map()
            return Table(
                {
                    name: [images[slice(*cell)] if isinstance(cell, _Span) else cell for cell in cells]
                    for name, cells in columns.items()
                },
                _class_names(table.schema_arrow.metadata or {}),
            )
    except (pyarrow.ArrowException, OSError, ValueError, MemoryError) as error:
        if isinstance(error, TimeboxError):
            raise
        raise DataError(f"{path}: not a Parquet table, or a damaged one ({error})") from error


class _Span(tuple[int, int]):
    """(start, stop) in bytes of an encoded image in the buffer."""

    __slots__ = ()


def _open(file: BinaryIO, parquet: Any) -> "parquet.ParquetFile":
    """Open a table whose metadata and pages are read piece by piece, no list in the metadata longer than they are."""
    length = footer_length(file)
    return parquet.ParquetFile(
        file,
        buffer_size=_BUFFER_BYTES,
        thrift_container_size_limit=min(_MAX_METADATA_ITEMS, length),
        thrift_string_size_limit=min(_MAX_METADATA_TEXT, length),
    )


def _check_pages(
    file: BinaryIO, table: "parquet.ParquetFile", readable: Sequence[str], path: Path, memory: TableMemory
) -> int:
    """The number of rows to read at once. Raises DataError where what the pages hold exceeds the decompression limits,
    or the memory."""
    packed_bytes = path.stat().st_size
    groups = read_footer(file)
    check_unpacked(sum(group.num_bytes for group in groups), packed_bytes, str(path))
    num_bytes = num_cells = num_items = working = largest = 0
    for group in groups:
        chunks = column_pages(file, table, readable, group)
        num_bytes += sum(chunk.num_bytes for chunk in chunks)
        num_cells += sum(chunk.num_values for chunk in chunks if not chunk.is_repeated)
        items = sum(chunk.num_values for chunk in chunks if chunk.is_repeated)
        num_items += items
        largest = max([largest, *(chunk.largest_page for chunk in chunks)])
        # All the items of a row group may be in the list of one row.
        working = max(working, sum(chunk.working_bytes for chunk in chunks) + items * _ARROW_ITEM_BYTES)
        check_unpacked(num_bytes + num_items * _ARROW_ITEM_BYTES, packed_bytes, str(path))
        memory.check(num_cells, working_bytes=working)
    return max(1, min(_ROWS_PER_BATCH, _BATCH_BYTES // max(1, largest)))


class _ImageBuffer:
    """Encoded images in an unlinked temporary file, so that they need not stay in memory."""

    def __init__(self, file: IO[bytes], source: Path) -> None:
        self._file, self._source = file, source
        self._length, self._packed_bytes = 0, source.stat().st_size

    def append(self, blob: bytes) -> _Span:
        """Append an image. Raises DataError where the images exceed the decompression limits."""
        self._length += len(blob)
        check_unpacked(self._length, self._packed_bytes, str(self._source))
        self._file.write(blob)
        return _Span((self._length - len(blob), self._length))

    def map(self) -> memoryview:
        """A read-only memory map of all images; it stays valid after the file is closed."""
        self._file.flush()
        if not self._length:
            return memoryview(b"")
        return memoryview(mmap.mmap(self._file.fileno(), self._length, access=mmap.ACCESS_READ))


def _is_readable(kind: "pyarrow.DataType", pyarrow: Any) -> bool:
    types = pyarrow.types
    if types.is_dictionary(kind):
        return _is_readable(kind.value_type, pyarrow)
    if types.is_struct(kind):
        return {"bytes", "path"} & {kind.field(i).name for i in range(kind.num_fields)} != set()
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return not types.is_nested(kind.value_type) and _is_readable(kind.value_type, pyarrow)
    tests = (types.is_string, types.is_large_string, types.is_binary, types.is_large_binary, types.is_integer)
    return any(test(kind) for test in (*tests, types.is_boolean, types.is_floating, types.is_decimal))


def _cells(column: "pyarrow.Array", buffer: _ImageBuffer, memory: TableMemory) -> Iterator[Cell | _Span]:
    if hasattr(column.type, "value_field"):  # of lists
        memory.check(0, working_bytes=len(column.flatten()) * _PYTHON_ITEM_BYTES)
    for value in column.to_pylist():
        if isinstance(value, Mapping):  # a Hugging Face image: its bytes or its path
            value = value.get("bytes") or value.get("path")
        if isinstance(value, list):
            value = join_list(value)
        if isinstance(value, bytes) and (text := _short_text(value)) is None:
            yield buffer.append(value)
            continue
        cell = None if value is None else text if isinstance(value, bytes) else str(value)
        memory.add(1, len(cell or ""))
        yield cell


def _short_text(value: bytes) -> str | None:
    """The text of bytes that are no image, as of a label; None for an image or other data."""
    if len(value) > _MAX_TEXT_BYTES or is_encoded_image(value[:64]):
        return None
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return None
    return text if text.isprintable() else None


def _class_names(metadata: Mapping[bytes, bytes]) -> dict[str, tuple[str, ...]]:
    """Column name -> class names, from the metadata that Hugging Face adds to the schema."""
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"].items()
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}
    return {
        column: tuple(map(str, feature["names"]))
        for column, feature in features
        if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and isinstance(feature.get("names"), list)
    }
