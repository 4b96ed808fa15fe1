"""Numerical parity of an exported model with its run: equal probabilities up to float32 rounding."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from timebox.data.device.augment import batch_normalize
from timebox.data.images.fit import BELOW_HALF, batch_fit, fit_weights
from timebox.evaluation.calibration import SMALLEST_PROBABILITY
from timebox.evaluation.tta import average_views
from timebox.models import networks_of
from timebox.models.pretrained import Blend
from timebox.run import Run

EPSILON = float(np.finfo(np.float32).eps)
# Tolerance as a multiple of the measured rounding error. Over all recipes, formats and instruction sets, correct
# exports differed by up to 3 times that error. Weights rounded to bfloat16 differ by 800 times, another resize filter
# or view by thousands of times.
MARGIN = 32
# Resized pixels keep this multiple of their measured error as distance from the ties where rounding changes direction.
TIE_MARGIN = 8
# float32 represents smaller probabilities with fewer digits, then not at all.
MIN_COMPARED_PROBABILITY = 1e-30
NUM_IMAGES = 8
MAX_REDRAWS = 20
# Bytes of a pixel while images are drawn: two of them in float64, and their noise.
_DRAWING_BYTES = 32
_FLOAT64_FACTOR = 2  # of float32

# A model as a function: uint8 (N, H, W, C) -> float32 (N, num_classes).
PredictFn = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


@dataclass(frozen=True)
class ParityCheck:
    """Comparison of an exported model with its run on images of one size.

    Attributes:
        size: (height, width) of the images in pixels.
        difference: largest relative difference between two probabilities.
        allowed: the tolerance for ``difference``, see :func:`compute_reference`.
        num_changed: images with another predicted class, because two classes are equally likely up to rounding.
    """

    size: tuple[int, int]
    num_images: int
    difference: float
    allowed: float
    num_changed: int


@dataclass(frozen=True)
class ReferenceOutputs:
    """The run's probabilities in float64, with which an exported model is compared.

    Attributes:
        images: uint8 (N, H, W, C), one array for each of several sizes.
        probabilities: float64 (N, num_classes), one array for each size.
        allowed: the largest relative difference of a probability that counts as rounding.
    """

    images: tuple[NDArray[np.uint8], ...]
    probabilities: tuple[NDArray[np.float64], ...]
    allowed: float

    def compare(self, predict: PredictFn) -> tuple[ParityCheck, ...]:
        """Check a model on every image size. Raises RuntimeError where a difference exceeds the tolerance."""
        pairs = zip(self.images, self.probabilities, strict=True)
        return tuple(self._check(predict(images), images, expected) for images, expected in pairs)

    def _check(
        self, probabilities: NDArray[np.float32], images: NDArray[np.uint8], expected: NDArray[np.float64]
    ) -> ParityCheck:
        (num_images, height, width), difference = images.shape[:3], max_relative_error(probabilities, expected)
        num_changed = int((probabilities.argmax(1) != expected.argmax(1)).sum())
        if not difference <= self.allowed:
            raise RuntimeError(
                f"on images of {width}x{height} the exported model differs from the run by more than rounding: "
                f"relative difference of the probabilities {difference:.2g}, tolerance {self.allowed:.2g}; "
                f"{num_changed} of {num_images} images get another class; nothing is written"
            )
        return ParityCheck((height, width), num_images, difference, self.allowed, num_changed)


def compute_reference(run: Run, tta: str) -> ReferenceOutputs:
    """The run's probabilities for random images of three sizes, and the tolerance for rounding.

    Two correct programs differ in float32, because they add in different orders. So an exported model is compared with
    the run computed in float64, whose own rounding is negligible. The tolerance is ``MARGIN`` times the rounding error
    of the run in float32:

    - The error is measured in one batch with all threads and in small batches with one thread. It counts as at least
      one rounding per layer.
    - Resized pixels are rounded to whole grey levels, where a tiny error can change a pixel by a whole level. The
      images are drawn such that no resized pixel is near such a tie: all programs then classify the same pixels.

    Differences are relative to the probability, so that confident models are compared as strictly as others.

    Args:
        run: on the CPU.
        tta: the views that are averaged.
    Raises:
        RuntimeError: where fewer than half of the digits of the run's float32 probabilities are right.
    """
    height, width = run.preprocessing.size
    sizes = ((height, width), (height * 3 // 4, width * 2 // 3), (2 * height + 1, 3 * width))
    check_comparison_memory(run, sizes)
    images = tuple(images_without_ties(run, NUM_IMAGES, *size) for size in sizes)
    exact = tuple(_predict_float64(run, batch, tta) for batch in images)
    error = max(_rounding_error(run, *pair, tta) for pair in zip(images, exact, strict=True))
    if not error < EPSILON**0.5:
        raise RuntimeError(
            f"the run's probabilities have a relative error of {error:.2g} in float32: the network magnifies rounding "
            "errors too much for an exported model to be compared with it; nothing is written"
        )
    return ReferenceOutputs(images, exact, MARGIN * max(error, EPSILON * _num_layers(run)))


def check_comparison_memory(run: Run, sizes: Sequence[tuple[int, int]]) -> None:
    """Raise RunError where the images to compare on, and the network that computes them, do not fit into memory."""
    height, width = max(sizes)
    pixels = sum(NUM_IMAGES * run.preprocessing.channels * h * w for h, w in sizes)
    largest = NUM_IMAGES * run.preprocessing.channels * height * width
    num_bytes = pixels + largest * _DRAWING_BYTES + NUM_IMAGES * run.bytes_per_image * _FLOAT64_FACTOR
    run.check_memory(num_bytes, f"comparing the exported model with it on images of {height}x{width} pixels")


def images_without_ties(run: Run, num_images: int, height: int, width: int) -> NDArray[np.uint8]:
    """Random images that every float32 program resizes to the same grey levels: patches of colour with noise.

    The noise under a resized pixel is drawn again while that pixel is near a rounding tie.

    Returns:
        uint8 (num_images, height, width, channels).
    Raises:
        RuntimeError: where a pixel is still near a tie after ``MAX_REDRAWS`` redraws.
    """
    rng = np.random.default_rng(height * width)
    shape = (num_images, run.preprocessing.channels, height, width)
    rows, columns = np.arange(height) * 4 // height, np.arange(width) * 4 // width
    patches = rng.integers(0, 256, (*shape[:2], 4, 4), np.int16)[:, :, rows][..., columns]

    def draw() -> Tensor:
        return torch.from_numpy(np.clip(patches + rng.integers(-30, 31, shape, np.int16), 0, 255)).double()

    images = draw()
    size, fit = run.preprocessing.size, run.recipe.image_fit
    down, across = fit_weights(images, *size, fit)
    for _ in range(MAX_REDRAWS):
        resized = down @ images @ across.T
        float_down, float_across = fit_weights(images.float(), *size, fit)
        error = (float_down @ images.float() @ float_across.T - resized).abs().max()
        to_tie = (resized + BELOW_HALF) % 1 - 0.5
        is_near = to_tie.abs() <= TIE_MARGIN * error
        if not is_near.any():
            return images.byte().permute(0, 2, 3, 1).contiguous().numpy()
        is_below = down.T @ is_near.double() @ across > 0
        images = torch.where(is_below, draw(), images)
    raise RuntimeError(
        f"no test images of {width}x{height} without rounding ties after {MAX_REDRAWS} draws; nothing is written"
    )


def _predict_float64(run: Run, images: NDArray[np.uint8], tta: str) -> NDArray[np.float64]:
    """The run's calibrated probabilities (N, num_classes), computed in float64."""
    model = deepcopy(run.predictor).double()
    mean, std = (statistic.double() for statistic in run.preprocessing.tensors())
    with torch.inference_mode():
        planes = torch.from_numpy(images).permute(0, 3, 1, 2).double()
        pixels = batch_fit(planes, *run.preprocessing.size, run.recipe.image_fit).permute(0, 2, 3, 1)
        probabilities = average_views(model, batch_normalize(pixels, mean, std), tta)
        if run.temperature != 1.0:
            probabilities = (probabilities.clamp_min(SMALLEST_PROBABILITY).log() / run.temperature).softmax(1)
    exact: NDArray[np.float64] = probabilities.numpy()
    return exact


def _rounding_error(run: Run, images: NDArray[np.uint8], exact: NDArray[np.float64], tta: str) -> float:
    """The largest relative difference of the run's float32 probabilities from float64."""
    one_batch = run.predict_proba(images, tta)
    with _single_thread():
        small_batches = [run.predict_proba(images[start : start + 3], tta) for start in range(0, len(images), 3)]
    return max(max_relative_error(one_batch, exact), max_relative_error(np.concatenate(small_batches), exact))


def _num_layers(run: Run) -> int:
    """Modules without children in one network, and in the pretrained classifier where there is one."""
    networks = [networks_of(run.model)[0]]
    if isinstance(run.predictor, Blend):
        networks.append(run.predictor.pretrained)
    return sum(not list(module.children()) for network in networks for module in network.modules())


def max_relative_error(probabilities: NDArray[np.float32], expected: NDArray[np.float64]) -> float:
    """The largest difference between two probabilities, as a share of the expected one."""
    return float((np.abs(probabilities - expected) / np.maximum(expected, MIN_COMPARED_PROBABILITY)).max())


@contextmanager
def _single_thread() -> Iterator[None]:
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(num_threads)
