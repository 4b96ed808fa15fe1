"""SGD with Nesterov momentum."""

from dataclasses import dataclass

import torch
from torch import Tensor

from timebox.optim.optimizer import ParameterGroup


@dataclass(eq=False)
class SGDGroup(ParameterGroup):
    """Parameters under SGD with Nesterov momentum, updated in one fused pass over their memory.

    Attributes:
        weight_decay: L2 penalty, added to the gradient, 0 or more.
    """

    weight_decay: float = 0.0

    def step(self, lr: float, momentum: float, grad_scale: Tensor | None, found_inf: Tensor | None) -> None:
        torch._fused_sgd_(
            self.parameters,
            [parameter.grad for parameter in self.parameters],  # type: ignore[misc]  # the optimizer has looked
            self.buffers,
            weight_decay=self.weight_decay,
            momentum=momentum,
            lr=lr,
            dampening=0.0,
            nesterov=True,
            maximize=False,
            is_first_step=False,
            grad_scale=grad_scale,
            found_inf=found_inf,
        )


def sgd_group(
    parameters: list[Tensor], weight_decay: float, lr_multiplier: float = 1.0, frozen_from: float = 1.0
) -> SGDGroup:
    """A group at rest.

    A group that learns at a multiple of the rate takes proportionally less decay, so that all groups shrink alike in a
    step (cifar10-fast, "bag of tricks": biases at 64 times the rate).
    """
    buffers = [torch.zeros_like(parameter) for parameter in parameters]
    return SGDGroup(parameters, buffers, lr_multiplier, frozen_from, weight_decay / lr_multiplier)
