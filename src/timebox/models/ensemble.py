"""Ensemble: several networks whose class probabilities are averaged."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Ensemble(nn.Module):
    """Averages the class probabilities of networks with equal input and output shapes.

    Each network is trained independently, see :func:`networks_of`, on the images in an order of its own. On small data
    sets networks that all fit the training images make different errors, and their mean is more accurate than any of
    the networks (Lakshminarayanan et al., arXiv 1612.01474).
    """

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        # "members.0." and so on are the prefixes of the parameters in model files: the attribute cannot be renamed.
        self.members = nn.ModuleList(networks)

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) to the logarithm of the mean probabilities (N, num_classes), float32 or float64."""
        all_logits = [network(images) for network in self.members]
        dtype = torch.promote_types(all_logits[0].dtype, torch.float32)
        return torch.stack([logits.to(dtype).log_softmax(1) for logits in all_logits]).logsumexp(0)


def networks_of(model: nn.Module) -> list[nn.Module]:
    """The networks that are trained independently: those of an ensemble, else the model itself."""
    return list(model.members) if isinstance(model, Ensemble) else [model]
