"""A run that claims sizes beyond the memory is refused, with the size, before anything is allocated."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from small_runs import coloured
from timebox import machine
from timebox.errors import RunError
from timebox.exporting import export
from timebox.jobs.initial_weights import InitialWeights
from timebox.pipelines import report
from timebox.run import Run, load
from timebox.run.files import CONFIG, METRICS, MODEL, PREDICTIONS, SUMMARY, TRAINING_HASHES, read_training_hashes
from timebox.run.metrics_log import read_metrics
from timebox.runtime import device

GB, HOLE = 10**9, 8 << 30
AVAILABLE = "and 1.0 GB are available here"


@pytest.fixture
def copy(trained: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of a run, on a machine with 1 GB of memory."""
    leave(monkeypatch, GB)
    return Path(shutil.copytree(trained.path, tmp_path / "copy"))


def leave(monkeypatch: pytest.MonkeyPatch, num_bytes: int) -> None:
    for module in (machine, device):
        monkeypatch.setattr(module, "available_memory", lambda: num_bytes)


def claim(run: Path, shape: list[int] | None = None, num_classes: int | None = None, **recipe: object) -> Path:
    """Change what a run's model.json says."""
    values = json.loads((run / CONFIG).read_text())
    values["preprocessing"]["image_shape"] = shape or values["preprocessing"]["image_shape"]
    values["class_names"] = [str(n) for n in range(num_classes)] if num_classes else values["class_names"]
    values["recipe"] |= recipe
    (run / CONFIG).write_text(json.dumps(values))
    return run


def weights_with_a_hole(run: Path) -> Path:
    """Replace the weights by zeros, in a sparse file as long as those of the network that model.json describes."""
    entries, end = {}, 0
    for name, tensor in Run(run, "cpu").bare_model().state_dict().items():
        kind = {"torch.float32": "F32", "torch.int64": "I64"}[str(tensor.dtype)]
        entries[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [end, end + tensor.nbytes]}
        end += tensor.nbytes
    header = json.dumps(entries).encode()
    return make_hole(run / MODEL, 8 + len(header) + end, len(header).to_bytes(8, "little") + header)


def make_hole(path: Path, num_bytes: int = HOLE, start: bytes = b"") -> Path:
    with path.open("wb") as file:
        file.write(start)
        file.truncate(num_bytes)
    return path


def npy(num_values: int) -> bytes:
    header = f"{{'descr': '<u8', 'fortran_order': False, 'shape': ({num_values},), }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header


def refusal(call: Callable[[], object], error: type[Exception] = RunError) -> str:
    with pytest.raises(error) as caught:
        call()
    return str(caught.value)


@pytest.mark.parametrize("recipe", [{"width": 512}, {"width": 128, "ensemble_size": 32}], ids=["wide", "ensemble"])
def test_weights_that_do_not_fit_are_refused(copy: Path, recipe: dict[str, object]) -> None:
    weights_with_a_hole(claim(copy, **recipe))
    words = refusal(lambda: load(copy, "cpu"))
    assert words.startswith(f"{str(copy / MODEL)!r} cannot be read: it needs about ")
    assert words.endswith(f" of memory for its tensors and a copy of them, {AVAILABLE}")


def test_a_head_of_many_classes_is_refused(copy: Path) -> None:
    weights_with_a_hole(claim(copy, num_classes=300_000, width=256))
    assert AVAILABLE in refusal(lambda: load(copy, "cpu"))


@pytest.mark.parametrize("file", [MODEL, "weights.safetensors"])
def test_initial_weights_that_do_not_fit_are_refused(copy: Path, file: str) -> None:
    make_hole(copy / file, 4 << 30)
    words = refusal(lambda: InitialWeights.read(copy / file))
    assert words.startswith(f"{str(copy / file)!r} cannot be read: it needs about 4.3 GB of memory")
    assert words.endswith(AVAILABLE)


Use = Callable[[Run], object]
IMAGES = coloured(3)[0]


@pytest.mark.parametrize(
    ("use", "purpose"),
    [
        pytest.param(lambda run: run.predict(IMAGES[:1]), "an image of 2048x2048 pixels in its network", id="predict"),
        pytest.param(
            lambda run: export(run, "torch"),
            "comparing the exported model with it on images of 4097x6144 pixels",
            id="export",
        ),
        pytest.param(lambda run: run.predict([*IMAGES] * 40), "120 images of its size", id="predict many of them"),
    ],
)
def test_a_run_that_claims_large_images(copy: Path, use: Use, purpose: str) -> None:
    run = load(claim(copy, [2048, 2048, 3], width=4), "cpu")
    words = refusal(lambda: use(run))
    assert words.startswith(f"run {str(copy)!r} needs about ")
    assert words.endswith(f" of memory for {purpose}, {AVAILABLE}")


def test_batches_are_smaller_where_memory_is_short(trained: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run, images = load(trained.path, "cpu"), coloured(9)[0]
    expected, sizes = run.predict_proba(images), []
    forward = run.model.forward

    def counted(batch: object) -> object:
        sizes.append(len(batch))  # type: ignore[arg-type]
        return forward(batch)

    monkeypatch.setattr(run.model, "forward", counted)
    leave(monkeypatch, 5 * run.bytes_per_image)
    np.testing.assert_allclose(run.predict_proba(images), expected, atol=1e-6)
    assert set(sizes) == {1, 2}


@pytest.mark.parametrize(
    ("file", "start", "read", "words"),
    [
        (CONFIG, b"{", lambda run: Run(run), "larger than the 268,435,456 bytes such a file may have"),
        (SUMMARY, b"{", lambda run: Run(run).summary, "larger than the 268,435,456 bytes such a file may have"),
        (METRICS, b"", lambda run: list(read_metrics(run / METRICS)), "it has a line of over 65,536 bytes"),
        (METRICS, b'{"format": 1}\n', report, "it has a line of over 65,536 bytes"),
        (PREDICTIONS, b"PK", report, "cannot be read"),
        (TRAINING_HASHES, npy((HOLE - 100) // 8), read_training_hashes, "for its array, and 1.0 GB are available here"),
    ],
)
def test_a_file_of_a_run_with_a_hole_of_gigabytes(
    copy: Path, file: str, start: bytes, read: Callable[[Path], object], words: str
) -> None:
    num_bytes = len(start) + (HOLE - 100) // 8 * 8 if file == TRAINING_HASHES else HOLE
    make_hole(copy / file, num_bytes, start)
    message = refusal(lambda: read(copy))
    assert str(copy / file) in message
    assert words in message
