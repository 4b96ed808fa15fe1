"""The weights of a network and a pretrained classifier in their blend."""

import numpy as np
import torch
from numpy.typing import NDArray

from timebox.evaluation.calibration import fit_temperature
from timebox.models.pretrained import BlendWeights
from timebox.pretrained.interpolation import mean_loss

# Shares that are tried, in tenths.
NUM_STEPS = 10
# One of the two is kept alone where its negative log-likelihood is above that of the best blend by this share of it at
# most: a smaller model is better.
NEGLIGIBLE_LOSS = 0.01


def blend(network: NDArray[np.float32], pretrained: NDArray[np.float32], weights: BlendWeights) -> NDArray[np.float32]:
    """Probabilities (N, num_classes) of the blend, from those of the two."""
    averaged: NDArray[np.float32] = weights.average(torch.from_numpy(network), torch.from_numpy(pretrained)).numpy()
    return averaged


def best_weights(
    network: NDArray[np.float32], pretrained: NDArray[np.float32], labels: NDArray[np.int64]
) -> BlendWeights:
    """The weights with the largest likelihood of validation images; those of one alone where it is as good.

    The network is calibrated first, as label smoothing makes it less sure than it is right.

    Args:
        network, pretrained: probabilities (N, num_classes).
        labels: int64 (N,).
    """
    temperature = fit_temperature(network, labels)

    def loss(share: float) -> float:
        return mean_loss(blend(network, pretrained, BlendWeights(share, temperature)), labels)

    losses = {step / NUM_STEPS: loss(step / NUM_STEPS) for step in range(NUM_STEPS + 1)}
    best = min(losses, key=losses.__getitem__)
    for alone in (0.0, 1.0):
        if losses[alone] <= (1 + NEGLIGIBLE_LOSS) * losses[best]:
            best = alone
            break
    return BlendWeights(best, temperature)
