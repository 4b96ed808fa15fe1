"""Weight averaging: an exponential moving average of the weights, which is the model that is scored and saved."""

import copy

import torch
from torch import Tensor, nn


class WeightAverage:
    """Exponential moving average (EMA) of a model's weights and batch norm statistics.

    The decay depends on progress instead of the number of steps, so that the average covers the same fraction of a
    schedule of any length: with ``span`` = 0.05 about the last twentieth.

    Args:
        model: the network that is trained; the average starts as a copy of it.
        span: time constant in progress, at most 1; 0 for no averaging.
    """

    def __init__(self, model: nn.Module, span: float) -> None:
        self.span = span
        self.model = copy.deepcopy(model).eval() if span else model
        self._average = _floating_state(self.model)
        self._current = _floating_state(model)

    def update(self, advance: float) -> None:
        """Update the average after a step that moved the progress on by ``advance``."""
        self.update_with_weight(self.weight_for(advance))

    def weight_for(self, advance: float) -> float:
        """Weight of the current weights in the average, 0...1, after an advance of the progress."""
        return min(1.0, advance / self.span) if self.span else 0.0

    @torch.no_grad()
    def update_with_weight(self, weight: float | Tensor) -> None:
        """``average = lerp(average, current, weight)``; a 0-dim tensor may change between replays of a CUDA graph."""
        if not self.span:
            return
        if isinstance(weight, float):
            torch._foreach_lerp_(self._average, self._current, weight)
            return
        difference = torch._foreach_sub(self._current, self._average)
        torch._foreach_mul_(difference, weight)
        torch._foreach_add_(self._average, difference)


def _floating_state(model: nn.Module) -> list[Tensor]:
    """Parameters and floating-point buffers (not copies), in a fixed order."""
    return [t for t in (*model.parameters(), *model.buffers()) if t.is_floating_point()]
