"""Data-parallel training: one schedule and one update for several ranks."""

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
from timebox.training.pacer import Pacer, StepPacer
from timebox.training.schedule import ROLLBACK_LR_FACTOR, Schedule, StepPlan
from timebox.training.state import TrainingState
from timebox.training.step import backpropagate

# Largest block of step plans that is broadcast at once, in steps and in seconds: a step planned far ahead knows less of
# the time left.
MAX_BLOCK_STEPS, BLOCK_SECONDS = 8, 0.25
# Fields of a step plan that are broadcast; each rank keeps its number of threads.
BROADCAST_FIELDS = ("progress", "lr", "momentum", "micro_batch")
# The first step includes one-time initialisation; the duration of this one sets the timeout.
TIMED_STEP = 2


def block_size_for(step_seconds: float) -> int:
    """Steps to plan and broadcast at once, where one takes ``step_seconds``; 0 where no clock is read."""
    return max(1, min(MAX_BLOCK_STEPS, int(BLOCK_SECONDS / step_seconds))) if step_seconds else MAX_BLOCK_STEPS


class BroadcastSchedule:
    """The schedule of the main rank, broadcast to all ranks in blocks of ``block_size`` steps.

    While the steps of one block run, the next block is planned and under way, so that no rank waits for it. Worker
    ranks have no schedule of their own.
    """

    def __init__(self, own: Schedule | None, group: TorchrunGroup, block_size: int, micro_batch: int) -> None:
        self._own, self._group, self._block_size = own, group, block_size
        self.pacer: Pacer = StepPacer(0) if own is None else own.pacer
        self.micro_batch = micro_batch
        self.lr_factor = 1.0 if own is None else own.lr_factor
        self._received: deque[StepPlan | None] = deque()
        self._in_flight: tuple[Tensor, Work] | None = None
        self._num_in_flight = 0

    @property
    def steps_left(self) -> int:
        if self._own is None:
            return 0
        return self._own.steps_left + self._num_in_flight + sum(step_plan is not None for step_plan in self._received)

    def next(self, num_unfinished: int) -> StepPlan | None:
        if not self._received:
            if self._in_flight is None:
                self._send(num_unfinished)
            self._receive()
            if None not in self._received:
                self._send(num_unfinished + len(self._received))
        step_plan = self._received[0]
        if step_plan is not None:
            self._received.popleft()
            self.micro_batch = step_plan.micro_batch
        return step_plan

    def _send(self, num_unfinished: int) -> None:
        """Plan a block on the main rank and start its broadcast. ``num_unfinished`` counts at its first step."""
        rows = torch.full((self._block_size, len(BROADCAST_FIELDS)), nan, dtype=torch.float64)
        self._num_in_flight = 0
        if self._own is not None:
            for row in range(self._block_size):
                step_plan = self._own.next(num_unfinished + row)
                if step_plan is None:
                    break
                values = [getattr(step_plan, name) for name in BROADCAST_FIELDS]
                rows[row] = torch.tensor(values, dtype=torch.float64)
                self._num_in_flight += 1
        self._in_flight = rows, self._group.broadcast_async(rows)

    def _receive(self) -> None:
        """Wait for the block in flight. Rows of NaN mark the end of the schedule."""
        assert self._in_flight is not None
        rows, work = self._in_flight
        work.wait()
        self._in_flight, self._num_in_flight = None, 0
        for progress, lr, momentum, micro_batch in rows.tolist():
            if isnan(progress):
                self._received.append(None)
                break
            self._received.append(StepPlan(progress, lr, momentum, int(micro_batch)))

    def rewind(self, step: int, progress: float) -> None:
        """Continue from where the schedule stood after ``step`` steps; plans of later steps are dropped."""
        if self._in_flight is not None:
            self._receive()
        self._received.clear()
        if self._own is not None:
            self._own.rewind(step, progress)

    def lower_lr(self) -> None:
        self.lr_factor *= ROLLBACK_LR_FACTOR
        if self._own is not None:
            self._own.lower_lr()

    def lower_micro_batch(self, micro_batch: int) -> None:
        raise NotImplementedError("ranks cannot change the micro-batch on their own")


@dataclass(frozen=True)
class Throughput:
    """Images per second of one rank, without the time it waited for other ranks, and the share of time it waited.

    Both are None before the second step; ``waiting_share`` cannot be measured on a GPU.
    """

    images_per_second: float | None
    waiting_share: float | None


