"""Unpickles the CIFAR files safely: dictionaries, lists, integers, strings and one uint8 matrix, and nothing else.

No object of numpy or Python is constructed at the pickle's request. Each global that the CIFAR files name is replaced
by a small class of this module, which validates its arguments. Any other global raises DataError with its name.

A pickle takes little more memory than its file: the number of its operations is limited, and a length that it claims is
allocated only once so many bytes have been read.
"""

import io
import math
import pickle
import re
from collections.abc import Callable, Mapping
from reprlib import repr as shown  # of limited depth: repr does not end on a structure that contains itself
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from timebox.errors import DataError

# Operations of a pickle: an empty list takes one of a byte, and 64 bytes of memory. The largest CIFAR file, with 50,000
# images, takes 350,000 of them.
_MAX_OPERATIONS = 2_000_000
# In longer texts each character must fit into a byte, as those of pickled bytes do: with a single one that does not,
# all of them take four.
_MAX_WIDE_TEXT = 1 << 16
# Escapes of such characters in protocol 0. Bytes from 0xc4 on begin them in the others.
_WIDE_ESCAPE = re.compile(rb"\\u(?!00)|\\U")
_WIDE_LEAD = 0xC4
_MAX_DIMS = 32


def load_pickled_dict(blob: bytes, source: str) -> dict[str, object]:
    """Unpickle a dictionary with Python 2 strings as bytes and arrays as uint8. `source` is named in errors.

    Raises DataError for a damaged pickle, and for any other content.
    """
    try:
        loaded = _SafeUnpickler(blob).load()
        if not isinstance(loaded, dict):
            raise DataError(f"it holds a {type(loaded).__name__}, not a dictionary")
        return {key.decode("latin1") if isinstance(key, bytes) else key: _array(value) for key, value in loaded.items()}
    except DataError as error:
        raise DataError(f"{source}: {error}") from error
    # A damaged or malicious pickle can make the unpickler raise KeyError, IndexError, AttributeError, ...
    except Exception as error:
        raise DataError(f"{source}: not a whole pickle (truncated or damaged): {type(error).__name__}") from error


# The Python implementation, because the C one allocates memory for any memo index that a pickle claims: eight bytes
# made it allocate 4 GB in 14 s. A CIFAR batch of 31 MB takes it some hundredths of a second: the images are one string.
class _SafeUnpickler(pickle._Unpickler):
    dispatch: ClassVar[dict[int, Any]] = dict(pickle._Unpickler.dispatch)
    append: Callable[[object], None]
    pop_mark: Callable[[], list[object]]
    read: Callable[[int], bytes]
    readline: Callable[[], bytes]

    def __init__(self, blob: bytes) -> None:
        super().__init__(io.BytesIO(blob), encoding="bytes")
        self.dispatch = _CountedDispatch(self.dispatch)  # type: ignore[misc]
        self._encode = _Encode(len(blob))

    def find_class(self, module: str, name: str) -> object:
        if (module, name) == ("_codecs", "encode"):
            return _Global(self._encode)
        replacement = _ALLOWED_GLOBALS.get((module, name))
        if replacement is None:
            raise DataError(f"this pickle asks for {module}.{name}, which no CIFAR file holds; refused")
        return _Global(replacement)

    def get_extension(self, code: int) -> object:
        raise DataError(f"this pickle asks for the registered extension {code}, which no CIFAR file holds; refused")

    def persistent_load(self, pid: object) -> object:
        raise DataError("this pickle asks for a persistent object, which no CIFAR file holds; refused")

    def load_empty_dict(self) -> None:
        self.append(_StringKeyDict())

    def load_filled_dict(self) -> None:
        items, filled = self.pop_mark(), _StringKeyDict()
        for key, value in zip(items[::2], items[1::2], strict=True):
            filled[key] = value
        self.append(filled)

    def load_short_text(self) -> None:
        self._load_text(1)

    def load_text(self) -> None:
        self._load_text(4)

    def load_long_text(self) -> None:
        self._load_text(8)

    def _load_text(self, width: int) -> None:
        length = int.from_bytes(self.read(width), "little")
        blob = self.read(length)
        if len(blob) > _MAX_WIDE_TEXT and np.frombuffer(blob, np.uint8).max() >= _WIDE_LEAD:
            raise _wide_text(blob)
        self.append(blob.decode("utf-8", "surrogatepass"))

    def load_line_of_text(self) -> None:
        line = self.readline()[:-1]
        if len(line) > _MAX_WIDE_TEXT and _WIDE_ESCAPE.search(line):
            raise _wide_text(line)
        self.append(line.decode("raw-unicode-escape"))

    def refuse_bytearray(self) -> None:
        raise DataError("this pickle holds a bytearray, which no CIFAR file does; refused")

    def refuse_set(self) -> None:
        raise DataError("this pickle holds a set, which no CIFAR file does; refused")

    dispatch[pickle.UNICODE[0]] = load_line_of_text
    dispatch[pickle.SHORT_BINUNICODE[0]] = load_short_text
    dispatch[pickle.BINUNICODE[0]] = load_text
    dispatch[pickle.BINUNICODE8[0]] = load_long_text
    dispatch[pickle.BYTEARRAY8[0]] = refuse_bytearray  # Python allocates any length that is claimed
    dispatch[pickle.EMPTY_DICT[0]] = load_empty_dict
    dispatch[pickle.DICT[0]] = load_filled_dict
    dispatch[pickle.EMPTY_SET[0]] = dispatch[pickle.FROZENSET[0]] = refuse_set


