"""Any content of a run directory loads or is refused with a RunError."""

import copy as copying
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from timebox.configs.data import DataConfig
from timebox.errors import RunError
from timebox.run import Run, load
from timebox.run.files import read_training_hashes

# Many random examples.
pytestmark = pytest.mark.integration

NUMBERS = st.integers() | st.floats() | st.sampled_from([10**9, 2**63, 10**300, 10**400, -1, 0])
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def check_damaged(trained: Run, damage: Callable[[Path], object]) -> None:
    """Load and use a damaged copy of the run, unless it is refused."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(shutil.copytree(trained.path, Path(folder, "run")))
        damage(path)
        try:
            run = load(path)
            _ = run.summary, run.val_accuracy, read_training_hashes(path)
            DataConfig.of_run(run.config, path)
        except RunError as error:
            assert "run" in str(error)
            return
        shape = run.preprocessing.image_shape
        if max(shape) <= 64:
            assert run.predict_proba([]).shape == (0, len(run.class_names))


def places(value: object, here: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """The path of keys and positions to every value inside a value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [here, *(place for key, item in inner for place in places(item, (*here, key)))]


@given(st.data())
def test_any_value_anywhere_in_model_json(trained: Run, data: st.DataObject) -> None:
    config: dict[str | int, object] = copying.deepcopy(trained.config)  # type: ignore[arg-type]
    way = data.draw(st.sampled_from(places(config)[1:]))
    target: dict[str | int, object] = config
    for key in way[:-1]:
        target = target[key]  # type: ignore[assignment]
    if data.draw(st.booleans()) or not isinstance(target, dict):
        target[way[-1]] = data.draw(VALUES)
    else:
        del target[way[-1]]
    check_damaged(trained, lambda path: (path / "model.json").write_bytes(json.dumps(config).encode()))


@given(name=st.sampled_from(["model.json", "summary.json"]), blob=st.binary(max_size=40))
@example(name="model.json", blob=b"[" * 10**6)
@example(name="summary.json", blob=b'{"a":' * 10**6)
@example(name="summary.json", blob=b'{"val_accuracy": "high"}')
@example(name="summary.json", blob=b'{"val_accuracy": 1e999}')
def test_any_bytes_in_a_json_file(name: str, blob: bytes, trained: Run) -> None:
    check_damaged(trained, lambda path: (path / name).write_bytes(blob))


@given(st.sampled_from(["model.safetensors", "trained_on.npy", "model.json"]), st.data())
def test_a_few_bytes_changed(trained: Run, name: str, data: st.DataObject) -> None:
    blob = bytearray((trained.path / name).read_bytes())
    start = data.draw(st.integers(0, min(len(blob) - 1, 4000)))
    end = data.draw(st.integers(start, min(len(blob), start + 20)))
    blob[start:end] = data.draw(st.binary(max_size=20))
    check_damaged(trained, lambda path: (path / name).write_bytes(bytes(blob)))