_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class DataParallelStepRunner:
    """Runs steps whose gradients are averaged over the ranks, each of which computes its share of the batch.

    DistributedDataParallel reduces gradients in buckets during the backward pass. The loss and the running statistics
    of the normalisation, a few kilobytes, are averaged after each step. Between two steps all ranks are therefore
    equal, up to rounding on unlike processors, and all see the same faults.
    """

    def __init__(self, state: TrainingState, loss_fn: Loss, group: TorchrunGroup) -> None:
        self._state, self._loss_fn, self._group = state, loss_fn, group
        self._networks: list[nn.Module] = []
        self._trainable: tuple[bool, ...] = ()
        self._norms = [module for module in state.model.modules() if isinstance(module, _NORMS)]
        self._momenta = [norm.momentum or 0.0 for norm in self._norms]
        self._statistics = [buffer for norm in self._norms for buffer in norm.buffers() if buffer.is_floating_point()]
        self._num_steps = 0
        self._batch_size = 0
        self._step_seconds = self._waiting_seconds = 0.0
        self._num_images = 0
        self._backward_ended_at = 0.0

    def prepare(self, loader: DeviceLoader, micro_batch: int) -> None:
        """Discard partly reduced gradients of a failed step, and adapt the momentum of the normalisation."""
        self._batch_size = loader.batch_size
        self._networks = []
        for group in self._state.optimizer.groups:
            if isinstance(group, MuonGroup):
                group.shard_group = self._group
        begin, end = loader.shard.bounds(loader.batch_size)
        for norm, momentum in zip(self._norms, self._momenta, strict=True):
            if isinstance(norm, GhostBatchNorm):
                # Running statistics are updated once per group. With fewer groups here, each update must count more.
                ratio = norm.num_groups(loader.batch_size) / norm.num_groups(end - begin)
                norm.momentum = 1.0 - (1.0 - momentum) ** ratio

    def run(self, batch: Batch, step_plan: StepPlan) -> Tensor:
        """Run one step on this rank's share of the batch. Returns the loss of the whole batch."""
        state, start = self._state, now()
        state.optimizer.prepare(step_plan.lr, step_plan.momentum, step_plan.progress)
        self._wrap_networks()
        # DistributedDataParallel averages over ranks: shares of unequal size need weights.
        num_images = len(batch.labels) // len(self._networks)
        weight = num_images * self._group.size / self._batch_size
        loss = backpropagate(self._networks, batch, state.precision, self._loss_fn, step_plan.micro_batch, weight)
        waiting_seconds = now() - self._backward_ended_at
        state.precision.step(state.optimizer)
        state.optimizer.zero_grad()
        self._group.all_reduce_mean_([loss, *self._statistics])
        state.advance(step_plan.progress)
        self._count_step(num_images, now() - start, waiting_seconds)
        if self._num_steps == TIMED_STEP:
            synchronize(state.precision.device)
            self._group.set_step_timeout(now() - start)
            self._networks = []
        return loss

    @property
    def throughput(self) -> Throughput:
        """Over all steps but the first."""
        if not self._step_seconds:
            return Throughput(None, None)
        if self._state.precision.device.type == "cuda":
            return Throughput(self._num_images / self._step_seconds, None)
        computing_seconds = self._step_seconds - self._waiting_seconds
        return Throughput(self._num_images / computing_seconds, self._waiting_seconds / self._step_seconds)

    def _count_step(self, num_images: int, seconds: float, waiting_seconds: float) -> None:
        """Add a step to the throughput, unless it is the first, which includes one-time initialisation."""
        self._num_steps += 1
        if self._num_steps > 1:
            self._step_seconds += seconds
            self._waiting_seconds += waiting_seconds
            self._num_images += num_images

    def _all_reduce_bucket(self, group: torch.distributed.ProcessGroup, bucket: GradBucket) -> Future[Tensor]:
        """Average a bucket of gradients; after the last one this rank has nothing left to compute."""
        self._backward_ended_at = now()
        return allreduce_hook(group, bucket)

    def _wrap_networks(self) -> None:
        """Wrap each network anew where the set of trainable parameters has changed: frozen ones have no gradients."""
        trainable = tuple(parameter.requires_grad for parameter in self._state.model.parameters())
        if self._networks and trainable == self._trainable:
            return
        # The hooks of the old wrappers go first.
        self._networks, self._trainable = [], trainable
        self._networks = [self._wrap(network) for network in networks_of(self._state.model)]

    def _wrap(self, network: nn.Module) -> nn.Module:
        with warnings.catch_warnings():
            # torch 2.13 renames ``init_sync``, and changes its effect.
            warnings.simplefilter("ignore", FutureWarning)
            wrapped = DistributedDataParallel(
                network,
                process_group=self._group.gradient_group,
                broadcast_buffers=False,
                init_sync=False,
                gradient_as_bucket_view=True,
                find_unused_parameters=self._state.has_own_code,
            )
        wrapped.register_comm_hook(self._group.gradient_group, self._all_reduce_bucket)
        return wrapped
