"""Margins of the training images, summed over the training: images whose label the network does not come to believe.

The margin of an image is the logit of its label less the largest of the other logits. Averaged over all times that the
image was seen, it is the area under the margin (G. Pleiss et al. 2020, arXiv 2001.10528). It stays low for wrong
labels, as networks learn them last.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True, eq=False)
class MeanMargins:
    """The margins of all N training images.

    Attributes:
        margins: float32 (N,), means over the times that an image was seen; NaN for images that were not.
        rivals: int64 (N,), the class of the largest other logit when an image was last seen.
    """

    margins: NDArray[np.float32]
    rivals: NDArray[np.int64]


class MarginRecorder:
    """Sums the margins of training images on the device, in a few small operations a batch.

    Mixed images are left out: they have two labels.

    Args:
        num_images: training images.
    """

    def __init__(self, num_images: int, device: torch.device) -> None:
        self._sums = torch.zeros(num_images, device=device)
        self._counts = torch.zeros(num_images, device=device)
        self._rivals = torch.zeros(num_images, dtype=torch.int64, device=device)

    def add(self, logits: Tensor, labels: Tensor, indices: Tensor) -> None:
        """Add a batch.

        Args:
            logits: (B, num_classes), with at least two classes.
            labels: int64 (B,), or class probabilities (B, num_classes) of mixed images.
            indices: int64 (B,), of the images.
        """
        with torch.no_grad():
            logits = logits.detach().float()
            is_counted = torch.ones_like(logits[:, 0])
            if labels.is_floating_point():
                weights, labels = labels.max(1)
                is_counted = (weights >= 1).float()
            of_label = logits.gather(1, labels[:, None]).squeeze(1)
            others, rivals = logits.scatter(1, labels[:, None], -torch.inf).max(1)
            margins = torch.nan_to_num(of_label - others, 0.0, 0.0, 0.0)
            self._sums.index_add_(0, indices, margins * is_counted)
            self._counts.index_add_(0, indices, is_counted)
            self._rivals.index_copy_(0, indices, torch.where(is_counted > 0, rivals, self._rivals[indices]))

    def state(self) -> tuple[Tensor, ...]:
        """Copies of the sums."""
        return tuple(values.clone() for values in (self._sums, self._counts, self._rivals))

    def restore(self, state: tuple[Tensor, ...]) -> None:
        """Bring the sums back to a copy."""
        for values, before in zip((self._sums, self._counts, self._rivals), state, strict=True):
            values.copy_(before)

    def means(self) -> MeanMargins:
        """The means over the times that each image was seen."""
        counts = self._counts.cpu().numpy()
        with np.errstate(invalid="ignore", divide="ignore"):
            margins = np.where(counts > 0, self._sums.cpu().numpy() / counts, np.nan).astype(np.float32)
        return MeanMargins(margins, self._rivals.cpu().numpy())
