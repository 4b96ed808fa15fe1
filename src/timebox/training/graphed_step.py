"""CUDA graphs of training steps: a whole step is recorded once and then launched as one unit.

A step is some hundreds of operations, which Python and torch launch in 1.5 to 4 ms; a fast GPU computes them in less.
A graph is launched in a fraction of that time. It holds addresses and operations: each batch is copied into the tensors
that were recorded, and every number that changes from step to step is written to the device first. The weights stay at
their addresses, also after a rollback (``TrainingState.restore`` copies into them).

In fp16 steps run eagerly: the loss scaler keeps its state in Python. torch.compile is not used: it saves 10 to 14 % of
a step on an A100 (airbench, cifar-10-speedrun), but takes half a minute and more per network and image size, out of
budgets of minutes, and would be a second arithmetic beside the one that is tested.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor

from timebox.data.device.loader import Batch, DeviceLoader
from timebox.distributed.process_group import SINGLE_PROCESS, ProcessGroup, TorchrunGroup
from timebox.models import networks_of
from timebox.optim import Optimizer
from timebox.optim.loss import Loss
from timebox.runtime.cuda_graphs import CudaGraphRecorder, GraphRecorder, Replay
from timebox.training.data_parallel import DataParallelStepRunner
from timebox.training.schedule import StepPlan
from timebox.training.state import TrainingState
from timebox.training.step import EagerStepRunner, StepRunner, backpropagate, training_step

# Lazy initialisation and cuDNN's algorithm search must be over before a step is recorded.
NUM_WARM_UPS = 2
# Largest distance between a replayed and an eager step, relative to the length of the step. bf16 and atomic additions
# stay well within it; a wrong batch or learning rate does not.
TOLERANCE = 0.05
ROUNDING = 1e-6


@dataclass(frozen=True)
class _GraphKey:
    """The properties of a step that a graph is recorded for."""

    shape: torch.Size
    micro_batch: int
    trainable: tuple[bool, ...]


class GraphScalars:
    """The learning rates, momentum and EMA weight of a step, as 0-dim tensors on the device, which graphs read."""

    def __init__(self, num_groups: int, device: torch.device) -> None:
        scalars = [torch.zeros((), device=device) for _ in range(num_groups + 2)]
        *self.group_lrs, self.momentum, self.ema_weight = scalars
        self._tensors = scalars

    def fill(self, optimizer: Optimizer, ema_weight: float) -> None:
        """Write the numbers of the next step, without waiting for the device."""
        for tensor, value in zip(self._tensors, (*optimizer.group_lrs, optimizer.momentum, ema_weight), strict=True):
            tensor.fill_(value)


class GraphedStepRunner:
    """Replays recorded steps. Steps run eagerly where recording fails or a replay differs from the eager step."""

    def __init__(
        self, state: TrainingState, loss_fn: Loss, recorder: GraphRecorder, notify: Callable[[str], None]
    ) -> None:
        self._state, self._loss_fn = state, loss_fn
        self._recorder, self._notify = recorder, notify
        self._eager = EagerStepRunner(state, loss_fn)
        self._scalars = GraphScalars(len(state.optimizer.groups), state.precision.device)
        self._static_batches: dict[torch.Size, Batch] = {}
        self._replays: dict[_GraphKey, Replay | None] = {}
        self._has_given_up = False

    @property
    def num_recorded(self) -> int:
        """Graphs in use."""
        return sum(replay is not None for replay in self._replays.values())

    def prepare(self, loader: DeviceLoader, micro_batch: int) -> None:
        """Record the steps still to come: one graph for each image size, with all and with fewer trainable groups."""
        state, optimizer = self._state, self._state.optimizer
        freezing = {group.freeze_at for group in optimizer.groups if 0.0 < group.freeze_at < 1.0}
        resizing = {begins_at for begins_at, _ in loader.resizing.stages()}
        for progress in sorted({state.progress, *freezing, *resizing}):
            if progress >= state.progress:
                step_plan = StepPlan(progress, optimizer.lr, optimizer.momentum, micro_batch)
                self._replay_for(loader.batch(state.step, progress), step_plan)

    def run(self, batch: Batch, step_plan: StepPlan) -> Tensor:
        state = self._state
        replay = self._replay_for(batch, step_plan)
        if replay is None:
            return self._eager.run(batch, step_plan)
        self._load(batch, state.average.weight_for(step_plan.progress - state.progress))
        # The next replay overwrites its output.
        loss = replay().clone()
        state.count_step(step_plan.progress)
        return loss

    def _replay_for(self, batch: Batch, step_plan: StepPlan) -> Replay | None:
        """The graph for a step, recorded where it is new; None where the step must run eagerly."""
        optimizer = self._state.optimizer
        optimizer.prepare(step_plan.lr, step_plan.momentum, step_plan.progress)
        trainable = tuple(group.parameters[0].requires_grad for group in optimizer.groups)
        key = _GraphKey(batch.images.shape, step_plan.micro_batch, trainable)
        if key not in self._replays:
            # The micro-batch shrinks where memory is short: graphs of larger ones must release theirs.
            self._replays = {k: r for k, r in self._replays.items() if k.micro_batch == key.micro_batch}
            self._replays[key] = None if self._has_given_up else self._record(batch, step_plan.micro_batch)
        return self._replays[key]

    def _record(self, batch: Batch, micro_batch: int) -> Replay | None:
        """Record a step and compare a replay with the eager step. The training state is restored afterwards."""
        state = self._state
        before, margins = state.snapshot(), self._loss_fn.margins
        sums = margins.state() if margins else ()
        static_batch = self._load(batch, 0.5)

        def step() -> Tensor:
            """The step to record. Its numbers are tensors on the device."""
            loss = backpropagate(networks_of(state.model), static_batch, state.precision, self._loss_fn, micro_batch)
            state.optimizer.step(self._scalars.group_lrs, self._scalars.momentum)
            state.optimizer.zero_grad()
            state.average.update_with_weight(self._scalars.ema_weight)
            return loss

        with self._recorder.warm_up():
            for _ in range(NUM_WARM_UPS):
                step()
            state.restore(before)
            loss = training_step(state, self._loss_fn, static_batch, micro_batch)
            state.average.update_with_weight(0.5)
            expected = self._copy_result(loss)
            state.restore(before)
        try:
            replay = self._recorder.record(step)
            replayed = self._copy_result(replay())
        except RuntimeError as error:
            self._give_up(str(error).strip().partition("\n")[0] or type(error).__name__)
            return None
        finally:
            state.restore(before)
            if margins:
                margins.restore(sums)
        if steps_agree({**before.tensors, "loss.": torch.zeros_like(expected["loss."])}, expected, replayed):
            return replay
        self._give_up("a replayed step differs from the same step run eagerly")
        return None

    def _load(self, batch: Batch, ema_weight: float) -> Batch:
        """Copy a batch and the numbers of the prepared step into the tensors that graphs read. Returns that batch."""
        shape = batch.images.shape
        if shape not in self._static_batches:
            indices = None if batch.indices is None else torch.empty_like(batch.indices)
            self._static_batches[shape] = Batch(torch.empty_like(batch.images), torch.empty_like(batch.labels), indices)
        static_batch = self._static_batches[shape]
        static_batch.images.copy_(batch.images)
        static_batch.labels.copy_(batch.labels)
        if static_batch.indices is not None and batch.indices is not None:
            static_batch.indices.copy_(batch.indices)
        self._scalars.fill(self._state.optimizer, ema_weight)
        return static_batch

    def _copy_result(self, loss: Tensor) -> dict[str, Tensor]:
        """Copies of the loss and of all tensors that a step changes."""
        return {**self._state.snapshot().tensors, "loss.": loss.clone()}

    def _give_up(self, reason: str) -> None:
        """Record no more steps: after a failed recording, torch's allocator may accept none. Existing graphs stay."""
        self._has_given_up = True
        self._notify(f"steps are not recorded as a CUDA graph: {reason}")


