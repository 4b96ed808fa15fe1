"""AdamW: Adam with decoupled weight decay (Loshchilov & Hutter, arXiv 1711.05101)."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from timebox.optim.optimizer import Number, ParameterGroup

# The values of Kingma & Ba, arXiv 1412.6980.
BETA2, EPSILON = 0.999, 1e-8


@dataclass(eq=False)
class AdamWGroup(ParameterGroup):
    """AdamW by torch's fused kernel. ``buffers`` are the first moments; the momentum of the schedule is not used.

    Attributes:
        second_moments: one per parameter, of its shape.
        num_updates: float32, 0-dim, one per parameter.
        beta1: decay of the first moments, above 0 and below 1.
        weight_decay: share by which a step shrinks the parameters, divided by the learning rate.
    """

    second_moments: list[Tensor] = field(default_factory=list)
    num_updates: list[Tensor] = field(default_factory=list)
    beta1: float = 0.9
    weight_decay: float = 0.0

    def step(self, lr: Number, momentum: Number, grad_scale: Tensor | None, found_inf: Tensor | None) -> None:
        used = self.used()
        if not used:
            return

        def of(tensors: list[Tensor]) -> list[Tensor]:
            return [tensors[i] for i in used]

        updates = of(self.num_updates)
        torch._foreach_add_(updates, 1)
        torch._fused_adamw_(
            of(self.parameters),
            [parameter.grad for parameter in of(self.parameters) if parameter.grad is not None],
            of(self.buffers),
            of(self.second_moments),
            [],
            updates,
            lr=lr,
            beta1=self.beta1,
            beta2=BETA2,
            weight_decay=self.weight_decay,
            eps=EPSILON,
            amsgrad=False,
            maximize=False,
            grad_scale=grad_scale,
            found_inf=found_inf,
        )
        if found_inf is not None:
            torch._foreach_sub_(updates, [found_inf] * len(updates))

    def named_state(self) -> list[tuple[str, Tensor, Tensor]]:
        kept = {"momentum": self.buffers, "second_moment": self.second_moments, "num_updates": self.num_updates}
        return [(name, *pair) for name, values in kept.items() for pair in zip(self.parameters, values, strict=True)]


def adamw_group(parameters: list[Tensor], beta1: float, weight_decay: float, lr_multiplier: float = 1.0) -> AdamWGroup:
    """A group without updates so far."""
    first, second = ([torch.zeros_like(parameter) for parameter in parameters] for _ in range(2))
    num_updates = [torch.zeros((), device=parameter.device) for parameter in parameters]
    return AdamWGroup(
        parameters,
        first,
        lr_multiplier,
        second_moments=second,
        num_updates=num_updates,
        beta1=beta1,
        weight_decay=weight_decay,
    )
