"""A linear head on features: logistic regression, or for many images of many classes ridge regression."""

import math
import warnings
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

# Images times classes above which a ridge regression is fitted: its closed form takes a second where a logistic
# regression takes minutes.
MAX_LOGISTIC = 300_000
# Strengths of the logistic regression's weight decay, of the mean loss, from strong to weak; share of the images that
# the strength is chosen on; and the end of each fit.
DECAYS, HELD_OUT_SHARE = (0.3, 0.1, 0.03, 0.01, 0.003, 0.001), 0.25
MAX_ITERATIONS, TOLERANCE = 60, 1e-3
# Logit of a class that no image was fitted to.
MISSING_LOGIT = -30.0
# Strengths of the ridge regression, per image, of features of length about 1; and factors between its scores, which are
# about 0 and 1, and logits.
RIDGES = tuple(10 ** (exponent / 2) for exponent in range(-9, -2))
LOGIT_SCALES = tuple(2 ** (exponent / 4) for exponent in range(4, 29))
# Largest share of an image in its own prediction: with 1 nothing is known of it without the image.
MAX_LEVERAGE = 0.999
MIN_STD = 1e-3


@dataclass(frozen=True, eq=False)
class LinearHead:
    """Weights of a linear layer, and how well it does on images that it was not fitted to.

    Attributes:
        weight, bias: float32 (num_classes, num_features) and (num_classes,), of logits.
        accuracy: share of training images that are right, 0...1, by heads that were not fitted to them.
    """

    weight: Tensor
    bias: Tensor
    accuracy: float


def fit_head(features: Tensor, labels: Tensor, num_classes: int) -> LinearHead:
    """Fit a linear head, whose strength of regularisation is chosen on images that it is not fitted to.

    Args:
        features: float32 (N, num_features), in an order in which every prefix has the classes in their proportions.
        labels: int64 (N,), in 0...num_classes - 1.
    """
    mean, std = features.mean(0), features.std(0).clamp_min(MIN_STD)
    inputs = (features - mean) / std
    is_large = len(labels) * num_classes > MAX_LOGISTIC
    num_fitted = len(labels) - int(HELD_OUT_SHARE * len(labels))
    has_classes = num_fitted < len(labels) and len(labels[:num_fitted].unique()) > 1
    if has_classes and not is_large:
        weight, bias, accuracy = _fit_logistic(inputs, labels, num_classes, num_fitted)
    else:
        weight, bias, accuracy = _fit_ridge(inputs, labels, num_classes)
    weight = weight / std
    return LinearHead(weight, bias - weight @ mean, accuracy)


def _fit_logistic(inputs: Tensor, labels: Tensor, num_classes: int, num_fitted: int) -> tuple[Tensor, Tensor, float]:
    """(weight, bias, accuracy) of a logistic regression, with the strength that, fitted to the first ``num_fitted``
    images, makes the others most likely.

    The strengths are tried from strong to weak, each from the weights of the one before.
    """
    held_out, held_out_labels = inputs[num_fitted:], labels[num_fitted:]
    best_loss, best_decay, accuracy = math.inf, DECAYS[0], 0.0
    model, best = _logistic_regression(), _logistic_regression()
    for decay in DECAYS:
        _fit(model, decay, inputs[:num_fitted], labels[:num_fitted])
        weight, bias = _layer_of(model, num_classes)
        logits = held_out @ weight.T + bias
        loss = F.cross_entropy(logits, held_out_labels).item()
        if loss >= best_loss:
            break
        best_loss, best_decay, best = loss, decay, deepcopy(model)
        accuracy = (logits.argmax(1) == held_out_labels).float().mean().item()
    has_new_classes = len(labels.unique()) > len(best.classes_)
    final = _logistic_regression() if has_new_classes else best
    _fit(final, best_decay, inputs, labels)
    return *_layer_of(final, num_classes), accuracy


def _logistic_regression() -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(max_iter=MAX_ITERATIONS, tol=TOLERANCE, warm_start=True)


def _fit(model: Any, decay: float, inputs: Tensor, labels: Tensor) -> None:
    """Fit a model, in one thread: for matrices of this size several wait for each other."""
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    model.set_params(C=1 / (decay * len(labels)))
    with warnings.catch_warnings(), threadpool_limits(1, user_api="blas"):
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(inputs.numpy(), labels.numpy())


def _layer_of(model: Any, num_classes: int) -> tuple[Tensor, Tensor]:
    """(weight, bias) of a fitted scikit-learn classifier, with a row for each class."""
    coefficients: NDArray[np.float64] = model.coef_
    intercepts: NDArray[np.float64] = model.intercept_
    if len(model.classes_) == 2:  # it holds those of the second class alone
        coefficients = np.concatenate([-coefficients, coefficients]) / 2
        intercepts = np.concatenate([-intercepts, intercepts]) / 2
    weight, bias = torch.zeros(num_classes, coefficients.shape[1]), torch.full((num_classes,), MISSING_LOGIT)
    classes = torch.from_numpy(model.classes_)
    weight[classes], bias[classes] = torch.from_numpy(coefficients).float(), torch.from_numpy(intercepts).float()
    return weight, bias


def _fit_ridge(inputs: Tensor, labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor, float]:
    """(weight, bias, accuracy) of a ridge regression on one-hot targets, as logits.

    Its strength is the one with the smallest squared error on images left out, each by a closed form (R. Rifkin and R.
    Lippert, Notes on regularized least squares, 2007). The scores are scaled for the largest likelihood of these.
    """
    length = math.sqrt(inputs.shape[1])
    inputs, targets = inputs / length, F.one_hot(labels, num_classes).float()
    target_mean = targets.mean(0)
    variances, directions = torch.linalg.eigh(inputs.T @ inputs)
    projected, centred = inputs @ directions, targets - target_mean
    correlations = projected.T @ centred
    best_error, best = math.inf, (torch.empty(0), torch.empty(0))
    for ridge in RIDGES:
        shrinkage = 1 / (variances.clamp_min(0) + ridge * len(inputs))
        coefficients = shrinkage[:, None] * correlations
        leverage = (projected.square() @ shrinkage + 1 / len(inputs)).clamp_max(MAX_LEVERAGE)
        errors = (centred - projected @ coefficients) / (1 - leverage)[:, None]
        if (error := errors.square().mean().item()) < best_error:
            best_error, best = error, (directions @ coefficients, targets - errors)
    weight, scores = best
    # Smoothed labels: a few images without an error do not show that there are no errors (Platt 1999).
    smoothing = 1 / (len(labels) + 2)
    losses = [F.cross_entropy(scale * scores, labels, label_smoothing=smoothing).item() for scale in LOGIT_SCALES]
    scale = LOGIT_SCALES[losses.index(min(losses))]
    accuracy = (scores.argmax(1) == labels).float().mean().item()
    return scale * weight.T / length, scale * target_mean, accuracy
