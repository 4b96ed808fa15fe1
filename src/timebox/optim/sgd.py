"""SGD with Nesterov momentum and weight decay."""

from dataclasses import dataclass

import torch
from torch import Tensor

from timebox.optim.optimizer import Number, ParameterGroup


@dataclass(eq=False)
class SGDGroup(ParameterGroup):
    """SGD with Nesterov momentum and an L2 penalty added to the gradient, by torch's fused kernel."""

    weight_decay: float = 0.0

    def step(self, lr: Number, momentum: Number, grad_scale: Tensor | None, found_inf: Tensor | None) -> None:
        used = self.used()
        if not used:
            return
        parameters, buffers = ([tensors[i] for i in used] for tensors in (self.parameters, self.buffers))
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if isinstance(momentum, Tensor):
            assert grad_scale is None, "CUDA graphs do not support a loss scale"
            decayed = list(torch._foreach_add(gradients, parameters, alpha=self.weight_decay))
            _step_unfused(parameters, decayed, buffers, lr, momentum)
            return
        torch._fused_sgd_(
            parameters,
            gradients,
            buffers,
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


def _step_unfused(
    parameters: list[Tensor], decayed: list[Tensor], buffers: list[Tensor], lr: Number, momentum: Tensor
) -> None:
    """The fused update but for rounding, with momentum as a tensor, which the fused kernel does not support.

    Args:
        decayed: the gradients with the L2 penalty added.
    """
    torch._foreach_mul_(buffers, momentum)
    torch._foreach_add_(buffers, decayed)
    ahead = torch._foreach_mul(buffers, momentum)
    torch._foreach_add_(ahead, decayed)
    torch._foreach_mul_(ahead, lr)
    torch._foreach_sub_(parameters, ahead)


def sgd_group(
    parameters: list[Tensor], weight_decay: float, lr_multiplier: float = 1.0, freeze_at: float = 1.0
) -> SGDGroup:
    """A group with zero momentum.

    The weight decay is divided by ``lr_multiplier``, so that a step shrinks the weights of all groups by the same
    factor (cifar10-fast, "bag of tricks": biases at 64 times the learning rate).
    """
    buffers = [torch.zeros_like(parameter) for parameter in parameters]
    return SGDGroup(parameters, buffers, lr_multiplier, freeze_at, weight_decay / lr_multiplier)
