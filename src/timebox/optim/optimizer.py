"""Optimizer: parameter groups, each with a multiple of one learning rate."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Number = float | Tensor  # a tensor is 0-dim, on the device of the parameters; CUDA graphs read it anew in each replay


@dataclass(eq=False)
class ParameterGroup(ABC):
    """Parameters with one update rule and learning rate.

    Attributes:
        parameters: float32, any shapes.
        buffers: momentum buffers, one per parameter, of its shape.
        lr_multiplier: learning rate of the group relative to the optimizer's, above 0.
        freeze_at: progress of the training, 0...1, from which the parameters are frozen; 1 for never. Until then the
            learning rate falls linearly to 0.
    """

    parameters: list[Tensor]
    buffers: list[Tensor]
    lr_multiplier: float
    freeze_at: float = 1.0

    @abstractmethod
    def step(self, lr: Number, momentum: Number, grad_scale: Tensor | None, found_inf: Tensor | None) -> None:
        """Update the parameters from their gradients, without waiting for the device.

        Args:
            lr: learning rate of this group, 0 or more.
            momentum: above 0 and below 1.
            grad_scale: 0-dim loss scale by which the gradients are divided; None for no loss scale.
            found_inf: 0-dim; if it is not 0, the update changes nothing. None for no loss scale.
        """

    def used(self) -> list[int]:
        """Positions of the parameters that have a gradient: one that took no part in the forward pass has none."""
        return [i for i, parameter in enumerate(self.parameters) if parameter.grad is not None]

    def named_state(self) -> list[tuple[str, Tensor, Tensor]]:
        """All that the updates keep between steps, and a checkpoint saves: (name, parameter it belongs to, value)."""
        return [("momentum", *pair) for pair in zip(self.parameters, self.buffers, strict=True)]

    @property
    def flops_per_step(self) -> float:
        """Floating-point operations of an update; elementwise operations on the parameters are not counted."""
        return 0.0

    def is_frozen(self, progress: float) -> bool:
        """Whether the parameters are frozen at ``progress``."""
        return self.freeze_at < 1.0 and progress >= self.freeze_at

    def lr_at(self, lr: float, progress: float) -> float:
        """Learning rate of the group at ``progress``, where that of the optimizer is ``lr``."""
        if self.is_frozen(progress):
            return 0.0
        return lr * self.lr_multiplier * (1.0 if self.freeze_at == 1.0 else 1.0 - progress / self.freeze_at)


class Optimizer:
    """Parameter groups, with the learning rate and momentum of the next step.

    Not a ``torch.optim.Optimizer``, because the first of those imports torch's compiler, which takes over a second.

    Attributes:
        lr: learning rate for the mean loss, 0 or more; multiplied by the group's ``lr_multiplier``.
        momentum: above 0 and below 1.
    """

    # torch's GradScaler sets grad_scale and found_inf around a step; see ParameterGroup.step.
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

    @property
    def group_lrs(self) -> list[float]:
        """Learning rate of each group in the next step; 0 for frozen groups."""
        return [group.lr_at(self.lr, self._progress) for group in self.groups]

    def prepare(self, lr: float, momentum: float, progress: float) -> None:
        """Set learning rate and momentum of the next step, which ends at ``progress``; freeze or unfreeze groups."""
        self.lr, self.momentum, self._progress = lr, momentum, progress
        for group in self.groups:
            if group.freeze_at < 1.0:
                for parameter in group.parameters:
                    parameter.requires_grad_(not group.is_frozen(progress))

    @torch.no_grad()
    def step(self, group_lrs: Sequence[Number] | None = None, momentum: Number | None = None) -> None:
        """Update every parameter that is not frozen; by default at the values set by :meth:`prepare`."""
        momentum = self.momentum if momentum is None else momentum
        grad_scale, found_inf = getattr(self, "grad_scale", None), getattr(self, "found_inf", None)
        for group, lr in zip(self.groups, self.group_lrs if group_lrs is None else group_lrs, strict=True):
            if not group.is_frozen(self._progress):
                group.step(lr, momentum, grad_scale, found_inf)

    def zero_grad(self) -> None:
        """Set all gradients to None."""
        for group in self.groups:
            for parameter in group.parameters:
                parameter.grad = None
