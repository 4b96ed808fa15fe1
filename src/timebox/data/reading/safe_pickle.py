"""Unpickles the CIFAR files safely: dictionaries, lists, integers, strings and one uint8 matrix, and nothing else.

No object of numpy or Python is constructed at the pickle's request. Each global that the CIFAR files name is replaced
by a small class of this module, which validates its arguments. Any other global raises DataError with its name.
"""

import io
import math
import pickle
from collections.abc import Callable
from reprlib import repr as shown  # of limited depth: repr does not end on a structure that contains itself
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from timebox.errors import DataError


def load_pickled_dict(blob: bytes, source: str) -> dict[str, object]:
    """Unpickle a dictionary with Python 2 strings as bytes and arrays as uint8. `source` is named in errors.

    Raises DataError for a damaged pickle, and for any other content.
    """
    try:
        loaded = _SafeUnpickler(io.BytesIO(blob), encoding="bytes").load()
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

    def find_class(self, module: str, name: str) -> object:
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

    def refuse_set(self) -> None:
        raise DataError("this pickle holds a set, which no CIFAR file does; refused")

    dispatch[pickle.EMPTY_DICT[0]] = load_empty_dict
    dispatch[pickle.DICT[0]] = load_filled_dict
    dispatch[pickle.EMPTY_SET[0]] = dispatch[pickle.FROZENSET[0]] = refuse_set


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
                if not all(isinstance(length, int) and length >= 0 for length in shape):
                    raise DataError(f"it holds an array of shape {shown(shape)}")
                if math.prod(shape) != len(raw):
                    raise DataError(f"it holds an array of shape {shown(shape)}, but {len(raw):,} bytes for it")
                flat = np.frombuffer(raw, dtype=np.uint8)
                self.array = flat.reshape(shape, order="F" if column_major else "C")
            case _:
                raise DataError("it holds an array in a form no CIFAR file has")


def _refuse_call(*_: object) -> object:
    raise DataError("this pickle calls numpy.ndarray; refused")


def _encode(text: object, encoding: object) -> bytes:
    """Replacement of _codecs.encode, which Python 3 uses to pickle bytes in protocol 2."""
    if not isinstance(text, str) or encoding not in ("latin1", b"latin1"):
        raise DataError(f"this pickle asks for the encoding {shown(encoding)}; refused")
    return text.encode("latin1")


_ALLOWED_GLOBALS: dict[tuple[str, str], Callable[..., object]] = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): _refuse_call,
    ("numpy", "dtype"): _DType,
    ("_codecs", "encode"): _encode,
}


def _array(value: object) -> object:
    if isinstance(value, _Array):
        if value.array is None:
            raise DataError("it holds an array without content")
        return value.array
    return value