def build_step_runner(
    state: TrainingState,
    loss_fn: Loss,
    notify: Callable[[str], None],
    group: ProcessGroup = SINGLE_PROCESS,
    seconds_left: Callable[[], float] = lambda: inf,
) -> StepRunner:
    """Data-parallel steps for several ranks; else CUDA graphs on a GPU in fp32 and bf16; else eager steps.

    Code of the user's runs eagerly: it may wait for the device, or compute differently from step to step.

    Args:
        seconds_left: as of :class:`EagerStepRunner`; a single process on a CPU reads it, others do not.
    """
    precision = state.precision
    if isinstance(group, TorchrunGroup):
        return DataParallelStepRunner(state, loss_fn, group)
    if precision.device.type != "cuda" or precision.name == "fp16" or state.has_own_code:
        return EagerStepRunner(state, loss_fn, seconds_left)
    return GraphedStepRunner(state, loss_fn, CudaGraphRecorder(precision.device), notify)


def steps_agree(before: Mapping[str, Tensor], expected: Mapping[str, Tensor], actual: Mapping[str, Tensor]) -> bool:
    """Whether two steps from the state ``before`` lead to equal states but for rounding, by prefix (``model.*``...)."""
    if any(not torch.equal(t, actual[name]) for name, t in expected.items() if not t.is_floating_point()):
        return False
    floating = [name for name, tensor in expected.items() if tensor.is_floating_point()]
    for prefix in sorted({name.split(".")[0] for name in floating}):
        names = [name for name in floating if name.split(".")[0] == prefix]
        step_length = _norm([expected[name] - before[name] for name in names])
        distance = _norm([actual[name] - expected[name] for name in names])
        # Not ">": a NaN is no agreement.
        if not distance <= TOLERANCE * step_length + ROUNDING * _norm([expected[name] for name in names]):
            return False
    return True


def _norm(tensors: list[Tensor]) -> float:
    return float(torch.stack([tensor.double().square().sum() for tensor in tensors]).sum().sqrt())
