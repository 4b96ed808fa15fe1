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
# Activations that are part of the layer before them: its output is quantized after them, in the range that they leave.
# Quantized before ReLU6, most of the 256 steps lie outside of 0...6.
CLIPPING_ACTIVATIONS = ("Clip", "Relu")
# Images that the ranges of the activations are measured on, at most and as a share of all; and the fewest and the
# most to measure the accuracy on: one of 200 is half a point.
MAX_CALIBRATION, CALIBRATION_SHARE, MIN_MEASURED, MAX_MEASURED = 200, 0.3, 200, 5000
BATCH_SIZE, NUM_MEASUREMENTS = 32, 5
# The first layers, with the largest images and the widest ranges, lose most, and hold few of the weights. So shares of
# the layers, from the input on, are tried in turn, until the predictions are those of the original model up to this
# Kullback-Leibler divergence in nats, on the calibration images.
FLOAT_SHARES = (0.0, 0.125, 0.25, 0.5)
MAX_DIVERGENCE = 0.01
SMALLEST = 1e-7


@dataclass(frozen=True)
class Quantization:
    """An int8 model beside the float32 model that it was made of.

    Attributes:
        num_layers, num_float_layers: convolutions and linear layers, and the first ones that stay in float32.
        accuracy, float_accuracy: on the same images, none of which the ranges were measured on; 0...1.
        images_per_second, float_images_per_second: in batches of 32, by ONNX Runtime on this machine.
    """

    num_layers: int
    num_float_layers: int
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
    measured = images.take(np.arange(num_calibration, min(len(images), num_calibration + MAX_MEASURED)))
    if len(measured) < MIN_MEASURED:
        raise DataError(
            f"of {len(images):,} held-out images {len(measured):,} would be left to measure the accuracy on, and "
            f"{MIN_MEASURED} are needed: give other data with {option_text('data', 'PATH')}"
        )
    layers = _layers(source)
    float_layers, models = _write_like_source(source, target, images.images[:num_calibration], layers)
    accuracies = [_accuracy(predict, measured) for predict in models]
    batch = measured.images[:BATCH_SIZE]
    speeds = [len(batch) / seconds for seconds in seconds_in_turn(models, batch, NUM_MEASUREMENTS)]
    quantization = Quantization(
        num_layers=len(layers),
        num_float_layers=len(float_layers),
        num_calibration=num_calibration,
        num_images=len(measured),
        accuracy=accuracies[1],
        float_accuracy=accuracies[0],
        num_bytes=target.stat().st_size,
        float_num_bytes=source.stat().st_size,
        images_per_second=speeds[1],
        float_images_per_second=speeds[0],
    )
    loss, (earlier, now) = 100 * (accuracies[0] - accuracies[1]), (percent(value, 1) for value in accuracies)
    if loss > max_loss:
        target.unlink()
        raise UsageError(
            f"int8 costs {loss:.1f} points of accuracy: {now} in place of {earlier} of "
            f"{len(measured):,} images; {option_text('max_loss', 'POINTS')} allows more than {max_loss:g}"
        )
    return quantization


def _layers(source: Path) -> dict[str, float]:
    """The layers that may be quantized by name, and the place of each: 0 at the input of its branch, 1 at the end."""
    import onnx

    nodes = onnx.load(source).graph.node  # each after those that it depends on
    before, after = dict[str, int](), dict[str, int]()
    for node in nodes:
        depth = max((before.get(name, 0) for name in node.input), default=0)
        before.update(dict.fromkeys(node.output, depth + (node.op_type in QUANTIZED_LAYERS)))
    for node in reversed(nodes):
        height = max((after.get(name, 0) for name in node.output), default=0)
        height += node.op_type in QUANTIZED_LAYERS
        after.update({name: max(height, after.get(name, 0)) for name in node.input})
    layers = [node for node in nodes if node.op_type in QUANTIZED_LAYERS]
    ends = [(node.name, before[node.output[0]], after[node.input[0]]) for node in layers]
    return {name: (depth - 1) / max(depth + height - 2, 1) for name, depth, height in ends}


def _depthwise_weights(source: Path, float_layers: list[str]) -> list[str]:
    """The weights (C, 1, h, w) of convolutions in each channel by itself, without those of the float32 layers."""
    import onnx

    graph = onnx.load(source).graph
    channels = {tensor.name: tensor.dims[0] for tensor in graph.initializer if tensor.dims}
    return [
        node.input[1]
        for node in graph.node
        if node.op_type == "Conv"
        and node.name not in float_layers
        and any(one.name == "group" and one.i == channels[node.input[1]] > 1 for one in node.attribute)
    ]


def _write_like_source(
    source: Path, target: Path, images: NDArray[np.uint8], layers: dict[str, float]
) -> tuple[list[str], list[PredictFn]]:
    """Write the model with as few float32 layers as it needs to predict like the source, half of them at most.

    Returns the names of the float32 layers, and the predictions of source and target.
    """
    original = open_model(source)
    expected = _probabilities(original, images)
    for share in FLOAT_SHARES:
        float_layers = [name for name, place in layers.items() if place < share]
        _write(source, target, images, float_layers)
        quantized = open_model(target)
        if _divergence(expected, _probabilities(quantized, images)) <= MAX_DIVERGENCE:
            break
    return float_layers, [original, quantized]


def _probabilities(predict: PredictFn, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    batches = range(0, len(images), BATCH_SIZE)
    return np.concatenate([predict(images[start : start + BATCH_SIZE]) for start in batches])


def _divergence(expected: NDArray[np.float32], probabilities: NDArray[np.float32]) -> float:
    """The mean Kullback-Leibler divergence of the probabilities (N, num_classes) from the expected ones, in nats."""
    ratio = np.log(np.maximum(expected, SMALLEST)) - np.log(np.maximum(probabilities, SMALLEST))
    return float((expected * ratio).sum(1).mean())


class _Batches:
    """Gives ONNX Runtime batch after batch of images."""

    def __init__(self, images: NDArray[np.uint8]) -> None:
        self._batches: Iterator[dict[str, NDArray[np.uint8]]] = (
            {INPUT: images[start : start + BATCH_SIZE]} for start in range(0, len(images), BATCH_SIZE)
        )

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        return next(self._batches, None)


def _write(source: Path, target: Path, images: NDArray[np.uint8], float_layers: list[str]) -> None:
    import_onnxruntime()
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(_Batches, CalibrationDataReader):  # type: ignore[misc]
        pass

    # Depthwise convolutions are added in 32 bits everywhere.
    eight_bits = {"quant_type": QuantType.QInt8, "axis": 0, "symmetric": True, "reduce_range": False}
    depthwise = _depthwise_weights(source, float_layers)
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)  # advice for programmers, on stderr
    try:
        quantize_static(
            source,
            target,
            Reader(images),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=[*QUANTIZED_LAYERS, *CLIPPING_ACTIVATIONS],
            nodes_to_exclude=float_layers,
            per_channel=True,
            reduce_range=True,  # 7 bits of weights: processors without VNNI add in 16 bits, which 8 would overflow
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            extra_options={"TensorQuantOverrides": {name: [eight_bits] for name in depthwise}},
        )
    finally:
        logging.disable(disabled)


def _accuracy(predict: PredictFn, dataset: ImageDataset) -> float:
    return float((_probabilities(predict, dataset.images).argmax(1) == dataset.labels).mean())
