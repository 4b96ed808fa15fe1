"""Export of a run to one ONNX or ``torch.export`` file, compared with the run before it is written."""

import json
import logging
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from timebox.configs.call import refuse_unknown_arguments
from timebox.configs.data import DataConfig
from timebox.configs.verbs import EvaluateConfig, ExportConfig
from timebox.data import ImageDataset, decode_whole
from timebox.errors import DataError, OutputError, UsageError, option_text
from timebox.exporting.int8 import Quantization, quantize
from timebox.exporting.model_with_preprocessing import ModelWithPreprocessing
from timebox.exporting.onnx_runtime import INPUT, OUTPUT, import_onnxruntime, open_model
from timebox.exporting.parity import ParityCheck, PredictFn, compute_reference
from timebox.paths import expand_user
from timebox.pipelines.evaluate import read_split
from timebox.run import Run, load
from timebox.version import VERSION

INT8 = ".int8"
SUFFIXES = {"onnx": ".onnx", "torch": ".pt2"}
METADATA = "timebox.json"


@dataclass(frozen=True)
class DecoderEffect:
    """Effect of decoding image files at full size, as other programs do, on the predictions.

    timebox itself decodes large JPEGs at a fraction of their size, which gives slightly different pixels.

    Attributes:
        num_files: image files that could be read.
        num_changed: files with another predicted class.
        difference: largest absolute difference between two probabilities.
    """

    num_files: int
    num_changed: int
    difference: float


@dataclass(frozen=True)
class Exported:
    """An exported model file and its comparison with the run.

    Attributes:
        format: "onnx" or "torch".
        channels: of the images.
        tta: the views that are averaged.
        temperature: 1.0 where the run is not calibrated.
        checks: one for each image size.
        decoder: None where no files were given.
        uncalibrated_reason: why no temperature was fitted; None where one was.
        quantization: accuracy, size and speed of an int8 model beside the float32 one, which ``checks`` are of; None
            for a float32 model.
    """

    path: Path
    format: str
    num_bytes: int
    class_names: tuple[str, ...]
    channels: int
    tta: str
    temperature: float
    checks: tuple[ParityCheck, ...]
    decoder: DecoderEffect | None
    uncalibrated_reason: str | None = None
    quantization: Quantization | None = None

    def as_dict(self) -> dict[str, object]:
        """The fields as values that JSON can represent."""
        return {**asdict(self), "path": str(self.path)}


@refuse_unknown_arguments
def export(
    run: str | Path | Run,
    format: str = "onnx",
    *,
    output: str | Path | None = None,
    tta: str = "recipe",
    overwrite: bool = False,
    files: str | Path | Sequence[str | Path] = (),
    int8: bool = False,
    data: str | Path | None = None,
    max_loss: float = 1.0,
    trust_code: bool = False,
) -> Exported:
    """Write a run's model and its preprocessing to one file.

    The exported model maps ``images``, uint8 (N, H, W, C) with any N, H and W, to calibrated ``probabilities``, float32
    (N, num_classes). Resizing, cropping, normalisation, test-time augmentation and temperature scaling are part of the
    model. The class names are in its metadata. Its predictions are compared with the run's before it is written.

    Args:
        run: a run, or its directory.
        format: ``onnx``, for ONNX Runtime and others; ``torch``, a program of ``torch.export``.
        output: the file; by default ``model.onnx``, ``model.int8.onnx`` or ``model.pt2`` in the run directory.
        tta: test-time augmentation: ``recipe`` (as the run was evaluated), ``none``, ``mirror``, ``shift`` or
            ``mirror_shift``.
        overwrite: whether an existing file is replaced.
        files: image file or files on which to measure the effect of decoding at full size.
        int8: whether convolutions and linear layers are computed in 8-bit integers (static quantisation): a quarter of
            the size. Ranges are measured on three tenths of the images, 200 at most, accuracy and speed on the others.
        data: the images for that; by default the validation images of the run, which are read again from its data.
        max_loss: percentage points of accuracy that int8 may cost.
        trust_code: whether to import the code that the run names, see :func:`timebox.load`.
    Raises:
        UsageError: for an unknown format or tta, an existing file, or where the extra ``onnx`` is not installed.
        DataError: where none of ``files`` can be read, or for too few images for ``int8``.
        OutputError: where the file cannot be written.
        RuntimeError: where the exported model differs from the run by more than rounding; no file is written.

    >>> import timebox
    >>> exported = timebox.export("runs/demo", "torch", output="demo.pt2")
    >>> exported.path.name, exported.class_names
    ('demo.pt2', ('blue', 'red'))
    """
    config = ExportConfig.from_call({**locals(), "run": run.path if isinstance(run, Run) else run})
    if int8 and format != "onnx":
        raise UsageError(f"{option_text('int8', True)} goes with the format onnx, not {format!r}")
    files = [files] if isinstance(files, str | Path) else files
    run = run if isinstance(run, Run) else load(run, "cpu", trust_code=trust_code)
    if run.device.type != "cpu":
        run = load(run.path, "cpu")
    views = run.views(tta)
    path = Path(expand_user(output)) if output else run.path / f"model{INT8 if int8 else ''}{SUFFIXES[format]}"
    if path.exists() and not overwrite:
        overwriting = option_text("overwrite", True)
        raise UsageError(f"{str(path)!r} exists; give another output, or overwrite it with {overwriting}")
    model = ModelWithPreprocessing(run, views).eval()
    metadata = {
        "class_names": list(run.class_names),
        "channels": run.preprocessing.channels,
        "white_16bit": run.preprocessing.white_16bit,
        "tta": views,
        "temperature": run.temperature,
        "timebox": VERSION,
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".timebox-export-", dir=path.parent) as folder:
            draft = Path(folder) / path.name
            predict = (_write_onnx if format == "onnx" else _write_torch)(model, _example_images(run), metadata, draft)
            checks = compute_reference(run, views).compare(predict)
            decoder = _decoder_effect(run, views, predict, files) if files else None
            quantization = None
            if int8:
                float_draft, draft = draft, Path(folder) / f"int8-{path.name}"
                quantization = quantize(float_draft, draft, _calibration_images(run, config), max_loss)
            num_bytes = draft.stat().st_size
            draft.replace(path)
    except OSError as error:
        raise OutputError(f"{str(path)!r} cannot be written: {error.strerror or error}") from error
    return Exported(
        path,
        format,
        num_bytes,
        run.class_names,
        run.preprocessing.channels,
        views,
        run.temperature,
        checks,
        decoder,
        run.uncalibrated_reason,
        quantization,
    )


