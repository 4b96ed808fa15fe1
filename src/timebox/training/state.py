"""Everything that changes while a network is trained, and where in the training it stands."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from timebox.builders import build_optimizer
from timebox.optim import WeightAverage
from timebox.recipe import Recipe
from timebox.runtime.precision import Precision

Facts = Mapping[str, object]


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A training as it stood after ``step`` steps: copies, by name, of every tensor that a step changes.

    Attributes:
        facts: what else was known at that moment, as JSON takes it.
    """

    step: int
    progress: float
    tensors: dict[str, Tensor]
    facts: Facts

    def is_finite(self) -> bool:
        """Whether all of it are finite numbers. Waits for the device."""
        return _are_finite(self.tensors.values())

    def aside(self) -> AbstractContextManager[object]:
        """Inside, in whatever thread, what is done with the copies waits for what the device had been given until now,
        and not for the steps it is given meanwhile. A GPU would else bring each tensor to the host behind those."""
        device = next((tensor.device for tensor in self.tensors.values() if tensor.is_cuda), None)
        if device is None:
            return nullcontext()
        stream = torch.cuda.Stream(device)
        stream.wait_stream(torch.cuda.current_stream(device))
        return torch.cuda.stream(stream)


class TrainingState:
    """A network in training, its optimizer and its average.

    Args:
        model: on the device that trains, in training mode; changed in place.
        describe: the facts that go with a snapshot of the present state.
    """

    def __init__(
        self, model: nn.Module, recipe: Recipe, precision: Precision, describe: Callable[[], Facts] = dict
    ) -> None:
        self.model = model
        self._describe = describe
        self.precision = precision
        self.optimizer = build_optimizer(model, recipe, precision.dtype)
        self.average = WeightAverage(model, recipe.averaging_span)
        self.step, self.progress = 0, 0.0

    def advance(self, progress: float) -> None:
        """Take the weights of one more step, which ended at ``progress``, into the average, and count it."""
        self.average.update(progress - self.progress)
        self.count(progress)

    def count(self, progress: float) -> None:
        """Count one step, which ended at ``progress``."""
        self.step, self.progress = self.step + 1, progress

    def tensors(self) -> dict[str, Tensor]:
        """The tensors themselves: ``model.*``, ``momentum.*``, and if there are any ``average.*``, ``scaler.*``."""
        parts = {"model": self.model.state_dict(), "scaler": self.precision.tensors()}
        if self.average.model is not self.model:
            parts["average"] = self.average.model.state_dict()
        buffers = {
            id(parameter): buffer
            for group in self.optimizer.groups
            for parameter, buffer in zip(group.parameters, group.buffers, strict=True)
        }
        parts["momentum"] = {
            name: buffers[id(weight)] for name, weight in self.model.named_parameters() if id(weight) in buffers
        }
        return {f"{part}.{name}": tensor for part, tensors in parts.items() for name, tensor in tensors.items()}

    def snapshot(self) -> Snapshot:
        """Copies of it all, on the same device; issued like a step, it waits for nothing."""
        tensors = {name: tensor.detach().clone() for name, tensor in self.tensors().items()}
        return Snapshot(self.step, self.progress, tensors, self._describe())

    def is_finite(self) -> bool:
        """Whether all of it are finite numbers. Waits for the device."""
        return _are_finite(self.tensors().values())

    @torch.no_grad()
    def restore(self, snapshot: Snapshot) -> None:
        """Go back, or forward, to where a snapshot was taken."""
        for name, tensor in self.tensors().items():
            tensor.copy_(snapshot.tensors[name])
        self.optimizer.zero_grad()
        self.step, self.progress = snapshot.step, snapshot.progress


def _are_finite(tensors: Iterable[Tensor]) -> bool:
    return all(bool(tensor.isfinite().all()) for tensor in tensors if tensor.is_floating_point())
