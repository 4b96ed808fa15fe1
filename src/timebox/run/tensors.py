"""Writing tensors in the safetensors format, and reading them from a file that is not trusted.

Source of the format: https://huggingface.co/docs/safetensors
"""

import math
import os
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch
from safetensors.torch import save
from torch import Tensor

from timebox.data.arrays.npy import read_into
from timebox.errors import OutputError, RunError
from timebox.files import open_regular, parse_json_object
from timebox.machine import memory_shortage

MAX_HEADER_BYTES = 64 << 20  # a network of a thousand tensors takes a hundred kilobytes

_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
    "U64": torch.uint64, "U32": torch.uint32, "U16": torch.uint16, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip


@dataclass(frozen=True)
class _Entry:
    """The header's entry of a tensor: ``begin`` and ``end`` are bytes counted from the end of the header."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    begin: int
    end: int


def to_safetensors(tensors: Mapping[str, Tensor]) -> bytes:
    """The content of a safetensors file with these tensors, from whatever device.

    Raises OutputError for more tensors than :func:`read_tensors` accepts.
    """
    content = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    if (length := int.from_bytes(content[:8], "little")) > MAX_HEADER_BYTES:
        raise OutputError(f"the header of its {len(tensors):,} tensors has {length:,} bytes, over {MAX_HEADER_BYTES:,}")
    return content


def read_tensors(path: Path, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a safetensors file, on the CPU. The header and the length of the file are checked before any
    memory is allocated for them.

    Args:
        expected: tensors with the names, shapes and dtypes that the file must have, no more and no less; they may be
            on the meta device.
    Raises:
        RunError: for a file that is damaged or has other tensors. FileNotFoundError: where there is no file.
    """
    try:
        with open_regular(path, follow=False) as file:
            return _read(file, expected)
    except FileNotFoundError:
        raise
    except (OSError, ValueError, MemoryError) as error:
        reason = str(error) or "it does not fit into memory"  # a MemoryError has no message
        raise RunError(f"{str(path)!r} cannot be read: {reason}") from error


def check_length(path: Path) -> None:
    """Raise RunError where a safetensors file is longer or shorter than its header says, or does not fit into memory.

    Reads the header alone.
    """
    try:
        with open_regular(path, follow=False) as file:
            _check_memory(_read_entries(file))
    except (OSError, ValueError, MemoryError) as error:
        reason = str(error) or "its header does not fit into memory"
        raise RunError(f"{str(path)!r} cannot be read: {reason}") from error


def check_finite(tensors: Mapping[str, Tensor], owner: str) -> None:
    """Raise RunError where a tensor of ``owner`` holds NaN or infinite values, which make every prediction NaN."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            num = int((~tensor.isfinite()).sum())
            raise RunError(
                f"{owner} cannot be used: {num:,} of {tensor.numel():,} values of its tensor {_shown(name)} are NaN or "
                "infinite; train again, with a lower learning rate if it was the training"
            )


def _read(file: BinaryIO, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    entries = _read_entries(file)
    _check_expected(entries, expected)
    _check_memory(entries)
    in_order = sorted(entries.items(), key=lambda item: (item[1].begin, item[1].end))
    tensors = {name: _tensor(file, name, entry) for name, entry in in_order}
    return {name: tensors[name] for name in expected}


def _read_entries(file: BinaryIO) -> dict[str, _Entry]:
    """The header's entries, which fill the file; leaves the file at the end of its header."""
    size = os.fstat(file.fileno()).st_size
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or length > size - 8:
        raise ValueError(f"it is truncated: {size:,} bytes are too few for its header")
    if length > MAX_HEADER_BYTES:
        raise ValueError(f"its header claims {length:,} bytes, more than {MAX_HEADER_BYTES:,}")
    header = parse_json_object(file.read(length))
    header.pop("__metadata__", None)
    entries = {name: _entry(name, value) for name, value in header.items()}
    _check_extent(entries, size - 8 - length)
    return entries


def _check_memory(entries: Mapping[str, _Entry]) -> None:
    num_bytes = sum(entry.end - entry.begin for entry in entries.values())
    if reason := memory_shortage(2 * num_bytes, "its tensors and a copy of them"):
        raise ValueError(f"it {reason}")


def _entry(name: str, value: object) -> _Entry:
    """A tensor's entry of the header, every number of it checked."""
    match value:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [int(begin), int(end)], **rest} if not rest:
            if dtype not in _DTYPES:
                raise ValueError(f"tensor {_shown(name)} has the unknown dtype {dtype!r}")
            if not all(type(length) is int and 0 <= length < 1 << 63 for length in shape) or len(shape) > 16:
                raise ValueError(f"tensor {_shown(name)} has an impossible shape")
            num_bytes = math.prod(shape) * _DTYPES[dtype].itemsize
            if not 0 <= begin <= end or end - begin != num_bytes:
                raise ValueError(f"tensor {_shown(name)} has not the bytes its shape and dtype take")
            return _Entry(_DTYPES[dtype], tuple(shape), begin, end)
        case _:
            raise ValueError(f"tensor {_shown(name)} is not described by dtype, shape and data_offsets")


def _check_extent(entries: Mapping[str, _Entry], room: int) -> None:
    """Raise ValueError unless the tensors fill the ``room`` bytes after the header without overlaps and gaps."""
    position = 0
    for entry in sorted(entries.values(), key=lambda entry: (entry.begin, entry.end)):
        if entry.begin != position:
            raise ValueError("its tensors overlap or leave gaps")
        position = entry.end
    if position != room:
        cut = "truncated" if position > room else "longer than its tensors"
        raise ValueError(f"it is {cut}: {room:,} bytes follow its header, where its tensors take {position:,}")


def _check_expected(entries: Mapping[str, _Entry], expected: Mapping[str, Tensor]) -> None:
    """Raise ValueError unless names, shapes and dtypes are the expected ones."""
    missing = [name for name in expected if name not in entries]
    unknown = [name for name in entries if name not in expected]
    differences = (("it lacks", missing), ("has the unknown", unknown))
    if problems := "; ".join(f"{words} {_first_names(names)}" for words, names in differences if names):
        raise ValueError(f"its tensors are not the ones expected: {problems}")
    for name, tensor in expected.items():
        entry = entries[name]
        if entry.shape != tuple(tensor.shape) or entry.dtype != tensor.dtype:
            types = [f"{str(t.dtype).removeprefix('torch.')} {tuple(t.shape)}" for t in (entry, tensor)]
            raise ValueError(f"its tensors are not the ones expected: {name} is {types[0]}, not {types[1]}")


def _tensor(file: BinaryIO, name: str, entry: _Entry) -> Tensor:
    """One tensor, read from the present position of the file."""
    data = torch.empty(entry.end - entry.begin, dtype=torch.uint8)
    if read_into(data.numpy(), file) < len(data):
        raise ValueError(f"it ends in the middle of tensor {_shown(name)}")
    if entry.dtype is torch.bool and data.numel() and int(data.max()) > 1:
        raise ValueError(f"tensor {_shown(name)} is boolean, but holds other bytes than 0 and 1")
    return data.view(entry.dtype).reshape(entry.shape)


_shown = reprlib.repr  # a name in a damaged header may be megabytes long


def _first_names(names: list[str]) -> str:
    return ", ".join(_shown(name) for name in names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
