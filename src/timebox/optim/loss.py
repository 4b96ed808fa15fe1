"""The training loss: cross-entropy with label smoothing, or one of the user's, with class weights."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from timebox.optim.margins import MarginRecorder


@dataclass(frozen=True, eq=False)
class Loss:
    """Cross-entropy, or another loss, averaged over images.

    Args:
        label_smoothing: share of the target distributed evenly over all classes, 0...1.
        class_weights: float32 (num_classes,), on the device, the weight of an image of each class; None for weight 1.
        function: another loss: from logits float32 (N, num_classes) and labels, as of a call, to losses (N,). Labels
            are not smoothed for it.
        margins: takes note of the logits that the loss is computed of; None where nothing does.
    """

    label_smoothing: float
    class_weights: Tensor | None = None
    function: Callable[[Tensor, Tensor], Tensor] | None = None
    margins: MarginRecorder | None = None

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss, 0-dim, of logits (N, num_classes) and labels (N,) or class probabilities (N, num_classes)."""
        if self.class_weights is None and self.function is None:
            return F.cross_entropy(logits.float(), labels, label_smoothing=self.label_smoothing)
        if self.function:
            losses = self.function(logits.float(), labels)
        else:
            losses = F.cross_entropy(logits.float(), labels, label_smoothing=self.label_smoothing, reduction="none")
        if self.class_weights is None:
            return losses.mean()
        weights = labels @ self.class_weights if labels.is_floating_point() else self.class_weights[labels]
        return (losses * weights).mean()


def class_weights(counts: NDArray[np.int64], balance: float) -> Tensor | None:
    """Weight of an image of each class, float32 (num_classes,), 1 on average over the images; None where all are equal.

    With ``balance`` 0 all images have equal weights, with 1 all classes have equal total weights.
    """
    if balance == 0 or len(set(counts[counts > 0].tolist())) == 1:
        return None
    weights = np.maximum(counts, 1).astype(np.float64) ** -balance
    return torch.tensor(weights * (counts.sum() / (weights * counts).sum()), dtype=torch.float32)
