"""Reading tensors: a header must agree with the length of the file and with the expected tensors."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from timebox.errors import RunError
from timebox.run.tensors import read_tensors

EXPECTED = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([1, -2], dtype=torch.int64)}
Header = dict[str, object]


def described(dtype: str, shape: list[int], begin: int, end: int) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def whole() -> Header:
    return {"a": described("F32", [2, 3], 0, 24), "b": described("I64", [2], 24, 40)}


def written(path: Path, header: Header | bytes, num_bytes: int = 40) -> Path:
    blob = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(blob).to_bytes(8, "little") + blob + bytes(num_bytes))
    return path


def refusal(path: Path, expected: dict[str, Tensor] = EXPECTED) -> str:
    with pytest.raises(RunError) as caught:
        read_tensors(path, expected)
    prefix = f"{str(path)!r} cannot be read: "
    assert str(caught.value).startswith(prefix)
    return str(caught.value).removeprefix(prefix)


def test_every_dtype_and_shape_comes_back(tmp_path: Path) -> None:
    dtypes = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16]
    dtypes += [torch.int8, torch.uint8, torch.bool]
    tensors = {f"t{k}": (torch.rand(2, 3) * 100).to(dtype) for k, dtype in enumerate(dtypes)}
    tensors |= {"scalar": torch.tensor(7), "empty": torch.zeros(0, 4), "one": torch.ones(1, 1, 1)}
    save_file(tensors, tmp_path / "x.safetensors", metadata={"format": "pt"})
    read = read_tensors(tmp_path / "x.safetensors", {name: tensor.to("meta") for name, tensor in tensors.items()})
    assert list(read) == list(tensors)
    for name, tensor in tensors.items():
        assert read[name].dtype == tensor.dtype
        assert torch.equal(read[name], tensor)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_tensors(tmp_path / "none", EXPECTED)


def test_the_header_made_here_is_valid(tmp_path: Path) -> None:
    assert read_tensors(written(tmp_path / "x", whole()), EXPECTED)["a"].tolist() == [[0.0] * 3] * 2


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda h: h.pop("b"), "longer than its tensors: 40 bytes follow its header, where its tensors take 24"),
        (lambda h: h.update(b=described("I64", [3], 24, 48)), "truncated: 40 bytes follow"),
        (lambda h: h.update(b=described("I64", [2], 16, 32)), "its tensors overlap or leave gaps"),
        (lambda h: h.update(b=described("I64", [2], 24, 39)), "'b' has not the bytes its shape and dtype take"),
        (lambda h: h.update(b=described("I64", [2], 40, 24)), "'b' has not the bytes its shape and dtype take"),
        (lambda h: h.update(b=described("I64", [-2], 24, 8)), "'b' has an impossible shape"),
        (lambda h: h.update(b=described("I64", [2**63], 24, 40)), "'b' has an impossible shape"),
        (lambda h: h.update(b=described("I64", [1] * 99 + [2], 24, 40)), "'b' has an impossible shape"),
        (lambda h: h.update(b=described("I64", [2.0], 24, 40)), "'b' has an impossible shape"),  # type: ignore[list-item]
        (lambda h: h.update(b=described("C64", [2], 24, 40)), "'b' has the unknown dtype 'C64'"),
        (lambda h: h.update(b=[1]), "'b' is not described by dtype, shape and data_offsets"),
        (lambda h: h.update(b=described("I64", [2], 24, 40) | {"more": 1}), "'b' is not described by"),
        (
            lambda h: h.update(b=described("F64", [2], 24, 40)),
            "its tensors are not the ones expected: b is float64 (2,), not int64 (2,)",
        ),
        (
            lambda h: h.update(a=described("F32", [3, 2], 0, 24)),
            "its tensors are not the ones expected: a is float32 (3, 2), not float32 (2, 3)",
        ),
        (lambda h: h.update(c=h.pop("b")), "it lacks 'b'; has the unknown 'c'"),
    ],
)
def test_a_header_that_does_not_fit(damage: Callable[[Header], object], reason: str, tmp_path: Path) -> None:
    header = whole()
    damage(header)
    assert reason in refusal(written(tmp_path / "x", header))


@pytest.mark.parametrize(
    ("blob", "reason"),
    [
        (b"", "it is empty"),
        (b"{}  ", "longer than its tensors"),
        (b'{"a": 1, "a": 1}', "it has the key 'a' twice"),
        (b'{"a": NaN}', "NaN is no number of JSON"),
        (b"\xff", "it is not UTF-8: byte 0 is 0xff"),
        (b"[" * 200_000, "nested too deeply"),
        (b'{"a": ' * 200_000, "nested too deeply"),
        (b" " * (65 << 20), "its header claims 68,157,440 bytes, more than 67,108,864"),
    ],
)
def test_a_header_that_cannot_be_parsed(blob: bytes, reason: str, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=reason):
        read_tensors(written(tmp_path / "x", blob), EXPECTED)


@pytest.mark.parametrize("size", [0, 7, 8, 50, 140])
def test_a_truncated_file(size: int, tmp_path: Path) -> None:
    path = written(tmp_path / "x", whole())
    path.write_bytes(path.read_bytes()[:size])
    assert "truncated" in refusal(path)


def test_a_tensor_of_terabytes_is_refused_before_it_is_allocated(tmp_path: Path) -> None:
    huge = {"a": torch.empty(10**12, device="meta")}
    assert "truncated" in refusal(written(tmp_path / "x", {"a": described("F32", [10**12], 0, 4 * 10**12)}), huge)


def test_booleans_are_zero_or_one(tmp_path: Path) -> None:
    path = written(tmp_path / "x", {"a": described("BOOL", [3], 0, 3)}, 0)
    path.write_bytes(path.read_bytes() + bytes([0, 1, 2]))
    assert "other bytes than 0 and 1" in refusal(path, {"a": torch.zeros(3, dtype=torch.bool)})


def test_pipes_and_directories_are_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert refusal(tmp_path / "pipe") == "a named pipe, not a file"
    assert refusal(tmp_path) == "a directory, not a file"
