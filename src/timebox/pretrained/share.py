"""The weight of a pretrained classifier in its blend with a network."""

import numpy as np
from numpy.typing import NDArray

# Shares that are tried, in tenths.
NUM_STEPS = 10
# Validation images below which no share is told from another.
MIN_IMAGES = 20
SMALLEST_PROBABILITY = 1e-7


def blend(network: NDArray[np.float32], pretrained: NDArray[np.float32], share: float) -> NDArray[np.float32]:
    """Probabilities, averaged with the weight ``share`` for those of the pretrained classifier."""
    mixed: NDArray[np.float32] = np.float32(1 - share) * network + np.float32(share) * pretrained
    return mixed


def best_share(network: NDArray[np.float32], pretrained: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """The weight of the pretrained classifier's probabilities, 0...1, with the largest likelihood of validation images.

    The likelihood is a concave function of the share.

    Args:
        network, pretrained: probabilities (N, num_classes).
        labels: int64 (N,).
    """
    rows = np.arange(len(labels))
    shares = [step / NUM_STEPS for step in range(NUM_STEPS + 1)]
    likelihoods = [
        np.log(np.maximum(blend(network, pretrained, share)[rows, labels], SMALLEST_PROBABILITY)).mean()
        for share in shares
    ]
    return shares[int(np.argmax(likelihoods))]
