"""Probabilities for images, and how many of them are right."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import zip_longest

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from timebox.data.device.augment import batch_normalize
from timebox.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from timebox.evaluation.tta import average_views

# Small enough on a CPU that the clock is heard often, large enough on a GPU to keep it busy.
BATCH_SIZE, GPU_BATCH_SIZE = 50, 1000
# A slow network is scored in batches that take about so long.
BATCH_SECONDS = 0.2


def inference_batch_size(device: torch.device, seconds_per_image: float) -> int:
    """Images to score at once."""
    size = GPU_BATCH_SIZE if device.type == "cuda" else BATCH_SIZE
    return max(1, min(size, int(BATCH_SECONDS / seconds_per_image))) if seconds_per_image else size


def never() -> bool:
    """No reason to stop early."""
    return False


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode, without gradients; its own mode comes back afterwards.

    cuDNN tries no algorithms inside: for a few batches that takes longer than the best of them saves.
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


def predict_probabilities(
    model: nn.Module,
    images: NDArray[np.uint8],
    mean: Tensor,
    std: Tensor,
    *,
    tta: str,
    device: torch.device,
    stop: Callable[[], bool] = never,
    batch_size: int | None = None,
    group: ProcessGroup = SINGLE_PROCESS,
) -> NDArray[np.float32]:
    """Class probabilities for images, in order, in float32 whatever the training's precision.

    Args:
        images: uint8 (N, H, W, C) of the model's working size.
        mean, std: float32 (C,), the training data's.
        tta: ``none``; ``mirror``: the mean of the probabilities of an image and its mirror image; ``shift``: of an
            image as it is, and shifted by a pixel up and left, and down and right, which together count as much;
            ``mirror_shift``: all of these mirrored too (K. Jordan, arXiv 2404.00498, section 3.5). An image's result
            never depends on other images.
        stop: asked before each batch but the first; when it says so, the rest is left out.
        batch_size: images at once, 1 or more; None for what suits the device.
        group: who scores; all its processes call this with the same images, and take turns batch by batch.
    Returns:
        float32 (M, num_classes), M <= N: the first M images' rows, on every process.
    """
    mean, std = mean.to(device), std.to(device)
    batch_size = batch_size or inference_batch_size(device, 0.0)
    parts: list[Tensor] = []
    if not len(images):
        raise ValueError("no images to score")
    with evaluation_mode(model):
        for start in range(0, len(images), group.size * batch_size):
            if start and group.broadcast_timed(stop()):
                break
            own = start + group.rank * batch_size
            batch = torch.from_numpy(images[own : own + batch_size]).to(device, non_blocking=True)
            if len(batch):
                parts.append(average_views(model, batch_normalize(batch, mean, std), tta))
        by_rank = group.all_gather_timed([part.cpu().numpy() for part in parts])
    # Turn by turn, the parts of all processes in order.
    in_turn = (part for turn in zip_longest(*by_rank) for part in turn if part is not None)
    return np.concatenate(list(in_turn))
