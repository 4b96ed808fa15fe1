"""Temperature scaling and expected calibration error.

Source: C. Guo et al., On Calibration of Modern Neural Networks (2017), arXiv 1706.04599.
"""

import numpy as np
from numpy.typing import NDArray

# Bounds of a fitted temperature: values outside come from too few images rather than from the model.
MIN_TEMPERATURE, MAX_TEMPERATURE = 0.25, 4.0
# Number of images below which the temperature is 1, and number of images and of probabilities that are used at most:
# ten million take about two seconds. So from 3,333 classes on fewer images are used, but never fewer than MIN_IMAGES.
MIN_IMAGES, MAX_IMAGES, MAX_FITTED_PROBABILITIES = 20, 3000, 10_000_000
# Bisections of the interval of inverse temperatures, which leave a relative error below 1e-4.
NUM_BISECTIONS = 20
# Bins of equal width for the expected calibration error, as in Guo et al.
NUM_BINS = 15
# Lower bound of probabilities before their logarithm is taken.
SMALLEST_PROBABILITY = 1e-12


def fit_temperature(probabilities: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """The temperature that minimises the negative log-likelihood on held-out images, 0.25...4 (Guo et al., 2017).

    The negative log-likelihood is convex in the inverse temperature, so bisection of its derivative finds the minimum.
    The labels are smoothed by 1 / (N + 2), because fifty images without an error do not show that there are no errors
    (J. Platt, Probabilistic outputs for support vector machines, 1999).

    Args:
        probabilities: float32 (N, num_classes), rows sum to one; the first 3,000 are used, fewer above 3,333 classes.
        labels: int64 (N,).
    Returns:
        The temperature; 1 for fewer than 20 images.
    """
    if len(labels) < MIN_IMAGES:
        return 1.0
    num_used = min(MAX_IMAGES, max(MIN_IMAGES, MAX_FITTED_PROBABILITIES // probabilities.shape[1]))
    logits = np.log(np.maximum(probabilities[:num_used], SMALLEST_PROBABILITY, dtype=np.float64))
    label_logits = logits[np.arange(len(logits)), labels[:num_used]]
    other_logits = (logits.sum(1) - label_logits) / (logits.shape[1] - 1)
    smoothing = 1 / (len(logits) + 2)
    observed = ((1 - smoothing) * label_logits + smoothing * other_logits).mean()
    low, high = 1 / MAX_TEMPERATURE, 1 / MIN_TEMPERATURE
    for _ in range(NUM_BISECTIONS):
        inverse = (low + high) / 2
        weights = np.exp(inverse * logits)  # no overflow: logits are at most 0
        expected = ((weights * logits).sum(1) / weights.sum(1)).mean()
        low, high = (low, inverse) if expected > observed else (inverse, high)
    return round(2 / (low + high), 4)


def apply_temperature(probabilities: NDArray[np.float32], temperature: float) -> NDArray[np.float32]:
    """Probabilities (N, num_classes) of a softmax with this temperature; 1 returns the argument itself."""
    if temperature == 1.0:
        return probabilities
    logits = np.log(np.maximum(probabilities, SMALLEST_PROBABILITY, dtype=np.float32)) / np.float32(temperature)
    exponentials = np.exp(logits - logits.max(1, keepdims=True))
    scaled: NDArray[np.float32] = exponentials / exponentials.sum(1, keepdims=True)
    return scaled


def expected_calibration_error(probabilities: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Expected calibration error, 0...1: mean difference between confidence and accuracy, in 15 bins of equal width."""
    confidence = probabilities.max(1)
    right = probabilities.argmax(1) == labels
    bins = np.minimum((confidence * NUM_BINS).astype(np.int64), NUM_BINS - 1)
    gaps = np.bincount(bins, weights=confidence - right, minlength=NUM_BINS)
    return float(np.abs(gaps).sum() / len(labels))
