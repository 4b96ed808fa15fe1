"""``timebox export``: a run as one file that answers without timebox, checked before it is written."""

import json
import logging
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from timebox.data import decode_whole
from timebox.errors import DataError, OutputError, UsageError
from timebox.exporting.check import Answer, Check, reference
from timebox.exporting.model_with_preprocessing import Graph
from timebox.run import Run, load
from timebox.version import VERSION

SUFFIXES = {"onnx": ".onnx", "torch": ".pt2"}
METADATA = "timebox.json"


@dataclass(frozen=True)
class DecoderEffect:
    """What it makes that another program decodes the files whole, where timebox decodes large JPEGs smaller at once.

    Attributes:
        num_changed: files whose likeliest class is another.
        difference: the largest, between two probabilities.
    """

    num_files: int
    num_changed: int
    difference: float


@dataclass(frozen=True)
class Exported:
    """A model in a file, and how it was checked."""

    path: Path
    format: str
    num_bytes: int
    class_names: tuple[str, ...]
    channels: int
    tta: str
    temperature: float
    checks: tuple[Check, ...]
    decoder: DecoderEffect | None

    def as_dict(self) -> dict[str, object]:
        """Plain values, fit for JSON."""
        return {**asdict(self), "path": str(self.path)}


def export(
    run: str | Path | Run,
    format: str = "onnx",
    *,
    output: str | Path | None = None,
    tta: str = "recipe",
    overwrite: bool = False,
    files: Sequence[str | Path] = (),
) -> Exported:
    """Write a run's model to one file: pixels of any size in, calibrated probabilities out.

    The file takes ``images``, uint8 (N, H, W, C), and gives ``probabilities``, float32 (N, num_classes). Resizing,
    cropping, normalisation, the views and the temperature are inside. Class names are in its metadata.

    Args:
        run: a run, or its directory.
        format: ``onnx``, for onnxruntime and others; ``torch``, a program of ``torch.export``.
        output: the file, default ``model.onnx`` or ``model.pt2`` in the run directory.
        tta: the views: ``recipe`` (as the run was scored), ``none``, ``mirror``, ``shift`` or ``mirror_shift``.
        overwrite: whether a file that is there is replaced.
        files: images to see on what it makes that another program decodes them.
    Raises:
        UsageError: for what cannot be; also where the extra ``onnx`` is not installed.
        OutputError: where the file cannot be written.
        RuntimeError: where the file would answer otherwise than the run; then none is written.

    >>> import timebox
    >>> exported = timebox.export("runs/demo", "torch", output="demo.pt2")
    >>> exported.path.name, exported.class_names
    ('demo.pt2', ('blue', 'red'))
    """
    if format not in SUFFIXES:
        raise UsageError(f"format {format!r} is unknown; use {' or '.join(SUFFIXES)}")
    run = run if isinstance(run, Run) else load(run, "cpu")
    if run.device.type != "cpu":
        run = load(run.path, "cpu")
    views = run.views(tta)
    path = Path(output) if output else run.path / f"model{SUFFIXES[format]}"
    if path.exists() and not overwrite:
        raise UsageError(f"{str(path)!r} exists; give another output, or overwrite it with --overwrite")
    graph = Graph(run, views).eval()
    facts = {
        "class_names": list(run.class_names),
        "channels": run.preprocessing.channels,
        "tta": views,
        "temperature": run.temperature,
        "timebox": VERSION,
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".timebox-export-", dir=path.parent) as folder:
            draft = Path(folder) / path.name
            answer = (_write_onnx if format == "onnx" else _write_torch)(graph, run, facts, draft)
            checks = reference(run, views).compare(answer)
            decoder = _decoder_effect(run, views, answer, files) if files else None
            num_bytes = draft.stat().st_size
            draft.replace(path)
    except OSError as error:
        raise OutputError(f"{str(path)!r} cannot be written: {error.strerror or error}") from error
    return Exported(
        path, format, num_bytes, run.class_names, run.preprocessing.channels, views, run.temperature, checks, decoder
    )


def _write_onnx(graph: Graph, run: Run, facts: dict[str, object], path: Path) -> Answer:
    """Write it with what it knows of itself; what answers from the file as onnxruntime reads it."""
    try:
        import onnx  # noqa: F401
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UsageError(f"exporting to ONNX takes {error.name}: pip install 'timebox-vision[onnx]'") from error
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            graph,
            (_example(run),),
            input_names=["images"],
            output_names=["probabilities"],
            dynamic_shapes={"images": {0: "batch", 1: "height", 2: "width"}},
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    for name, value in facts.items():
        program.model.metadata_props[name] = value if isinstance(value, str) else json.dumps(value)
    program.save(path, external_data=False)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def answer(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        probabilities: NDArray[np.float32] = session.run(["probabilities"], {"images": images})[0]
        return probabilities

    return answer


def _write_torch(graph: Graph, run: Run, facts: dict[str, object], path: Path) -> Answer:
    """Write it with what it knows of itself; what answers from the file."""
    free = torch.export.Dim.AUTO
    with _quiet(), torch.no_grad():
        program = torch.export.export(graph, (_example(run),), dynamic_shapes={"images": {0: free, 1: free, 2: free}})
        torch.export.save(program, path, extra_files={METADATA: json.dumps(facts)})
        written = torch.export.load(path).module()

    def answer(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        with torch.inference_mode():
            probabilities: NDArray[np.float32] = written(torch.from_numpy(images)).numpy()
        return probabilities

    return answer


def _example(run: Run) -> torch.Tensor:
    """Images that the graph is traced with: no side is one that it could take for fixed."""
    height, width = run.preprocessing.size
    return torch.zeros((3, height + 5, width + 11, run.preprocessing.channels), dtype=torch.uint8)


def _decoder_effect(run: Run, tta: str, answer: Answer, files: Sequence[str | Path]) -> DecoderEffect:
    """Raises DataError where no file can be read."""
    num_files = num_changed = 0
    difference = 0.0
    for prediction in run.predict_files(files, tta):
        if prediction.probabilities is not None:
            got = answer(decode_whole(prediction.path, run.preprocessing.channels)[None])[0]
            difference = max(difference, float(np.abs(got - prediction.probabilities).max()))
            num_changed += int(got.argmax() != prediction.probabilities.argmax())
            num_files += 1
    if not num_files:
        raise DataError("none of the files to check with can be read as an image")
    return DecoderEffect(num_files, num_changed, difference)


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter tells of what it does, and of packages that nobody needs."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
