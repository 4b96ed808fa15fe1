"""What a training step makes smaller."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True, eq=False)
class Loss:
    """Cross-entropy, as a mean over images.

    Args:
        label_smoothing: share of the target spread over all classes, 0...1.
        class_weights: float32 (num_classes,), what an image of each class counts, on the device; None for all alike.
    """

    label_smoothing: float
    class_weights: Tensor | None = None

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits (N, num_classes) and labels to a loss, float32, 0-dim.

        Args:
            labels: int64 (N,), or what each class has of an image, float32 (N, num_classes).
        """
        if self.class_weights is None:
            return F.cross_entropy(logits.float(), labels, label_smoothing=self.label_smoothing)
        losses = F.cross_entropy(logits.float(), labels, label_smoothing=self.label_smoothing, reduction="none")
        weights = labels @ self.class_weights if labels.is_floating_point() else self.class_weights[labels]
        return (losses * weights).mean()


def class_weights(counts: NDArray[np.int64], balance: float) -> Tensor | None:
    """What an image of each class counts, one on average over the images; None where all count alike.

    Args:
        counts: int64 (num_classes,), images of each class.
        balance: 0 for all images alike, 1 for all classes alike, whatever their size.
    """
    if balance == 0 or len(set(counts[counts > 0].tolist())) == 1:
        return None
    weights = np.maximum(counts, 1).astype(np.float64) ** -balance
    return torch.tensor(weights * (counts.sum() / (weights * counts).sum()), dtype=torch.float32)
