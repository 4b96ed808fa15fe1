"""Eight-bit integers in place of float32 in an exported ONNX file: calibrated on images, and measured on others."""

import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from timebox.data import ImageDataset
from timebox.errors import DataError, UsageError, option_text
from timebox.exporting.onnx_runtime import INPUT, import_onnxruntime, open_model, seconds_in_turn
from timebox.exporting.parity import PredictFn
from timebox.formatting import percent

# Layers that are computed in integers. Resizing, normalisation and the mean over views stay in floating point.
QUANTIZED_LAYERS = ("Conv", "Gemm")
# Images that the ranges of the activations are measured on, at most and as a share of all; and the fewest to measure
# the accuracy on: one of 200 is half a point.
MAX_CALIBRATION, CALIBRATION_SHARE, MIN_MEASURED = 200, 0.3, 200
BATCH_SIZE, NUM_MEASUREMENTS = 32, 5


@dataclass(frozen=True)
class Quantization:
    """An int8 model beside the float32 model that it was made of.

    Attributes:
        accuracy, float_accuracy: on the same images, none of which the ranges were measured on; 0...1.
        images_per_second, float_images_per_second: in batches of 32, by ONNX Runtime on this machine.
    """

    num_calibration: int
    num_images: int
    accuracy: float
    float_accuracy: float
    num_bytes: int
    float_num_bytes: int
    images_per_second: float
    float_images_per_second: float

    def as_dict(self) -> dict[str, float]:
        """The fields by name."""
        return asdict(self)


def quantize(source: Path, target: Path, images: ImageDataset, max_loss: float) -> Quantization:
    """Write an int8 model.

    Args:
        source: an ONNX file of :func:`timebox.export`.
        images: that the model was not trained on, in an order without meaning.
        max_loss: accuracy in percentage points that it may cost.
    Raises:
        DataError: for too few images. UsageError: where it costs more than that; no file is written then.
    """
    num_calibration = min(MAX_CALIBRATION, int(CALIBRATION_SHARE * len(images)))
    measured = images.take(np.arange(num_calibration, len(images)))
    if len(measured) < MIN_MEASURED:
        raise DataError(
            f"of {len(images):,} held-out images {len(measured):,} would be left to measure the accuracy on, and "
            f"{MIN_MEASURED} are needed: give other data with {option_text('data', 'PATH')}"
        )
    _write(source, target, images.images[:num_calibration])
    models = [open_model(path) for path in (source, target)]
    accuracies = [_accuracy(predict, measured) for predict in models]
    batch = measured.images[:BATCH_SIZE]
    speeds = [len(batch) / seconds for seconds in seconds_in_turn(models, batch, NUM_MEASUREMENTS)]
    quantization = Quantization(
        num_calibration, len(measured), accuracies[1], accuracies[0], target.stat().st_size, source.stat().st_size,
        speeds[1], speeds[0],
    )  # fmt: skip
    loss, (earlier, now) = 100 * (accuracies[0] - accuracies[1]), (percent(value, 1) for value in accuracies)
    if loss > max_loss:
        target.unlink()
        raise UsageError(
            f"int8 costs {loss:.1f} points of accuracy: {now} in place of {earlier} of "
            f"{len(measured):,} images; {option_text('max_loss', 'POINTS')} allows more than {max_loss:g}"
        )
    return quantization


class _Batches:
    """Gives ONNX Runtime batch after batch of images."""

    def __init__(self, images: NDArray[np.uint8]) -> None:
        self._batches: Iterator[dict[str, NDArray[np.uint8]]] = (
            {INPUT: images[start : start + BATCH_SIZE]} for start in range(0, len(images), BATCH_SIZE)
        )

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        return next(self._batches, None)


def _write(source: Path, target: Path, images: NDArray[np.uint8]) -> None:
    import_onnxruntime()
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(_Batches, CalibrationDataReader):  # type: ignore[misc]
        pass

    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)  # advice for programmers, on stderr
    try:
        quantize_static(
            source,
            target,
            Reader(images),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(QUANTIZED_LAYERS),
            per_channel=True,
            reduce_range=True,  # 7 bits of weights: processors without VNNI add in 16 bits, which 8 would overflow
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
    finally:
        logging.disable(disabled)


def _accuracy(predict: PredictFn, dataset: ImageDataset) -> float:
    num_correct = 0
    for start in range(0, len(dataset), BATCH_SIZE):
        batch = slice(start, start + BATCH_SIZE)
        num_correct += int((predict(dataset.images[batch]).argmax(1) == dataset.labels[batch]).sum())
    return num_correct / len(dataset)
