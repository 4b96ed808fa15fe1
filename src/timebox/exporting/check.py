"""Whether an exported model answers as its run does, but for the rounding of float32."""

from collections.abc import Callable, Iterator
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
from timebox.run import Run

EPSILON = float(np.finfo(np.float32).eps)
# A right program's error may be so many times the one measured. Over all recipes, formats and instruction sets it was
# up to 3 times. Weights rounded to bfloat16 change 800 times as much, another filter or view thousands of times.
MARGIN = 32
# Resized pixels are so many times their measured error away from where rounding changes direction.
TIE_MARGIN = 8
# Of smaller probabilities float32 keeps fewer digits, and soon none.
SMALLEST_COMPARED = 1e-30
NUM_IMAGES = 8
MAX_REDRAWS = 20

Answer = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


@dataclass(frozen=True)
class Check:
    """An exported model's probabilities beside the run's, on the same pixels.

    Attributes:
        size: (height, width) of the images in pixels.
        difference: the largest between two probabilities, as a share of the run's.
        allowed: how large it may be, see :func:`reference`.
        num_changed: images whose likeliest class is another, as two are equally likely but for the rounding.
    """

    size: tuple[int, int]
    num_images: int
    difference: float
    allowed: float
    num_changed: int


@dataclass(frozen=True)
class Reference:
    """What an exported model is compared with, see :func:`reference`.

    Attributes:
        pictures: uint8 (N, H, W, C), of several sizes.
        probabilities: the run's for each, float64 (N, num_classes).
        allowed: how large a difference may be, as a share of a probability.
    """

    pictures: tuple[NDArray[np.uint8], ...]
    probabilities: tuple[NDArray[np.float64], ...]
    allowed: float

    def compare(self, answer: Answer) -> tuple[Check, ...]:
        """One check for each size of picture. Raises RuntimeError where a difference is larger than allowed."""
        return tuple(self._compared(answer(images), k) for k, images in enumerate(self.pictures))

    def _compared(self, probabilities: NDArray[np.float32], position: int) -> Check:
        images, expected = self.pictures[position], self.probabilities[position]
        (num_images, height, width), difference = images.shape[:3], relative_difference(probabilities, expected)
        num_changed = int((probabilities.argmax(1) != expected.argmax(1)).sum())
        if not difference <= self.allowed:
            raise RuntimeError(
                f"on images of {width}x{height} the exported model answers otherwise than the run: probabilities "
                f"differ by up to {difference:.2g} of their value, where rounding explains {self.allowed:.2g}, and "
                f"{num_changed} of {num_images} classes; nothing is written"
            )
        return Check((height, width), num_images, difference, self.allowed, num_changed)


def reference(run: Run, tta: str) -> Reference:
    """The run's answers to images of the working size, smaller and larger, and how far a right program may be off.

    Two right programs differ in float32, because they add in another order. So an exported model is compared with the
    run computed in float64, which is as good as exact, and may be ``MARGIN`` times as far from it as float32 alone:

    - Rounding error: how far the run in float32 is from float64, in one batch with all threads and in small batches
      with one; at least one rounding for each layer.
    - Resized pixels are rounded to whole grey levels, where a tiny error can change a whole one. The images are drawn
      such that no resized pixel is near the point where that happens: all programs then classify the same pixels.

    Differences are shares of a probability, so that a confident model is compared as strictly as any other.

    Args:
        run: on the CPU.
        tta: the views that are averaged.
    Raises:
        RuntimeError: where the run in float32 has less than half of its digits right.
    """
    height, width = run.preprocessing.size
    sizes = ((height, width), (height * 3 // 4, width * 2 // 3), (2 * height + 1, 3 * width))
    pictures = tuple(pictures_without_ties(run, NUM_IMAGES, *size) for size in sizes)
    exact = tuple(_in_float64(run, images, tta) for images in pictures)
    error = max(_rounding_error(run, *pair, tta) for pair in zip(pictures, exact, strict=True))
    if not error < EPSILON**0.5:
        raise RuntimeError(
            f"the run's probabilities are off by {error:.2g} of their value in float32: the network magnifies rounding "
            "errors too much for an exported model to be compared with it; nothing is written"
        )
    return Reference(pictures, exact, MARGIN * max(error, EPSILON * _num_layers(run)))


def pictures_without_ties(run: Run, number: int, height: int, width: int) -> NDArray[np.uint8]:
    """Patches of colour under noise, uint8 (number, height, width, channels), which all float32 programs resize alike.

    Noise is drawn anew under each resized pixel that is too near to where rounding changes direction.

    Raises:
        RuntimeError: where some pixel is still too near after ``MAX_REDRAWS`` times.
    """
    rng = np.random.default_rng(height * width)
    shape = (number, run.preprocessing.channels, height, width)
    rows, columns = np.arange(height) * 4 // height, np.arange(width) * 4 // width
    patches = rng.integers(0, 256, (*shape[:2], 4, 4), np.int16)[:, :, rows][..., columns]

    def drawn() -> Tensor:
        return torch.from_numpy(np.clip(patches + rng.integers(-30, 31, shape, np.int16), 0, 255)).double()

    images = drawn()
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
        images = torch.where(is_below, drawn(), images)
    raise RuntimeError(f"no images of {width}x{height} were found that every program resizes alike; nothing is written")


def _in_float64(run: Run, images: NDArray[np.uint8], tta: str) -> NDArray[np.float64]:
    """The run's calibrated probabilities (N, num_classes), computed in float64."""
    model = deepcopy(run.model).double()
    mean, std = (statistic.double() for statistic in run.preprocessing.tensors())
    with torch.inference_mode():
        planes = torch.from_numpy(images).permute(0, 3, 1, 2).double()
        pixels = batch_fit(planes, *run.preprocessing.size, run.recipe.image_fit).permute(0, 2, 3, 1)
        probabilities = average_views(model, batch_normalize(pixels, mean, std), tta)
        if run.temperature != 1.0:
            probabilities = (probabilities.clamp_min(SMALLEST_PROBABILITY).log() / run.temperature).softmax(1)
    exact: NDArray[np.float64] = probabilities.numpy()
    return exact


def _rounding_error(run: Run, images: NDArray[np.uint8], expected: NDArray[np.float64], tta: str) -> float:
    """How far the run's own probabilities are from float64, at most."""
    at_once = run.predict_proba(images, tta)
    with _one_thread():
        in_turn = [run.predict_proba(images[start : start + 3], tta) for start in range(0, len(images), 3)]
    return max(relative_difference(at_once, expected), relative_difference(np.concatenate(in_turn), expected))


def _num_layers(run: Run) -> int:
    """Operations with weights or without that an image passes through in one network."""
    return sum(not list(module.children()) for module in networks_of(run.model)[0].modules())


def relative_difference(probabilities: NDArray[np.float32], expected: NDArray[np.float64]) -> float:
    """The largest between two probabilities, as a share of the expected one."""
    return float((np.abs(probabilities - expected) / np.maximum(expected, SMALLEST_COMPARED)).max())


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
