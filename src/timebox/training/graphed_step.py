"""CUDA graphs: a whole step is recorded once and then issued to the GPU in one piece.

A step is some hundreds of operations, which Python and torch issue in 1.5 to 4 ms; a fast GPU has computed them before
that. A recorded one is issued in a fraction of it. What a recording holds is addresses and operations: so the batch is
copied to where it was when the step was recorded, and every number that changes is written to the device first. Weights
stay where they are, also when a training goes back (``TrainingState.restore`` copies into them).

In fp16 steps are not recorded: the loss scaler keeps its books in Python, once per step. torch.compile is left out:
it saves 10 to 14 % of a step on an A100 (airbench, cifar-10-speedrun), but takes half a minute and more per network
and shape, out of budgets of minutes, and would be a second arithmetic beside the one that is tested.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from timebox.data.device.loader import Batch, DeviceLoader
from timebox.distributed.process_group import SINGLE_PROCESS, ProcessGroup, TorchrunGroup
from timebox.models import networks_of
from timebox.optim import Rates
from timebox.optim.loss import Loss
from timebox.runtime.cuda_graphs import CudaGraphRecorder, GraphRecorder, Replay
from timebox.training.data_parallel import DataParallelSteps
from timebox.training.schedule import StepPlan
from timebox.training.state import TrainingState
from timebox.training.step import EagerSteps, Steps, backpropagate, training_step

# Lazy initialisations, and cuDNN's search for algorithms, must be over before a step can be recorded.
NUM_WARM_UPS = 2
# How far a replayed step may be from the same step taken eagerly, as a share of how far the step goes. bf16 and atomic
# additions stay well within; a wrong batch or rate does not.
TOLERANCE = 0.05
ROUNDING = 1e-6


@dataclass(frozen=True)
class _Variant:
    """What must be the same for a recorded step to fit: the shape of the images, how many are computed at once, and
    which groups of parameters still learn."""

    shape: torch.Size
    micro_batch: int
    learning: tuple[bool, ...]


class StepNumbers:
    """What changes from step to step, each a 0-dim float32 tensor on the device, in place of a Python number.

    Attributes:
        rates: of the optimizer.
        average_share: of the new weights that goes into the average, 0...1.
    """

    def __init__(self, num_groups: int, device: torch.device) -> None:
        *lr, momentum, self.average_share = (torch.zeros((), device=device) for _ in range(num_groups + 2))
        self.rates = Rates(lr, momentum)
        self._all = (*lr, momentum, self.average_share)

    def fill(self, rates: Rates, average_share: float) -> None:
        """Set the numbers of the next step. Issued like a step, it waits for nothing."""
        for tensor, value in zip(self._all, (*rates.lr, rates.momentum, average_share), strict=True):
            tensor.fill_(value)


class GraphedSteps:
    """Takes recorded steps, and eager ones where recording fails or a replayed step is not the eager one.

    Args:
        tell: takes a sentence, once, where steps are not recorded.
    """

    def __init__(
        self, state: TrainingState, loss_fn: Loss, recorder: GraphRecorder, notify: Callable[[str], None]
    ) -> None:
        self._state, self._loss_fn = state, loss_fn
        self._recorder, self._notify = recorder, notify
        self._eager = EagerSteps(state, loss_fn)
        self._numbers = StepNumbers(len(state.optimizer.groups), state.precision.device)
        self._batches: dict[torch.Size, Batch] = {}
        self._replays: dict[_Variant, Replay | None] = {}
        self._has_given_up = False

    @property
    def num_recorded(self) -> int:
        """How many variants of the step are replayed."""
        return sum(replay is not None for replay in self._replays.values())

    def prepare(self, loader: DeviceLoader, micro_batch: int) -> None:
        """Record the steps that are still to come: one for each size of the loader's images, with all groups learning
        and with fewer of them."""
        state, optimizer = self._state, self._state.optimizer
        freezing = {group.frozen_from for group in optimizer.groups if 0.0 < group.frozen_from < 1.0}
        growing = {begins_at for begins_at, _ in loader.resizing.stages()}
        for progress in sorted({state.progress, *freezing, *growing}):
            if progress >= state.progress:
                step_plan = StepPlan(progress, optimizer.lr, optimizer.momentum, micro_batch)
                self._replay_of(loader.batch(state.step, progress), step_plan)

    def __call__(self, batch: Batch, step_plan: StepPlan) -> Tensor:
        state = self._state
        replay = self._replay_of(batch, step_plan)
        if replay is None:
            return self._eager(batch, step_plan)
        self._load(batch, state.average.weight_for(step_plan.progress - state.progress))
        # The next replay writes its loss to the same place.
        loss = replay().clone()
        state.count(step_plan.progress)
        return loss

    def _replay_of(self, batch: Batch, step_plan: StepPlan) -> Replay | None:
        """The recorded step that fits; None where it is to be taken eagerly."""
        optimizer = self._state.optimizer
        optimizer.prepare(step_plan.lr, step_plan.momentum, step_plan.progress)
        learning = tuple(group.parameters[0].requires_grad for group in optimizer.groups)
        variant = _Variant(batch.images.shape, step_plan.micro_batch, learning)
        if variant not in self._replays:
            # Parts are made smaller where memory is short: what was recorded for larger ones must not hold any.
            self._replays = {v: r for v, r in self._replays.items() if v.micro_batch == variant.micro_batch}
            self._replays[variant] = None if self._has_given_up else self._recorded(batch, step_plan)
        return self._replays[variant]

    def _recorded(self, batch: Batch, step_plan: StepPlan) -> Replay | None:
        """A recording of the step, compared with the step taken eagerly. The training stays where it stands."""
        state = self._state
        before = state.snapshot()
        at_rest = self._load(batch, 0.5)

        def work() -> Tensor:
            return self._step(at_rest, step_plan.micro_batch)

        with self._recorder.aside():
            for _ in range(NUM_WARM_UPS):
                work()
            state.restore(before)
            expected = self._taken(self._eager_step(at_rest, step_plan.micro_batch))
            state.restore(before)
        try:
            replay = self._recorder.record(work)
            replayed = self._taken(replay())
        except RuntimeError as error:
            self._give_up(str(error).strip().partition("\n")[0] or type(error).__name__)
            return None
        finally:
            state.restore(before)
        if steps_agree({**before.tensors, "loss.": torch.zeros_like(expected["loss."])}, expected, replayed):
            return replay
        self._give_up("a replayed one differs from the same step taken anew")
        return None

    def _step(self, batch: Batch, micro_batch: int) -> Tensor:
        """What is recorded: one step whose numbers lie on the device."""
        state = self._state
        loss = backpropagate(networks_of(state.model), batch, state.precision, self._loss_fn, micro_batch)
        state.optimizer.step(self._numbers.rates)
        state.optimizer.zero_grad()
        state.average.update_with_weight(self._numbers.average_share)
        return loss

    def _eager_step(self, batch: Batch, micro_batch: int) -> Tensor:
        """The same step as :class:`EagerSteps` takes it."""
        state = self._state
        loss = training_step(state.model, state.optimizer, batch, state.precision, self._loss_fn, micro_batch)
        state.average.update_with_weight(0.5)
        return loss

    def _load(self, batch: Batch, average_share: float) -> Batch:
        """Put a batch and the numbers of the step that is prepared where recorded steps read them."""
        if batch.images.shape not in self._batches:
            self._batches[batch.images.shape] = Batch(torch.empty_like(batch.images), torch.empty_like(batch.labels))
        at_rest = self._batches[batch.images.shape]
        at_rest.images.copy_(batch.images)
        at_rest.labels.copy_(batch.labels)
        self._numbers.fill(self._state.optimizer.rates, average_share)
        return at_rest

    def _taken(self, loss: Tensor) -> dict[str, Tensor]:
        """Copies of all that a step has changed, and its loss."""
        return {**self._state.snapshot().tensors, "loss.": loss.clone()}

    def _give_up(self, reason: str) -> None:
        """Record nothing more: after a recording that failed, torch's allocator may take none. Those made stay good."""
        self._has_given_up = True
        self._notify(f"steps are not recorded as a CUDA graph: {reason}")