def _wide_text(text: bytes) -> DataError:
    return DataError(f"it holds a text of {len(text):,} bytes with characters that are no bytes; no CIFAR file does")


class _CountedDispatch(dict[int, Any]):
    """The operations of an unpickler, by code. Raises DataError once more are asked for than a CIFAR file has."""

    def __init__(self, dispatch: Mapping[int, Any]) -> None:
        super().__init__(dispatch)
        self._num_left = _MAX_OPERATIONS

    def __getitem__(self, code: int) -> Any:
        self._num_left -= 1
        if self._num_left < 0:
            raise DataError(f"this pickle has more than {_MAX_OPERATIONS:,} operations, more than any CIFAR file")
        return super().__getitem__(code)


class _StringKeyDict(dict[object, object]):
    """A dictionary with string keys only: nested tuples, each holding the one before twice, take years to hash."""

    __slots__ = ()

    def __setitem__(self, key: object, value: object) -> None:
        if not isinstance(key, str | bytes):
            raise DataError(f"it has the key {shown(key)}, not a string")
        super().__setitem__(key, value)


class _Global:
    """A global that the pickle may call but not modify."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[..., object]) -> None:
        self._make = make

    def __call__(self, *args: object) -> object:
        return self._make(*args)

    def __setstate__(self, state: object) -> None:
        raise DataError("this pickle sets the state of a Global; refused")


class _Encode:
    """Replacement of _codecs.encode, which Python 3 uses to pickle bytes in protocol 2.

    All texts together may be as long as the pickle: each text is encoded once, in a file that Python wrote.
    """

    __slots__ = ("_max_characters",)

    def __init__(self, max_characters: int) -> None:
        self._max_characters = max_characters

    def __call__(self, text: object, encoding: object) -> bytes:
        if not isinstance(text, str) or encoding not in ("latin1", b"latin1"):
            raise DataError(f"this pickle asks for the encoding {shown(encoding)}; refused")
        self._max_characters -= len(text)
        if self._max_characters < 0:
            raise DataError("this pickle encodes more text than it holds; refused")
        return text.encode("latin1")


class _DType:
    """Replacement of numpy.dtype; uint8 is the only one allowed."""

    __slots__ = ()

    def __init__(self, code: object, *_: object) -> None:
        if code not in ("u1", b"u1"):
            raise DataError(f"it holds an array of dtype {shown(code)}; only bytes ('u1') are allowed")

    def __setstate__(self, state: object) -> None:
        """Ignore byte order and flags, which uint8 does not have."""


class _Array:
    """Replacement of numpy.ndarray: empty when constructed, filled by its state after validation."""

    __slots__ = ("array",)

    def __init__(self, *_: object) -> None:
        self.array: NDArray[np.uint8] | None = None

    def __setstate__(self, state: object) -> None:
        match state:
            case (int(), tuple(shape), _DType(), bool(column_major), bytes(raw)):
                # Checked before they are multiplied: products of long integers take minutes.
                are_lengths = all(isinstance(length, int) and 0 <= length <= len(raw) for length in shape)
                if len(shape) > _MAX_DIMS or not are_lengths or math.prod(shape) != len(raw):
                    raise DataError(f"it holds an array of shape {shown(shape)}, but {len(raw):,} bytes for it")
                flat = np.frombuffer(raw, dtype=np.uint8)
                self.array = flat.reshape(shape, order="F" if column_major else "C")
            case _:
                raise DataError("it holds an array in a form no CIFAR file has")


def _refuse_call(*_: object) -> object:
    raise DataError("this pickle calls numpy.ndarray; refused")


_ALLOWED_GLOBALS: dict[tuple[str, str], Callable[..., object]] = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): _refuse_call,
    ("numpy", "dtype"): _DType,
}


def _array(value: object) -> object:
    if isinstance(value, _Array):
        if value.array is None:
            raise DataError("it holds an array without content")
        return value.array
    return value
