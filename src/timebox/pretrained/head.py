"""A linear head on features: ridge regression, whose strength and temperature are chosen by leaving each image out."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

# Strengths of the ridge regression, per image, of features of length about 1.
RIDGES = tuple(10 ** (exponent / 2) for exponent in range(-9, -2))
MIN_STD = 1e-4
# Factors between the scores, which are about 0 and 1, and logits.
LOGIT_SCALES = tuple(2 ** (exponent / 4) for exponent in range(4, 29))
# Largest share of an image in its own prediction: with 1 nothing is known of it without the image.
MAX_LEVERAGE = 0.999


@dataclass(frozen=True, eq=False)
class LinearHead:
    """Weights of a linear layer, and how well it does on the images it was fitted to.

    Attributes:
        weight, bias: float32 (num_classes, num_features) and (num_classes,), of logits.
        probabilities: float32 (N, num_classes): for each image those by a head fitted to all other images.
        accuracy: of these, 0...1.
    """

    weight: Tensor
    bias: Tensor
    probabilities: Tensor
    accuracy: float


def fit_head(features: Tensor, labels: Tensor, num_classes: int) -> LinearHead:
    """Fit a linear head by ridge regression on one-hot targets.

    The strength of the regression is the one with the smallest squared error on images left out, each by a closed form
    (R. Rifkin and R. Lippert, Notes on regularized least squares, 2007). Then the scores are scaled to logits, with the
    largest likelihood on images left out.

    Args:
        features: float32 (N, num_features).
        labels: int64 (N,), in 0...num_classes - 1.
    """
    mean, length = features.mean(0), features.std(0).clamp_min(MIN_STD) * math.sqrt(features.shape[1])
    inputs, targets = (features - mean) / length, F.one_hot(labels, num_classes).float()
    target_mean = targets.mean(0)
    variances, directions = torch.linalg.eigh(inputs.T @ inputs)
    projected, centred = inputs @ directions, targets - target_mean
    correlations = projected.T @ centred
    best_error, best = math.inf, (torch.empty(0), torch.empty(0))
    for ridge in RIDGES:
        shrinkage = 1 / (variances.clamp_min(0) + ridge * len(features))
        coefficients = shrinkage[:, None] * correlations
        leverage = (projected.square() @ shrinkage + 1 / len(features)).clamp_max(MAX_LEVERAGE)
        errors = (centred - projected @ coefficients) / (1 - leverage)[:, None]
        if (error := errors.square().mean().item()) < best_error:
            best_error, best = error, (directions @ coefficients, targets - errors)
    weight, scores = best
    # Smoothed labels: a few images without an error do not show that there are no errors (Platt 1999).
    smoothing = 1 / (len(labels) + 2)
    losses = [F.cross_entropy(scale * scores, labels, label_smoothing=smoothing).item() for scale in LOGIT_SCALES]
    scale = LOGIT_SCALES[losses.index(min(losses))]
    weight = weight.T / length
    bias = target_mean - weight @ mean
    accuracy = (scores.argmax(1) == labels).float().mean().item()
    return LinearHead(scale * weight, scale * bias, (scale * scores).softmax(1), accuracy)
