"""Parameter groups: biases learn at a rate of their own."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(eq=False)
class ParameterGroup:
    """Parameters that share their rates, and their momentum buffers."""

    parameters: list[Tensor]
    buffers: list[Tensor]
    weight_decay: float
    lr_multiplier: float


class SGD:
    """SGD with Nesterov momentum, each group updated in one fused pass over its memory.

    torch's own optimizers bring in its compiler when the first is made: over a second before the first step. The
    kernel is the same.

    Attributes:
        lr: learning rate on the mean loss, 0 or more; each group takes its multiple.
        momentum: above 0 and below 1.
    """

    # torch's GradScaler sets grad_scale and found_inf around a step: gradients are divided by the first, and the step
    # is skipped, without waiting for the device, where the second is not 0.
    _step_supports_amp_scaling = True

    def __init__(self, groups: list[ParameterGroup], lr: float, momentum: float) -> None:
        self.groups = groups
        self.lr, self.momentum = lr, momentum

    @property
    def param_groups(self) -> list[dict[str, list[Tensor]]]:
        """The parameters as GradScaler looks for them."""
        return [{"params": group.parameters} for group in self.groups]

    @torch.no_grad()
    def step(self) -> None:
        """Update every parameter from its gradient."""
        for group in self.groups:
            gradients = [parameter.grad for parameter in group.parameters if parameter.grad is not None]
            torch._fused_sgd_(
                group.parameters,
                gradients,
                group.buffers,
                weight_decay=group.weight_decay,
                momentum=self.momentum,
                lr=self.lr * group.lr_multiplier,
                dampening=0.0,
                nesterov=True,
                maximize=False,
                is_first_step=False,
                grad_scale=getattr(self, "grad_scale", None),
                found_inf=getattr(self, "found_inf", None),
            )

    def zero_grad(self) -> None:
        """Drop all gradients."""
        for group in self.groups:
            for parameter in group.parameters:
                parameter.grad = None


def sgd(model: nn.Module, *, lr: float, momentum: float, weight_decay: float, bias_lr_multiplier: float) -> SGD:
    """Nesterov SGD with one group of weights and one of biases.

    Biases, those of normalisation layers above all, take ``bias_lr_multiplier`` times the rate and proportionally less
    decay, so that the shrinkage per step is the same for both (cifar10-fast, "bag of tricks": ×64).

    Args:
        lr: learning rate on the mean loss, 0 or more.
        momentum: above 0 and below 1.
        weight_decay: L2 penalty, added to the gradient, 0 or more.
        bias_lr_multiplier: above 0.
    """
    trainable: list[Tensor] = [p for p in model.parameters() if p.requires_grad]
    kinds = (
        ([p for p in trainable if p.dim() > 1], 1.0),
        ([p for p in trainable if p.dim() == 1], bias_lr_multiplier),
    )
    groups = [
        ParameterGroup(parameters, [torch.zeros_like(p) for p in parameters], weight_decay / multiplier, multiplier)
        for parameters, multiplier in kinds
        if parameters
    ]
    return SGD(groups, lr, momentum)
