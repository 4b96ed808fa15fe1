"""An optimizer of the user's, of torch.optim, under the schedule of a training."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from timebox.errors import UsageError
from timebox.optim.optimizer import Number, Optimizer, ParameterGroup

if TYPE_CHECKING:
    import torch.optim

# State that counts the steps: what it is before the first one.
_AFTER_NO_STEP = {"step": 0.0, "mu_product": 1.0}


@dataclass(eq=False)
class TorchGroup(ParameterGroup):
    """The parameters of a ``torch.optim.Optimizer`` that have a rate in common.

    Attributes:
        optimizer: which they belong to; it may replace the tensors of its state in each step.
    """

    optimizer: Any = None

    def step(self, lr: Number, momentum: Number, grad_scale: Tensor | None, found_inf: Tensor | None) -> None:
        raise AssertionError("the optimizer steps, not its groups")

    def named_state(self) -> list[tuple[str, Tensor, Tensor]]:
        return [
            (name, parameter, value)
            for parameter in self.parameters
            for name, value in self.optimizer.state[parameter].items()
            if isinstance(value, Tensor)
        ]


class TorchOptimizer(Optimizer):
    """Drives a ``torch.optim.Optimizer``: in each step its rates are their first values times that of the schedule.

    Its state is made at once, by a step in which nothing changes, so that it can be saved and restored from the start.

    Args:
        optimizer: over all parameters of the network that are trained. Its momentum stays as it is.
        max_lr: highest factor on its rates, above 0.
    Raises:
        UsageError: for another object, or an optimizer whose step needs a closure.
    """

    def __init__(self, optimizer: object, max_lr: float) -> None:
        if not all(hasattr(optimizer, name) for name in ("param_groups", "state", "step", "zero_grad")):
            raise UsageError(f"optimizer must make a torch.optim.Optimizer, and made a {type(optimizer).__name__}")
        self._optimizer: torch.optim.Optimizer = optimizer  # type: ignore[assignment]
        first_lrs = [float(group["lr"]) for group in self._optimizer.param_groups]
        self._make_state()
        groups = [
            TorchGroup(list(group["params"]), [], lr, optimizer=optimizer)
            for group, lr in zip(self._optimizer.param_groups, first_lrs, strict=True)
        ]
        super().__init__(groups, max_lr, 0.9)

    @property
    def param_groups(self) -> list[dict[str, list[Tensor]]]:
        return self._optimizer.param_groups

    def step(self, group_lrs: Sequence[Number] | None = None, momentum: Number | None = None) -> None:
        """Update every parameter, but not where a gradient overflowed in fp16."""
        found_inf, grad_scale = getattr(self, "found_inf", None), getattr(self, "grad_scale", None)
        if found_inf is not None and found_inf.item():
            return
        lrs = self.group_lrs if group_lrs is None else group_lrs
        for own, settings, lr in zip(self.groups, self._optimizer.param_groups, lrs, strict=True):
            gradients = [p.grad for p in own.parameters if p.grad is not None]
            if grad_scale is not None and gradients:
                torch._foreach_div_(gradients, grad_scale)
            settings["lr"] = lr
        self._optimizer.step()

    def _make_state(self) -> None:
        """Make the optimizer's state by a step with gradients of 0 and without weight decay; then no step was taken."""
        settings = self._optimizer.param_groups
        parameters = [p for group in settings for p in group["params"]]
        before = [p.detach().clone() for p in parameters]
        decays = [group.get("weight_decay") for group in settings]
        for group, decay in zip(settings, decays, strict=True):
            if decay is not None:
                group["weight_decay"] = 0.0
        for parameter in parameters:
            parameter.grad = torch.zeros_like(parameter)
        try:
            self._optimizer.step()
        except TypeError as error:
            name = type(self._optimizer).__name__
            raise UsageError(f"optimizer {name} needs a closure, which is not supported") from error
        for group, decay in zip(settings, decays, strict=True):
            if decay is not None:
                group["weight_decay"] = decay
        with torch.no_grad():
            for parameter, value in zip(parameters, before, strict=True):
                parameter.copy_(value)
                parameter.grad = None
        for state in self._optimizer.state.values():
            for name, value in state.items():
                if name in _AFTER_NO_STEP:
                    state[name] = torch.as_tensor(value).float().fill_(_AFTER_NO_STEP[name])
