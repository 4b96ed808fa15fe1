"""Extracting pretrained features from images, in the precision that is fastest here."""

from collections.abc import Callable
from copy import deepcopy
from math import inf

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from timebox.clock import now
from timebox.data.device.augment import batch_normalize
from timebox.evaluation.inference import evaluation_mode, never
from timebox.models.efficientnet_lite import FROZEN_BLOCKS, EfficientNetLite0
from timebox.models.pretrained import PretrainedClassifier

# Pixels in 0...1 that become 0 and 1 for the backbone, see PretrainedClassifier.accept_normalized.
ZERO, UNIT = 127 / 255, 128 / 255
# Pixels of a batch on a CPU by precision, whose caches more would leave: twelve images of 128 px in fp32 take 0.6 times
# as long as 32, and three of 224 px half as long. Images of a batch on a GPU.
PIXELS_OF_BATCH, GPU_BATCH_SIZE = {"fp32": 200_000, "bf16": 524_288}, 500
# Images whose activations become features together, on a CPU.
TUNED_BATCH_SIZE = 32
# Images of a measurement; and how many times as long as fp32 the first bf16 batch may take, to be measured again.
NUM_MEASURED, MAX_SLOWDOWN = 12, 6.0


class FeatureExtractor:
    """Computes, once for each image, the activations after a pretrained backbone's first blocks, which never change.

    Args:
        is_timed: whether bf16 is used where it is measured to be faster. Otherwise fp32 is, and no clock is read.
    Attributes:
        is_timed: likewise.
        precision: ``fp32`` or ``bf16``.
        seconds_per_image: as measured, for images of the classifier's side; 0 where no clock is read.
    """

    def __init__(
        self, classifier: PretrainedClassifier, device: torch.device, sample: NDArray[np.uint8], is_timed: bool
    ):
        self._device, self.is_timed, self.precision, self.seconds_per_image = device, is_timed, "fp32", 0.0
        self._num_frozen = max(FROZEN_BLOCKS)
        self._classifier: PretrainedClassifier = deepcopy(classifier).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._classifier.accept_normalized(torch.tensor([ZERO], device=device), torch.tensor([UNIT], device=device))
        if is_timed:
            self._choose_precision(sample[:NUM_MEASURED])

    def use(self, side: int, num_frozen: int) -> None:
        """Bring images to another side, in pixels, than that of the classifier; and run so many blocks, not 15."""
        self._classifier.side, self._num_frozen = side, num_frozen

    def activations(self, images: NDArray[np.uint8], stop: Callable[[], bool] = never) -> Tensor:
        """Activations (M, h, w, C) on the CPU, of the first M of N images, in the type of the precision.

        Args:
            images: uint8 (N, H, W, C).
            stop: called before each batch but the first; all images after it returns True are left out.
        """
        size, batches = self._batch_size(), list[Tensor]()
        with evaluation_mode(self._classifier):
            for start in range(0, len(images), size):
                if start and stop():
                    break
                batches.append(self._activations(images[start : start + size]).cpu())
        return torch.cat(batches)

    def _activations(self, images: NDArray[np.uint8]) -> Tensor:
        constants = (torch.full((images.shape[3],), value, device=self._device) for value in (ZERO, UNIT))
        inputs = batch_normalize(torch.from_numpy(images).to(self._device), *constants)
        backbone = self._classifier.backbone
        pixels = self._classifier.backbone_inputs(inputs).to(backbone.stem.weight.dtype)
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        return backbone.frozen_part(pixels, self._num_frozen).permute(0, 2, 3, 1)

    def _batch_size(self) -> int:
        if self._device.type == "cuda":
            return GPU_BATCH_SIZE
        return max(1, PIXELS_OF_BATCH[self.precision] // self._classifier.side**2)

    def _choose_precision(self, sample: NDArray[np.uint8]) -> None:
        def seconds() -> float:
            started = now()
            with evaluation_mode(self._classifier):
                self._activations(sample).cpu()
            return (now() - started) / len(sample)

        _, self.seconds_per_image = seconds(), min(seconds(), seconds())
        full = self._classifier.backbone
        self._classifier.backbone = deepcopy(full).bfloat16()
        is_emulated = seconds() > MAX_SLOWDOWN * self.seconds_per_image
        bf16_seconds = inf if is_emulated else min(seconds(), seconds())
        if bf16_seconds < self.seconds_per_image:
            self.precision, self.seconds_per_image = "bf16", bf16_seconds
        else:
            self._classifier.backbone = full


def features_of(backbone: EfficientNetLite0, activations: Tensor, num_frozen: int, device: torch.device) -> Tensor:
    """Features, float32 (N, 1280) on the CPU, of activations (N, h, w, C) after so many blocks, in their precision."""
    tuned = deepcopy(backbone).to(device, activations.dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
    with evaluation_mode(tuned):
        batches = [
            tuned.tuned_part(batch.to(device).permute(0, 3, 1, 2), num_frozen)
            for batch in activations.split(GPU_BATCH_SIZE if device.type == "cuda" else TUNED_BATCH_SIZE)
        ]
        return torch.cat(batches).float().cpu()
