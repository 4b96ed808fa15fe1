"""The state of a training: weights, momentum, averaged weights, loss scale, step and progress; snapshots of it."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from timebox.builders import build_optimizer
from timebox.custom import code_names
from timebox.optim import WeightAverage
from timebox.recipes import Recipe
from timebox.runtime.precision import Precision

Metadata = Mapping[str, object]


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A copy of the state of a training after ``step`` steps; names as of :meth:`TrainingState.tensors`."""

    step: int
    progress: float
    tensors: dict[str, Tensor]
    metadata: Metadata

    def is_finite(self) -> bool:
        """Whether all floating-point tensors are finite. Waits for the device."""
        return _are_finite(self.tensors.values())

    def copy_stream(self) -> AbstractContextManager[object]:
        """A CUDA stream that waits for the work issued until now, and not for the steps issued afterwards.

        For the thread that writes a checkpoint: on the default stream each copy to the host would wait for those steps.
        """
        device = next((tensor.device for tensor in self.tensors.values() if tensor.is_cuda), None)
        if device is None:
            return nullcontext()
        stream = torch.cuda.Stream(device)
        stream.wait_stream(torch.cuda.current_stream(device))
        return torch.cuda.stream(stream)


class TrainingState:
    """A model in training, its optimizer and averaged weights, and the steps so far; ``describe`` returns metadata.

    Attributes:
        has_own_code: whether code of the user's takes part in the steps.
    """

    def __init__(
        self, model: nn.Module, recipe: Recipe, precision: Precision, describe: Callable[[], Metadata] = dict
    ) -> None:
        self.model, self.has_own_code = model, bool(code_names(recipe.as_dict()))
        self._describe = describe
        self.precision = precision
        self.optimizer = build_optimizer(model, recipe, precision.dtype)
        self.average = WeightAverage(model, recipe.averaging_span)
        self.step, self.progress = 0, 0.0

    def advance(self, progress: float) -> None:
        """Update the averaged weights after a step that ended at ``progress``, and count the step."""
        self.average.update(progress - self.progress)
        self.count_step(progress)

    def count_step(self, progress: float) -> None:
        """Count a step that ended at ``progress``."""
        self.step, self.progress = self.step + 1, progress

    def tensors(self) -> dict[str, Tensor]:
        """The tensors themselves, not copies: ``model.*`` and ``momentum.*``; where they exist ``average.*``,
        ``scaler.*`` and all else that the optimizer keeps."""
        tensors_by_prefix = {"model": self.model.state_dict(), "scaler": self.precision.tensors()}
        if self.average.model is not self.model:
            tensors_by_prefix["average"] = self.average.model.state_dict()
        names = {id(weight): name for name, weight in self.model.named_parameters()}
        for group in self.optimizer.groups:
            for prefix, weight, value in group.named_state():
                tensors_by_prefix.setdefault(prefix, {})[names[id(weight)]] = value
        return {
            f"{prefix}.{name}": tensor
            for prefix, tensors in tensors_by_prefix.items()
            for name, tensor in tensors.items()
        }

    def snapshot(self) -> Snapshot:
        """Copy the state, on its device, without waiting for the device."""
        tensors = {name: tensor.detach().clone() for name, tensor in self.tensors().items()}
        return Snapshot(self.step, self.progress, tensors, self._describe())

    def is_finite(self) -> bool:
        """Whether all floating-point tensors are finite. Waits for the device."""
        return _are_finite(self.tensors().values())

    @torch.no_grad()
    def restore(self, snapshot: Snapshot) -> None:
        """Copy a snapshot into the tensors of this state, and drop all gradients."""
        for name, tensor in self.tensors().items():
            tensor.copy_(snapshot.tensors[name])
        self.optimizer.zero_grad()
        self.step, self.progress = snapshot.step, snapshot.progress


def _are_finite(tensors: Iterable[Tensor]) -> bool:
    return all(bool(tensor.isfinite().all()) for tensor in tensors if tensor.is_floating_point())
