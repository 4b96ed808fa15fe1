"""Probabilities that mean what they say: one temperature, fitted on validation images.

Source: C. Guo et al., On Calibration of Modern Neural Networks, arXiv 1706.04599.
"""

import numpy as np
from numpy.typing import NDArray

# Temperatures outside say more of a few images than of the model.
LOWEST, HIGHEST = 0.25, 4.0
# With fewer images none is fitted.
MIN_IMAGES = 20
MAX_IMAGES = 3000
NUM_HALVINGS = 20
NUM_BINS = 15
SMALLEST_PROBABILITY = 1e-12


def fit_temperature(probabilities: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """The temperature with which images that were not trained on are the least surprising; 1 for a few images.

    The mean surprise is convex in the inverse temperature, so halving an interval finds where it is least. The first
    few thousand images decide. One error more than was seen is counted in: from fifty images that are all right nobody
    can tell that no image is ever wrong (J. Platt, Probabilistic outputs for support vector machines, 1999).

    Args:
        probabilities: float32 (N, num_classes), rows sum to one.
        labels: int64 (N,).
    """
    if len(labels) < MIN_IMAGES:
        return 1.0
    logits = np.log(np.maximum(probabilities[:MAX_IMAGES], SMALLEST_PROBABILITY, dtype=np.float64))
    of_labels = logits[np.arange(len(logits)), labels[:MAX_IMAGES]]
    of_others = (logits.sum(1) - of_labels) / (logits.shape[1] - 1)
    unseen = 1 / (len(logits) + 2)
    true = ((1 - unseen) * of_labels + unseen * of_others).mean()
    low, high = 1 / HIGHEST, 1 / LOWEST
    for _ in range(NUM_HALVINGS):
        inverse = (low + high) / 2
        weights = np.exp(inverse * logits)  # logits are 0 at most
        expected = ((weights * logits).sum(1) / weights.sum(1)).mean()
        low, high = (low, inverse) if expected > true else (inverse, high)
    return round(2 / (low + high), 4)


def apply_temperature(probabilities: NDArray[np.float32], temperature: float) -> NDArray[np.float32]:
    """Probabilities (N, num_classes) as a softmax of that temperature would give them; 1 leaves them alone."""
    if temperature == 1.0:
        return probabilities
    logits = np.log(np.maximum(probabilities, SMALLEST_PROBABILITY, dtype=np.float32)) / np.float32(temperature)
    exponentials = np.exp(logits - logits.max(1, keepdims=True))
    scaled: NDArray[np.float32] = exponentials / exponentials.sum(1, keepdims=True)
    return scaled


def expected_calibration_error(probabilities: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """The expected calibration error, 0...1: how far confidence and accuracy are apart, on average over the images, in
    fifteen bins of equal width."""
    confidence = probabilities.max(1)
    right = probabilities.argmax(1) == labels
    bins = np.minimum((confidence * NUM_BINS).astype(np.int64), NUM_BINS - 1)
    gaps = np.bincount(bins, weights=confidence - right, minlength=NUM_BINS)
    return float(np.abs(gaps).sum() / len(labels))