def _calibration_images(run: Run, config: ExportConfig) -> ImageDataset:
    """Images that the run was not trained on, in a random order: its validation images, or other data."""
    source = DataConfig.of_run(run.config, run.path)
    config_of_split = EvaluateConfig(
        run=str(run.path), data=config.data or source.data, split=None if config.data else "val",
        class_depth=source.class_depth,
    )  # fmt: skip
    _, _, dataset = read_split(run, config_of_split, lambda note: None)
    return dataset.take(np.random.default_rng(0).permutation(len(dataset)))


def _write_onnx(
    model: ModelWithPreprocessing, images: torch.Tensor, metadata: Mapping[str, object], path: Path
) -> PredictFn:
    """Write an ONNX file; return its predictions by ONNX Runtime."""
    try:
        import_onnxruntime()  # first: the others may import it
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UsageError(f"exporting to ONNX needs {error.name}: pip install 'timebox-vision[onnx]'") from error
    with _silence_exporter(), torch.no_grad():
        program = torch.onnx.export(
            model,
            (images,),
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes={"images": {0: "batch", 1: "height", 2: "width"}},
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    for name, value in metadata.items():
        program.model.metadata_props[name] = value if isinstance(value, str) else json.dumps(value)
    program.save(path, external_data=False)
    return open_model(path)


def _write_torch(
    model: ModelWithPreprocessing, images: torch.Tensor, metadata: Mapping[str, object], path: Path
) -> PredictFn:
    """Write a ``torch.export`` program; return its predictions, read back from the file."""
    auto = torch.export.Dim.AUTO
    with _silence_exporter(), torch.no_grad():
        program = torch.export.export(model, (images,), dynamic_shapes={"images": {0: auto, 1: auto, 2: auto}})
        torch.export.save(program, path, extra_files={METADATA: json.dumps(metadata)})
        loaded = torch.export.load(path).module()

    def predict(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        with torch.inference_mode():
            probabilities: NDArray[np.float32] = loaded(torch.from_numpy(images)).numpy()
        return probabilities

    return predict


def _example_images(run: Run) -> torch.Tensor:
    """Images to trace the model with. No side equals the working size, which the tracer would take for constant."""
    height, width = run.preprocessing.size
    return torch.zeros((3, height + 5, width + 11, run.preprocessing.channels), dtype=torch.uint8)


def _decoder_effect(run: Run, tta: str, predict: PredictFn, files: Sequence[str | Path]) -> DecoderEffect:
    """Compare predictions for files decoded at full size with the run's. Raises DataError where no file can be read."""
    num_files = num_changed = 0
    difference = 0.0
    for prediction in run.predict_files(map(expand_user, files), tta):
        if prediction.probabilities is not None:
            probabilities = predict(
                decode_whole(prediction.path, run.preprocessing.channels, run.preprocessing.white_16bit)[None]
            )[0]
            difference = max(difference, float(np.abs(probabilities - prediction.probabilities).max()))
            num_changed += int(probabilities.argmax() != prediction.probabilities.argmax())
            num_files += 1
    if not num_files:
        raise DataError("none of the files to check with can be read as an image")
    return DecoderEffect(num_files, num_changed, difference)


@contextmanager
def _silence_exporter() -> Iterator[None]:
    """Suppress the exporter's progress messages and its warnings about optional packages."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