def build_steps(
    state: TrainingState, loss_fn: Loss, notify: Callable[[str], None], group: ProcessGroup = SINGLE_PROCESS
) -> Steps:
    """Shared steps where several processes train; else recorded ones on a GPU, in fp32 and bf16; else eager ones."""
    precision = state.precision
    if isinstance(group, TorchrunGroup):
        return DataParallelSteps(state, loss_fn, group)
    if precision.device.type != "cuda" or precision.name == "fp16":
        return EagerSteps(state, loss_fn)
    return GraphedSteps(state, loss_fn, CudaGraphRecorder(precision.device), notify)


def steps_agree(before: Mapping[str, Tensor], expected: Mapping[str, Tensor], got: Mapping[str, Tensor]) -> bool:
    """Whether two steps from one state come to the same but for rounding, in each part (``model.*`` and so on).

    Waits for the device.
    """
    if any(not torch.equal(t, got[name]) for name, t in expected.items() if not t.is_floating_point()):
        return False
    floating = [name for name, tensor in expected.items() if tensor.is_floating_point()]
    for part in sorted({name.split(".")[0] for name in floating}):
        names = [name for name in floating if name.split(".")[0] == part]
        moved = _norm([expected[name] - before[name] for name in names])
        apart = _norm([got[name] - expected[name] for name in names])
        # Written so that a NaN is no agreement.
        if not apart <= TOLERANCE * moved + ROUNDING * _norm([expected[name] for name in names]):
            return False
    return True


def _norm(tensors: list[Tensor]) -> float:
    return float(torch.stack([tensor.double().square().sum() for tensor in tensors]).sum().sqrt())
