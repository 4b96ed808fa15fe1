"""Any safetensors header gives the expected tensors or a RunError."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from timebox.errors import RunError
from timebox.run.tensors import read_tensors

# Many random examples.
pytestmark = pytest.mark.integration

EXPECTED = {"a": torch.ones(2, 3), "b": torch.ones(2, dtype=torch.int64)}
COUNTS = st.integers(-2, 48) | st.sampled_from([2**31, 2**63, 2**64, 10**400]) | st.floats(0, 9) | st.booleans()
ENTRIES = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "I64", "F64", "BOOL", "U8", "F8_E4M3", "", "f32"]) | st.none(),
        "shape": st.lists(COUNTS, max_size=3) | st.just([2, 3]) | st.none(),
        "data_offsets": st.lists(COUNTS, max_size=3) | st.just([0, 24]),
    },
    optional={"more": st.none()},
)
WHOLE = {
    "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
    "b": {"dtype": "I64", "shape": [2], "data_offsets": [24, 40]},
}


def check(path: Path, blob: bytes) -> bool:
    """Whether the file can be read; its tensors must then be the expected ones."""
    path.write_bytes(blob)
    try:
        tensors = read_tensors(path, EXPECTED)
    except RunError as error:
        assert str(path) in str(error)
        return False
    assert list(tensors) == list(EXPECTED)
    assert all(tensors[name].shape == tensor.shape for name, tensor in EXPECTED.items())
    assert all(tensors[name].dtype == tensor.dtype for name, tensor in EXPECTED.items())
    return True


@settings(max_examples=200)
@given(
    changes=st.dictionaries(st.sampled_from(["a", "b", "c", "__metadata__"]), ENTRIES | st.none(), max_size=2),
    lacking=st.sets(st.sampled_from(["a", "b"]), max_size=1),
    length_error=st.sampled_from([0, 0, 0, 1, -1, 40, 2**63 - 10**6]),
    num_bytes=st.sampled_from([40, 40, 40, 39, 41, 0]),
)
@example(changes={}, lacking=set(), length_error=0, num_bytes=40)
def test_any_header(
    changes: dict[str, object], lacking: set[str], length_error: int, num_bytes: int, tmp_path: Path
) -> None:
    header = json.dumps({name: entry for name, entry in {**WHOLE, **changes}.items() if name not in lacking}).encode()
    length = max(len(header) + length_error, 0).to_bytes(8, "little")
    was_read = check(tmp_path / "file", length + header + bytes(num_bytes))
    if not changes and not length_error and num_bytes == 40:
        assert was_read == (not lacking)


@given(blob=st.binary(max_size=100))
def test_any_bytes(blob: bytes, tmp_path: Path) -> None:
    assert not check(tmp_path / "file", blob)
    assert not check(tmp_path / "file", len(blob).to_bytes(8, "little") + blob)
