"""The memory that the cells of a table take, checked while the table is read: a small file can ask for a huge table."""

from pathlib import Path

from timebox.data.reading.decompression_limits import check_unpacked
from timebox.errors import DataError
from timebox.machine import available_memory, memory_shortage

# Bytes of a cell in its column: the reference, and with it the object that holds a short text.
_REFERENCE_BYTES, _OBJECT_BYTES = 8, 64


class TableMemory:
    """Counts the cells of a table. Raises DataError where they exceed the decompression limits, or the memory that was
    available when reading began."""

    def __init__(self, path: Path) -> None:
        self._source, self._packed_bytes, self._available = str(path), path.stat().st_size, available_memory()
        self._num_cells = self._num_bytes = 0

    def add(self, num_cells: int, num_bytes: int) -> None:
        """Count cells with contents of `num_bytes`."""
        self.check(num_cells, num_bytes)
        self._num_cells += num_cells
        self._num_bytes += num_bytes

    def check(self, num_cells: int, num_bytes: int = 0, *, working_bytes: int = 0) -> None:
        """Check that so many more cells may be read, for which the reader itself takes `working_bytes` for a while."""
        num_cells, num_bytes = self._num_cells + num_cells, self._num_bytes + num_bytes
        check_unpacked(num_cells * _REFERENCE_BYTES + num_bytes, self._packed_bytes, self._source)
        needed = num_cells * _OBJECT_BYTES + num_bytes + working_bytes
        if self._available is not None and needed > self._available:
            reason = memory_shortage(needed, f"{num_cells:,} cells", self._available)
            raise DataError(f"{self._source} {reason}; split it into smaller tables")
