"""Inference: class probabilities of images, in batches, on one or several processes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from timebox.data.device.augment import batch_normalize
from timebox.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from timebox.evaluation.tta import average_views

# Images per batch: few on a CPU, where time limits are checked between batches; many on a GPU, to keep it busy.
BATCH_SIZE, GPU_BATCH_SIZE = 50, 1000
# Largest time of a batch: slow networks have smaller batches.
MAX_BATCH_SECONDS = 0.2


def inference_batch_size(device: torch.device, seconds_per_image: float) -> int:
    """Images per batch, from the measured seconds per image; 0 if they were not measured."""
    size = GPU_BATCH_SIZE if device.type == "cuda" else BATCH_SIZE
    return max(1, min(size, int(MAX_BATCH_SECONDS / seconds_per_image))) if seconds_per_image else size


def never() -> bool:
    """A ``stop`` function that never stops."""
    return False


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; restores the model's mode afterwards.

    cuDNN benchmarks no algorithms inside: for a few batches that takes longer than it saves.
    """
    was_training, was_tuning = model.training, torch.backends.cudnn.benchmark
    model.eval()
    torch.backends.cudnn.benchmark = False
    try:
        with torch.inference_mode():
            yield
    finally:
        torch.backends.cudnn.benchmark = was_tuning
        model.train(was_training)


@dataclass(frozen=True, eq=False)
class InferenceConfig:
    """Preprocessing, test-time augmentation and batch size of inference.

    Attributes:
        mean, std: float32 (C,), of the training images with pixels scaled to 0...1.
        tta: views whose probabilities are averaged. ``none``: the image; ``mirror``: also its horizontal flip;
            ``shift``: the image, and, with half of the weight, the image shifted by a pixel up and left, and down and
            right; ``mirror_shift``: all of these also flipped (K. Jordan, arXiv 2404.00498, section 3.5).
        batch_size: 1 or more; None for the default of the device.
    """

    mean: Tensor
    std: Tensor
    tta: str = "none"
    batch_size: int | None = None


def predict_probabilities(
    model: nn.Module,
    images: NDArray[np.uint8],
    config: InferenceConfig,
    device: torch.device,
    *,
    stop: Callable[[], bool] = never,
    group: ProcessGroup = SINGLE_PROCESS,
) -> NDArray[np.float32]:
    """Class probabilities of images, in order, computed in float32. The result of an image depends on no other image.

    Args:
        images: uint8 (N, H, W, C) of the model's image size.
        stop: called before each batch but the first; all images after it returns True are left out.
        group: processes that share the batches in turn; all call this function with the same images.
    Returns:
        float32 (M, num_classes), M <= N: the rows of the first M images, on every process.
    """
    mean, std = config.mean.to(device), config.std.to(device)
    batch_size = config.batch_size or inference_batch_size(device, 0.0)
    outputs: dict[int, Tensor] = {}  # of this rank's batches, by their first image
    num_scored = 0
    if not len(images):
        raise ValueError("no images to score")
    with evaluation_mode(model):
        for start in range(0, len(images), group.size * batch_size):
            if start and group.broadcast_timed(stop()):
                break
            own = start + group.rank * batch_size
            batch = torch.from_numpy(images[own : own + batch_size]).to(device, non_blocking=True)
            if len(batch):
                outputs[own] = average_views(model, batch_normalize(batch, mean, std), config.tta)
            num_scored = min(start + group.size * batch_size, len(images))
    # A rank without a batch does not know the number of classes.
    num_classes = int(max(group.all_gather_timed(max((len(output[0]) for output in outputs.values()), default=0))))
    probabilities = torch.zeros(num_scored, num_classes, dtype=torch.float32)
    for first, output in outputs.items():
        probabilities[first : first + len(output)] = output.cpu()
    group.all_reduce_sum_timed_(probabilities)
    return probabilities.numpy()
