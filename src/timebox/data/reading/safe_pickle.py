"""A pickle reader that can build what the CIFAR files hold, dictionaries, lists, integers, strings and one matrix of
bytes, and nothing else.

Not one object of numpy or Python is made from the pickle's word: each global the files name stands for a small
object of this module, which checks what it is given. Any other global is refused by name.
"""

import io
import math
import pickle
import reprlib
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from timebox.errors import DataError


def load_pickled_dict(blob: bytes, source: str) -> dict[str, object]:
    """The dictionary pickled in `blob`, its Python 2 strings as bytes, its arrays uint8. `source` is named in errors.

    Raises DataError for anything but a whole, harmless dictionary.
    """
    try:
        loaded = _SafeUnpickler(io.BytesIO(blob), encoding="bytes").load()
        if not isinstance(loaded, dict):
            raise DataError(f"it holds a {type(loaded).__name__}, not a dictionary")
        return {_text(key): _array(value) for key, value in loaded.items()}
    except DataError as error:
        raise DataError(f"{source}: {error}") from error
    # A damaged or hostile pickle can fail in any of the unpickler's steps: KeyError, IndexError, AttributeError, ...
    except Exception as error:
        raise DataError(f"{source}: not a whole pickle (truncated or damaged): {type(error).__name__}") from error


# The Python implementation, because the C one allocates whatever memo index a pickle claims: eight bytes cost it four
# gigabytes and 14 s. On a CIFAR batch of 31 MB it takes some hundredths of a second, as the images are one string.
class _SafeUnpickler(pickle._Unpickler):
    dispatch: ClassVar[dict[int, Any]] = dict(pickle._Unpickler.dispatch)
    append: Callable[[object], None]
    pop_mark: Callable[[], list[object]]

    def find_class(self, module: str, name: str) -> object:
        admitted = _ADMITTED.get((module, name))
        if admitted is None:
            raise DataError(f"this pickle asks for {module}.{name}, which no CIFAR file holds; refused")
        return _Global(admitted)

    def get_extension(self, code: int) -> object:
        raise DataError(f"this pickle asks for the registered extension {code}, which no CIFAR file holds; refused")

    def persistent_load(self, pid: object) -> object:
        raise DataError("this pickle asks for a persistent object, which no CIFAR file holds; refused")

    def load_empty_dict(self) -> None:
        self.append(_Dict())

    def load_filled_dict(self) -> None:
        items, filled = self.pop_mark(), _Dict()
        for key, value in zip(items[::2], items[1::2], strict=True):
            filled[key] = value
        self.append(filled)

    def refuse_set(self) -> None:
        raise DataError("this pickle holds a set, which no CIFAR file does; refused")

    dispatch[pickle.EMPTY_DICT[0]] = load_empty_dict
    dispatch[pickle.DICT[0]] = load_filled_dict
    dispatch[pickle.EMPTY_SET[0]] = dispatch[pickle.FROZENSET[0]] = refuse_set


class _Dict(dict[object, object]):
    """Takes strings alone as keys: a few dozen tuples, each holding the one before twice, take years to hash."""

    __slots__ = ()

    def __setitem__(self, key: object, value: object) -> None:
        if not isinstance(key, str | bytes):
            raise DataError(f"it has the key {_shown(key)}, not a string")
        super().__setitem__(key, value)


class _Sealed:
    """Has no attributes of its own to set, and refuses the pickle's attempts to set its state."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        raise DataError(f"this pickle sets the state of a {type(self).__name__.strip('_')}; refused")


class _Global(_Sealed):
    """A global as the pickle sees it: it can be called, not changed."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[..., object]) -> None:
        self._make = make

    def __call__(self, *args: object) -> object:
        return self._make(*args)


class _DType(_Sealed):
    """numpy.dtype, of which only the byte is admitted."""

    __slots__ = ()

    def __init__(self, code: object, *_: object) -> None:
        if code not in ("u1", b"u1"):
            raise DataError(f"it holds an array of dtype {_shown(code)}; only bytes ('u1') are admitted")

    def __setstate__(self, state: object) -> None:
        """Byte order and flags, none of which a byte has."""


class _Array(_Sealed):
    """numpy.ndarray: empty when made, filled by its state, checked before it is believed."""

    __slots__ = ("array",)

    def __init__(self, *_: object) -> None:
        self.array: NDArray[np.uint8] | None = None

    def __setstate__(self, state: object) -> None:
        match state:
            case (int(), tuple(shape), _DType(), bool(column_major), bytes(raw)):
                if not all(isinstance(length, int) and length >= 0 for length in shape):
                    raise DataError(f"it holds an array of shape {_shown(shape)}")
                if math.prod(shape) != len(raw):
                    raise DataError(f"it holds an array of shape {_shown(shape)}, but {len(raw):,} bytes for it")
                flat = np.frombuffer(raw, dtype=np.uint8)
                self.array = flat.reshape(shape, order="F" if column_major else "C")
            case _:
                raise DataError("it holds an array in a form no CIFAR file has")


def _refuse_call(*_: object) -> object:
    raise DataError("this pickle calls numpy.ndarray; refused")


def _encode(text: object, encoding: object) -> bytes:
    """_codecs.encode, by which Python 3 writes bytes in protocol 2."""
    if not isinstance(text, str) or encoding not in ("latin1", b"latin1"):
        raise DataError(f"this pickle asks for the encoding {_shown(encoding)}; refused")
    return text.encode("latin1")


_ADMITTED: dict[tuple[str, str], Callable[..., object]] = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): _refuse_call,
    ("numpy", "dtype"): _DType,
    ("_codecs", "encode"): _encode,
}


# repr would follow a structure nested in itself without end.
_shown = reprlib.repr


def _text(key: object) -> str:
    if isinstance(key, bytes):
        return key.decode("latin1")
    assert isinstance(key, str)
    return key


def _array(value: object) -> object:
    if isinstance(value, _Array):
        if value.array is None:
            raise DataError("it holds an array without content")
        return value.array
    return value
