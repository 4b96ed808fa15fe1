"""Weight averaging: the model that is scored and saved is the mean of the last stretch of the training."""

import copy

import torch
from torch import Tensor, nn


class WeightAverage:
    """An exponential moving average of a model's weights and normalisation statistics.

    The decay follows the progress of the training rather than a step count, so that the average spans the same share
    of a schedule however many steps the clock allows: ``span`` = 0.05 averages over about the last twentieth.

    Args:
        model: the network being trained. The average starts as its copy.
        span: time constant in progress, 0 for no averaging, at most 1.
    """

    def __init__(self, model: nn.Module, span: float) -> None:
        self.span = span
        self.model = copy.deepcopy(model).eval() if span else model
        self._average = _floating_state(self.model)
        self._current = _floating_state(model)

    def update(self, advanced: float) -> None:
        """Take in the current weights after the training advanced by ``advanced`` (in progress)."""
        self.update_with_weight(self.weight_for(advanced))

    def weight_for(self, advanced: float) -> float:
        """What of the current weights an advance in progress brings into the average, 0...1."""
        return min(1.0, advanced / self.span) if self.span else 0.0

    @torch.no_grad()
    def update_with_weight(self, share: float | Tensor) -> None:
        """Move the average towards the current weights by a share of what is between them; as a 0-dim tensor, the
        share may change when a recorded step is replayed."""
        if not self.span:
            return
        if isinstance(share, float):
            torch._foreach_lerp_(self._average, self._current, share)
            return
        between = torch._foreach_sub(self._current, self._average)
        torch._foreach_mul_(between, share)
        torch._foreach_add_(self._average, between)


def _floating_state(model: nn.Module) -> list[Tensor]:
    """The tensors themselves, not copies: parameters and floating-point buffers, in a fixed order."""
    return [t for t in (*model.parameters(), *model.buffers()) if t.is_floating_point()]
