"""Data-parallel training: one schedule, and one update, for several processes."""

import warnings
from collections import deque
from dataclasses import dataclass
from math import isnan, nan

import torch
from torch import Tensor, nn
from torch._C._distributed_c10d import GradBucket
from torch.distributed import Work
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.futures import Future
from torch.nn.parallel import DistributedDataParallel

from timebox.clock import now
from timebox.data.device.loader import Batch, DeviceLoader
from timebox.distributed.process_group import TorchrunGroup
from timebox.models import GhostBatchNorm, networks_of
from timebox.optim import MuonGroup
from timebox.optim.loss import Loss
from timebox.runtime.timing import synchronize
from timebox.training.schedule import ROLLBACK_LR_FACTOR, Schedule, StepPlan
from timebox.training.state import TrainingState
from timebox.training.step import backpropagate

# Decisions travel in blocks of so many steps, or of as many as take so long: what is decided a few steps ahead knows
# less of the time left.
MAX_STEPS, BLOCK_SECONDS = 8, 0.25


def steps_in_block(step_seconds: float) -> int:
    """How many steps are decided at once, where one takes ``step_seconds``; 0 where no clock is read."""
    return max(1, min(MAX_STEPS, int(BLOCK_SECONDS / step_seconds))) if step_seconds else MAX_STEPS


class BroadcastSchedule:
    """The leader's schedule on every process.

    While the steps of one block are taken, the next block is decided and on its way: nobody waits for it.

    Args:
        own: the leader's schedule; None on the others.
        block: steps decided at once, 1 or more, the same on all.
        micro_batch: images computed at once in the first step.
    """

    def __init__(self, own: Schedule | None, group: TorchrunGroup, block: int, micro_batch: int) -> None:
        self._own, self._group, self._block = own, group, block
        self._micro_batch, self._lr_factor = micro_batch, 1.0
        self._ready: deque[StepPlan | None] = deque()
        self._sent: tuple[Tensor, Work] | None = None
        self._num_sent = 0

    def next(self, num_unfinished: int) -> StepPlan | None:
        """The next step, the same on all processes."""
        if not self._ready:
            if self._sent is None:
                self._send(num_unfinished)
            self._receive()
            if None not in self._ready:
                self._send(num_unfinished + len(self._ready))
        step_plan = self._ready[0]
        if step_plan is not None:
            self._ready.popleft()
            self._micro_batch = step_plan.micro_batch
        return step_plan

    def _send(self, num_unfinished: int) -> None:
        """Have a block of decisions under way. The leader knows how many steps will be under way before each."""
        numbers = torch.full((self._block, 4), nan, dtype=torch.float64)
        self._num_sent = 0
        if self._own is not None:
            for row in range(self._block):
                step_plan = self._own.next(num_unfinished + row)
                if step_plan is None:
                    break
                values = (step_plan.progress, step_plan.lr, step_plan.momentum, float(step_plan.micro_batch))
                numbers[row] = torch.tensor(values, dtype=torch.float64)
                self._num_sent += 1
        self._sent = numbers, self._group.broadcast_async(numbers)

    def _receive(self) -> None:
        """Take the block that is under way, once it is there."""
        assert self._sent is not None
        numbers, work = self._sent
        work.wait()
        self._sent, self._num_sent = None, 0
        for progress, lr, momentum, micro_batch in numbers.tolist():
            if isnan(progress):
                self._ready.append(None)
                break
            self._ready.append(StepPlan(progress, lr, momentum, int(micro_batch)))

    @property
    def lr_factor(self) -> float:
        return self._lr_factor if self._own is None else self._own.lr_factor

    @lr_factor.setter
    def lr_factor(self, factor: float) -> None:
        self._lr_factor = factor
        if self._own is not None:
            self._own.lr_factor = factor

    @property
    def micro_batch(self) -> int:
        """Of the latest step."""
        return self._micro_batch

    @micro_batch.setter
    def micro_batch(self, size: int) -> None:
        self._micro_batch = size
        if self._own is not None:
            self._own.micro_batch = size

    def lower_lr(self) -> None:
        self._lr_factor *= ROLLBACK_LR_FACTOR
        if self._own is not None:
            self._own.lower_lr()

    def rewind(self, step: int, progress: float) -> None:
        """Go on from where the schedule stood after ``step`` steps; what was decided beyond is dropped."""
        if self._sent is not None:
            self._receive()
        self._ready.clear()
        if self._own is not None:
            self._own.rewind(step, progress)

    def finished(self, num_steps: int) -> None:
        if self._own is not None:
            self._own.finished(num_steps)

    def paused(self) -> None:
        if self._own is not None:
            self._own.paused()

    @property
    def step_seconds(self) -> float:
        return 0.0 if self._own is None else self._own.step_seconds

    @property
    def steps_left(self) -> int:
        if self._own is None:
            return 0
        return self._own.steps_left + self._num_sent + sum(step_plan is not None for step_plan in self._ready)


# The first step sets much up; the second shows how long one takes.
TIMED_STEP = 2


