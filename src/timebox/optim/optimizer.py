"""Optimizer: parameter groups, each with a multiple of one learning rate."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Number = float | Tensor  # a tensor is 0-dim, on the device of the parameters


@dataclass(frozen=True, eq=False)
class Rates:
    """Learning rates and momentum of a step: Python numbers, or tensors that can change between CUDA graph replays.

    Attributes:
        lr: learning rate of each group, 0 or more; ignored for frozen groups.
        momentum: above 0 and below 1.
    """

    lr: Sequence[Number]
    momentum: Number


@dataclass(eq=False)
class ParameterGroup(ABC):
    """Parameters with one update rule and learning rate.

    Attributes:
        parameters: float32, any shapes.
        buffers: momentum buffers, one per parameter, of its shape.
        lr_multiplier: learning rate of the group relative to the optimizer's, above 0.
        frozen_from: progress of the training, 0...1, from which the parameters are frozen; 1 for never.
    """

    parameters: list[Tensor]
    buffers: list[Tensor]
    lr_multiplier: float
    frozen_from: float = 1.0

    @abstractmethod
    def step(self, lr: Number, momentum: Number, grad_scale: Tensor | None, found_inf: Tensor | None) -> None:
        """Update the parameters from their gradients, without waiting for the device.

        Args:
            lr: learning rate of this group, 0 or more.
            momentum: above 0 and below 1.
            grad_scale: 0-dim loss scale by which the gradients are divided; None for no loss scale.
            found_inf: 0-dim; if it is not 0, the update changes nothing. None for no loss scale.
        """

    @property
    def flops_per_step(self) -> float:
        """Floating-point operations of an update; elementwise operations on the parameters are not counted."""
        return 0.0

    def is_frozen(self, progress: float) -> bool:
        """Whether the parameters are frozen at ``progress``."""
        return self.frozen_from < 1.0 and progress >= self.frozen_from

    def lr_factor(self, progress: float) -> float:
        """Factor on the learning rate at ``progress``, 0...1: falls linearly to 0 at ``frozen_from``."""
        if self.is_frozen(progress):
            return 0.0
        return 1.0 if self.frozen_from == 1.0 else 1.0 - progress / self.frozen_from


class Optimizer:
    """Parameter groups, with the learning rate and momentum of the next step.

    Not a ``torch.optim.Optimizer``, because the first of those imports torch's compiler, which takes over a second.

    Attributes:
        lr: learning rate for the mean loss, 0 or more; multiplied by the group's ``lr_multiplier``.
        momentum: above 0 and below 1.
    """

    # torch's GradScaler sets grad_scale and found_inf around a step. Gradients are divided by the first, and the step
    # is skipped, without waiting for the device, if the second is not 0.
    _step_supports_amp_scaling = True

    def __init__(self, groups: Sequence[ParameterGroup], lr: float, momentum: float) -> None:
        self.groups = list(groups)
        self.lr, self.momentum = lr, momentum
        self._progress = 0.0

    @property
    def param_groups(self) -> list[dict[str, list[Tensor]]]:
        """The parameters in the format that GradScaler reads."""
        return [{"params": group.parameters} for group in self.groups]

    @property
    def flops_per_step(self) -> float:
        """Floating-point operations of an update of all groups."""
        return sum(group.flops_per_step for group in self.groups)

    def prepare(self, lr: float, momentum: float, progress: float) -> None:
        """Set learning rate and momentum of the next step, which ends at ``progress``; freeze or unfreeze groups."""
        self.lr, self.momentum, self._progress = lr, momentum, progress
        for group in self.groups:
            if group.frozen_from < 1.0:
                for parameter in group.parameters:
                    parameter.requires_grad_(not group.is_frozen(progress))

    @property
    def rates(self) -> Rates:
        """Learning rates and momentum of the next step."""
        return Rates(
            [self.lr * group.lr_multiplier * group.lr_factor(self._progress) for group in self.groups], self.momentum
        )

    @torch.no_grad()
    def step(self, rates: Rates | None = None) -> None:
        """Update every parameter that is not frozen from its gradient.

        Args:
            rates: None for those set by :meth:`prepare`.
        """
        rates = rates or self.rates
        for group, lr in zip(self.groups, rates.lr, strict=True):
            if not group.is_frozen(self._progress):
                group.step(lr, rates.momentum, getattr(self, "grad_scale", None), getattr(self, "found_inf", None))

    def zero_grad(self) -> None:
        """Set all gradients to None."""
        for group in self.groups:
            for parameter in group.parameters:
                parameter.grad = None
