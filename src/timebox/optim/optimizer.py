"""Several groups of parameters under one rate."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Number = float | Tensor  # a tensor is 0-dim and on the device of the parameters


@dataclass(frozen=True, eq=False)
class Rates:
    """What a step multiplies by: Python numbers, or tensors where a step is recorded once and replayed with others.

    Attributes:
        lr: of each group, 0 or more; that of a frozen one is not looked at.
        momentum: above 0 and below 1.
    """

    lr: Sequence[Number]
    momentum: Number


@dataclass(eq=False)
class ParameterGroup(ABC):
    """Parameters that are updated alike.

    Attributes:
        parameters: float32, any shapes.
        buffers: their momentum, one for each, of the same shape.
        lr_multiplier: of the optimizer's rate, above 0.
        frozen_from: progress of the training, 0...1, from which these parameters stay as they are; 1 for never.
    """

    parameters: list[Tensor]
    buffers: list[Tensor]
    lr_multiplier: float
    frozen_from: float = 1.0

    @abstractmethod
    def step(self, lr: Number, momentum: Number, grad_scale: Tensor | None, found_inf: Tensor | None) -> None:
        """Update the parameters from their gradients, without waiting for the device.

        Args:
            lr: this group's rate, 0 or more.
            momentum: above 0 and below 1.
            grad_scale: 0-dim, what the gradients are to be divided by; None for nothing.
            found_inf: 0-dim, not 0 where the update must change nothing; None for never.
        """

    @property
    def flops_per_step(self) -> float:
        """Operations of an update, whatever the batch; what goes over the parameters once does not count."""
        return 0.0

    def is_frozen(self, progress: float) -> bool:
        """Whether nothing is learnt any more at ``progress``."""
        return self.frozen_from < 1.0 and progress >= self.frozen_from

    def lr_factor(self, progress: float) -> float:
        """What of the rate is left at ``progress``: it falls linearly to nothing where the group freezes."""
        if self.is_frozen(progress):
            return 0.0
        return 1.0 if self.frozen_from == 1.0 else 1.0 - progress / self.frozen_from


class Optimizer:
    """Parameter groups, and the rates of the next step.

    torch's own optimizers bring in its compiler when the first is made: over a second before the first step.

    Attributes:
        lr: learning rate on the mean loss, 0 or more; each group takes its multiple.
        momentum: above 0 and below 1.
    """

    # torch's GradScaler sets grad_scale and found_inf around a step: gradients are divided by the first, and the step
    # is skipped, without waiting for the device, where the second is not 0.
    _step_supports_amp_scaling = True

    def __init__(self, groups: Sequence[ParameterGroup], lr: float, momentum: float) -> None:
        self.groups = list(groups)
        self.lr, self.momentum = lr, momentum
        self._progress = 0.0

    @property
    def param_groups(self) -> list[dict[str, list[Tensor]]]:
        """The parameters as GradScaler looks for them."""
        return [{"params": group.parameters} for group in self.groups]

    @property
    def flops_per_step(self) -> float:
        """Operations of an update of all groups."""
        return sum(group.flops_per_step for group in self.groups)

    def prepare(self, lr: float, momentum: float, progress: float) -> None:
        """Set the rates of the next step, which ends at ``progress``. Parameters that are frozen by then need no
        gradients any more, nor does what only leads to them."""
        self.lr, self.momentum, self._progress = lr, momentum, progress
        for group in self.groups:
            if group.frozen_from < 1.0:
                for parameter in group.parameters:
                    parameter.requires_grad_(not group.is_frozen(progress))

    @property
    def rates(self) -> Rates:
        """Those of the next step."""
        return Rates(
            [self.lr * group.lr_multiplier * group.lr_factor(self._progress) for group in self.groups], self.momentum
        )

    @torch.no_grad()
    def step(self, rates: Rates | None = None) -> None:
        """Update every parameter that is not frozen from its gradient.

        Args:
            rates: None for those that were prepared.
        """
        rates = rates or self.rates
        for group, lr in zip(self.groups, rates.lr, strict=True):
            if not group.is_frozen(self._progress):
                group.step(lr, rates.momentum, getattr(self, "grad_scale", None), getattr(self, "found_inf", None))

    def zero_grad(self) -> None:
        """Drop all gradients."""
        for group in self.groups:
            for parameter in group.parameters:
                parameter.grad = None
