"""Updates whose numbers lie on the device: a step recorded once can then be taken again with others.

The same arithmetic as the optimizer's and the average's own, but for rounding. Those take Python numbers, which a
recording keeps as they were.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from timebox.optim import Optimizer, ParameterGroup, SGDGroup, WeightAverage


class StepNumbers:
    """What changes from step to step, each a 0-dim float32 tensor on the device, in place of a Python number.

    Attributes:
        rates: the learning rate of each of the optimizer's groups.
        momentum: of all groups that have none of their own.
        average_weight: what of the new weights is taken into the average, 0...1.
    """

    def __init__(self, num_groups: int, device: torch.device) -> None:
        self.rates = [torch.zeros((), device=device) for _ in range(num_groups)]
        self.momentum, self.average_weight = torch.zeros((), device=device), torch.zeros((), device=device)

    def fill(self, rates: Sequence[float], momentum: float, average_weight: float) -> None:
        """Set the numbers of the next step. Issued like a step, it waits for nothing."""
        for tensor, value in zip(
            (*self.rates, self.momentum, self.average_weight), (*rates, momentum, average_weight), strict=True
        ):
            tensor.fill_(value)


def rates_of(optimizer: Optimizer, lr: float, progress: float) -> list[float]:
    """The learning rate of each group in a step that ends at ``progress``; 0 for one that is frozen."""
    return [
        0.0 if group.is_frozen(progress) else lr * group.lr_multiplier * group.rate_factor(progress)
        for group in optimizer.groups
    ]


def average_weight(average: WeightAverage, advanced: float) -> float:
    """What of the new weights is taken into the average after an advance in progress."""
    return min(1.0, advanced / average.span) if average.span else 0.0


@torch.no_grad()
def update_weights(optimizer: Optimizer, numbers: StepNumbers) -> None:
    """Update every parameter that is not frozen from its gradient."""
    for group, rate in zip(optimizer.groups, numbers.rates, strict=True):
        if group.parameters[0].requires_grad:
            if isinstance(group, SGDGroup):
                _update_sgd(group, rate, numbers.momentum)
            else:
                _update_as_it_is(group, rate, numbers.momentum)


def _update_sgd(group: SGDGroup, lr: Tensor, momentum: Tensor) -> None:
    """Nesterov's SGD. torch's fused kernel takes the momentum as a Python number only."""
    gradients = [parameter.grad for parameter in group.parameters if parameter.grad is not None]
    decayed = torch._foreach_add(gradients, group.parameters, alpha=group.weight_decay)
    torch._foreach_mul_(group.buffers, momentum)
    torch._foreach_add_(group.buffers, decayed)
    ahead = torch._foreach_mul(group.buffers, momentum)
    torch._foreach_add_(ahead, decayed)
    torch._foreach_mul_(ahead, lr)
    torch._foreach_sub_(group.parameters, ahead)


def _update_as_it_is(group: ParameterGroup, lr: Tensor, momentum: Tensor) -> None:
    """Muon multiplies by its rate, which may as well be a tensor, and has a momentum of its own."""
    group.step(lr, momentum, None, None)  # type: ignore[arg-type]


@torch.no_grad()
def update_average(average: list[Tensor], current: list[Tensor], weight: Tensor) -> None:
    """Move each tensor of the average towards the current one, by ``weight`` of what is between them."""
    between = torch._foreach_sub(current, average)
    torch._foreach_mul_(between, weight)
    torch._foreach_add_(average, between)
