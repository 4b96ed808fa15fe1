"""Several networks that answer as one."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Ensemble(nn.Module):
    """Networks of one shape, whose probabilities are averaged.

    Each is trained for itself, see :func:`networks_of`, on the images in an order of its own. Where images are few,
    networks that all fit them err in different ways, and the mean is right more often than any one of them
    (Lakshminarayanan et al., arXiv 1612.01474).

    Args:
        members: networks of one input and output shape, one or more.
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) to logits (N, num_classes), float32 or float64, whose softmax is the mean of the
        probabilities."""
        all_logits = [member(images) for member in self.members]
        dtype = torch.promote_types(all_logits[0].dtype, torch.float32)
        return torch.stack([logits.to(dtype).log_softmax(1) for logits in all_logits]).logsumexp(0)


def networks_of(model: nn.Module) -> list[nn.Module]:
    """The networks that are trained each for itself: the members of an ensemble, else the model."""
    return list(model.members) if isinstance(model, Ensemble) else [model]
