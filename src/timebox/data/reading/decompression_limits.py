"""How far an archive may unpack before it is taken for a decompression bomb."""

from gzip import GzipFile
from typing import IO

from timebox.errors import DataError

MAX_BYTES = 64 << 30
FREE_BYTES = 64 << 20  # up to here any ratio is welcome: blank images pack a thousandfold
MAX_RATIO = 200  # photographs pack to a half, MNIST to a fifth, drawings to a fiftieth


def check_unpacked(num_bytes: int, packed_bytes: int, source: str) -> None:
    """Raises DataError where `packed_bytes` of an archive unpack to more than any honest one's."""
    if num_bytes > min(MAX_BYTES, max(FREE_BYTES, packed_bytes * MAX_RATIO)):
        raise DataError(
            f"{source}: unpacks from {packed_bytes:,} bytes to {num_bytes:,} or more, which looks like a decompression "
            f"bomb: at most {MAX_RATIO} times the size is read, and {MAX_BYTES:,} bytes; unpack it yourself if you "
            "trust it"
        )


class LimitedReader:
    """A stream of unpacked bytes that raises DataError as soon as there are too many of them.

    Args:
        stream: read from here on.
        packed_bytes: length of what it is unpacked from.
        source: named in errors.
    """

    def __init__(self, stream: IO[bytes] | GzipFile, packed_bytes: int, source: str) -> None:
        self._stream = stream
        self._packed_bytes = packed_bytes
        self._source = source
        self._num_bytes = 0

    def read(self, size: int) -> bytes:
        """Up to `size` bytes; none at the end."""
        block = self._stream.read(size)
        self._num_bytes += len(block)
        check_unpacked(self._num_bytes, self._packed_bytes, self._source)
        return block