@dataclass(frozen=True)
class Throughput:
    """How fast one process was.

    Attributes:
        images_per_second: of its own images, while it did not wait for others; None before the first step.
        waiting_share: of the time of its steps that it waited for the gradients of others, 0...1; None on a GPU, which
            does not tell.
    """

    images_per_second: float | None
    waiting_share: float | None


class DataParallelSteps:
    """Takes steps with the gradients of a whole batch, of which this process computes its part.

    torch's DistributedDataParallel adds gradients up in buckets while the backward pass goes on. The loss and the
    statistics of the normalisation, a few kilobytes, are averaged after each step, so that between two steps everything
    is the same on all processes, but for what unlike processors round differently, and all see the same faults.
    """

    def __init__(self, state: TrainingState, loss_fn: Loss, group: TorchrunGroup) -> None:
        self._state, self._loss_fn, self._group = state, loss_fn, group
        self._networks: list[nn.Module] = []
        self._learning: tuple[bool, ...] = ()
        self._norms = [module for module in state.model.modules() if isinstance(module, nn.BatchNorm2d)]
        self._momenta = [norm.momentum or 0.0 for norm in self._norms]
        self._statistics = [buffer for norm in self._norms for buffer in norm.buffers() if buffer.is_floating_point()]
        self._num_taken = 0
        self._batch_size = 0
        self._step_seconds = self._waiting_seconds = 0.0
        self._num_images = 0
        self._computed_at = 0.0

    def prepare(self, loader: DeviceLoader, micro_batch: int) -> None:
        """Gradients begin to be added up anew: what a step left half done is dropped."""
        self._batch_size = loader.batch_size
        self._networks = []
        for group in self._state.optimizer.groups:
            if isinstance(group, MuonGroup):
                group.shard_group = self._group
        begin, end = loader.share.of(loader.batch_size)
        for norm, momentum in zip(self._norms, self._momenta, strict=True):
            if isinstance(norm, GhostBatchNorm):
                # Statistics follow each group of a batch in turn. With fewer groups here, they follow each one further.
                times = norm.num_groups(loader.batch_size) / norm.num_groups(end - begin)
                norm.momentum = 1.0 - (1.0 - momentum) ** times

    def __call__(self, batch: Batch, step_plan: StepPlan) -> Tensor:
        """One step; the loss returned is that of the whole batch."""
        state, started = self._state, now()
        state.optimizer.prepare(step_plan.lr, step_plan.momentum, step_plan.progress)
        self._connect()
        # Gradients are averaged over the processes: parts that differ in size count by their size.
        own_images = len(batch.labels) // len(self._networks)
        weight = own_images * self._group.size / self._batch_size
        loss = backpropagate(self._networks, batch, state.precision, self._loss_fn, step_plan.micro_batch, weight)
        waited = now() - self._computed_at
        state.precision.step(state.optimizer)
        state.optimizer.zero_grad()
        self._group.all_reduce_mean_([loss, *self._statistics])
        state.advance(step_plan.progress)
        self._count(batch, now() - started, waited)
        if self._num_taken == TIMED_STEP:
            synchronize(state.precision.device)
            self._group.set_step_timeout(now() - started)
            self._networks = []
        return loss

    @property
    def throughput(self) -> Throughput:
        """Of all steps but the first."""
        on_gpu = self._state.precision.device.type == "cuda"
        if not self._step_seconds:
            return Throughput(None, None)
        computing = self._step_seconds - (0.0 if on_gpu else self._waiting_seconds)
        share = None if on_gpu else self._waiting_seconds / self._step_seconds
        return Throughput(self._num_images / computing, share)

    def _count(self, batch: Batch, seconds: float, waited: float) -> None:
        """Take note of a step. The first one sets much up, and says nothing about the others."""
        self._num_taken += 1
        if self._num_taken > 1:
            self._step_seconds += seconds
            self._waiting_seconds += waited
            self._num_images += len(batch.labels) // len(self._networks)

    def _sent(self, group: torch.distributed.ProcessGroup, bucket: GradBucket) -> Future[Tensor]:
        """Have a bucket of gradients averaged. From the last one on this process has none left to compute."""
        self._computed_at = now()
        return allreduce_hook(group, bucket)

    def _connect(self) -> None:
        """Have the gradients added up of what learns now: parameters that were frozen since have none any more."""
        learning = tuple(parameter.requires_grad for parameter in self._state.model.parameters())
        if self._networks and learning == self._learning:
            return
        # The hooks of what is replaced go first.
        self._networks, self._learning = [], learning
        self._networks = [self._connected(network) for network in networks_of(self._state.model)]

    def _connected(self, network: nn.Module) -> nn.Module:
        with warnings.catch_warnings():
            # torch 2.13 renames this argument, and changes what it does at the start.
            warnings.simplefilter("ignore", FutureWarning)
            connected = DistributedDataParallel(
                network,
                process_group=self._group.gradients,
                broadcast_buffers=False,
                init_sync=False,
                gradient_as_bucket_view=True,
            )
        connected.register_comm_hook(self._group.gradients, self._sent)
        return connected
