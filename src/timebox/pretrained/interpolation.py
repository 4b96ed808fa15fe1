"""Between the published and the fine-tuned weights: the mix that makes validation images most likely.

Where a data set is close to the photos that the backbone was trained on, fine-tuning on few images loses more than it
gains, and weights between the two are better than either (M. Wortsman et al., Robust fine-tuning of zero-shot models,
2022, arXiv 2109.01903).
"""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from timebox.evaluation.calibration import MIN_IMAGES, apply_temperature, fit_temperature
from timebox.models.pretrained import SMALLEST_PROBABILITY

# Shares of the fine-tuned weights that are tried; the one for too few validation images; and images used at most.
SHARES, DEFAULT_SHARE, MAX_IMAGES = (1.0, 0.75, 0.5, 0.25, 0.0), 0.75, 500


def interpolate(model: nn.Module, start: Mapping[str, Tensor], end: Mapping[str, Tensor], share: float) -> None:
    """Give a model the weights at a share, 0...1, of the way from ``start`` to ``end``."""
    model.load_state_dict({name: torch.lerp(value, end[name], share) for name, value in start.items()})


def best_share(
    model: nn.Module,
    start: Mapping[str, Tensor],
    predict: Callable[[int], NDArray[np.float32]],
    labels: NDArray[np.int64],
) -> float:
    """The share of the way from ``start`` to the model's weights at which validation images are most likely; the
    model is left with those weights.

    Args:
        predict: returns the model's probabilities, float32 (N, num_classes), of so many validation images.
        labels: int64 (M,), of all validation images.
    """
    end = {name: value.clone() for name, value in model.state_dict().items()}
    num_images, losses = min(len(labels), MAX_IMAGES), dict[float, float]()
    if num_images < MIN_IMAGES:
        interpolate(model, start, end, DEFAULT_SHARE)
        return DEFAULT_SHARE
    for share in SHARES:
        interpolate(model, start, end, share)
        probabilities = predict(num_images)
        calibrated = apply_temperature(probabilities, fit_temperature(probabilities, labels[:num_images]))
        losses[share] = mean_loss(calibrated, labels[:num_images])
    best = min(losses, key=losses.__getitem__)
    interpolate(model, start, end, best)
    return best


def mean_loss(probabilities: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Mean negative log-likelihood of labels, int64 (N,), under probabilities, float32 (N, num_classes)."""
    logs = torch.from_numpy(probabilities).clamp_min(SMALLEST_PROBABILITY).log()
    return F.nll_loss(logs, torch.from_numpy(labels)).item()
