"""Reads structures in Thrift's compact protocol, in which Parquet writes its metadata and the headers of its pages.

Source of the format: https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md
"""

from typing import Any

_MAX_DEPTH = 16
_STOP, _TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _STRUCT = 0, 1, 2, 3, 7, 8, 9, 10, 12
_INTEGERS = (4, 5, 6)

Structure = dict[int, Any]


class CompactReader:
    """Reads values from a block of bytes, one after the other. Nothing is allocated beyond the bytes of the block.

    Raises IndexError where a value does not end in the block, and ValueError for one that is damaged.
    """

    def __init__(self, block: bytes) -> None:
        self._block, self.position = block, 0

    def structure(self, depth: int = 0) -> Structure:
        """The values of a structure by field: integers, bytes, lists and structures; None for other types."""
        values: Structure = {}
        field = 0
        for kind, step in iter(self._field, (_STOP, 0)):
            field = field + step if step else self._signed()
            values[field] = self._value(kind, depth)
        return values

    def _field(self) -> tuple[int, int]:
        byte = self._byte()
        return (byte & 15, byte >> 4) if byte & 15 else (_STOP, 0)

    def _value(self, kind: int, depth: int) -> Any:
        if depth > _MAX_DEPTH:
            raise ValueError("its structures are nested too deeply")
        if kind in _INTEGERS:
            return self._signed()
        if kind == _STRUCT:
            return self.structure(depth + 1)
        if kind in (_LIST, _SET):
            return self._list(depth)
        if kind == _BINARY:
            return self._bytes(self._unsigned())
        if kind in (_BYTE, _DOUBLE):
            self._bytes(1 if kind == _BYTE else 8)
        elif kind not in (_TRUE, _FALSE):
            raise ValueError(f"it has the unknown type {kind}")
        return None

    def _list(self, depth: int) -> list[Any]:
        byte = self._byte()
        number = byte >> 4 if byte >> 4 < 15 else self._unsigned()
        kind = byte & 15
        if number > len(self._block) - self.position:  # each item takes a byte or more
            raise IndexError
        if kind in (_TRUE, _FALSE):
            self._bytes(number)
            return [None] * number
        return [self._value(kind, depth + 1) for _ in range(number)]

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
        raise ValueError("it has a number that does not end")

    def _byte(self) -> int:
        self.position += 1
        return self._block[self.position - 1]

    def _bytes(self, number: int) -> bytes:
        self.position += number
        if self.position > len(self._block):
            raise IndexError
        return self._block[self.position - number : self.position]
