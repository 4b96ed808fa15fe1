"""The process group of a data-parallel training: broadcast, all-gather, all-reduce and rank failures.

Ranks are started by ``torchrun`` and communicate through ``torch.distributed``: gradients by NCCL between GPUs, all
else by gloo. A training on one process uses :data:`SINGLE_PROCESS`, which sends nothing.
"""

import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from itertools import count
from math import ceil
from time import sleep
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import Work
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from timebox.clock import Deadline, now, process_start
from timebox.data.device.resident import DataShard
from timebox.distributed.heartbeat import Heartbeat, RankInfo, kill_stopped_ranks
from timebox.distributed.interface import listen_on_interface_of
from timebox.distributed.messages import MessageChannel
from timebox.distributed.run_key import shared_run_key
from timebox.errors import RankFailureError, UsageError
from timebox.machine import is_one_host, is_torchrun
from timebox.runtime.device import device_name

# Least time that ranks wait for all others to be started.
RENDEZVOUS_SECONDS = 600.0
# Intervals at which a waiting rank looks for a message, and for the heartbeat of its sender.
POLL_SECONDS, HEARTBEAT_CHECK_SECONDS = 0.005, 2.0
# Timeout of collectives in planning and in the first steps, which include one-time initialisation: this share of the
# time left, within these bounds in seconds. A group that is restarted after a hang then has most of its budget left.
MIN_SETUP_SECONDS, MAX_SETUP_SECONDS, SETUP_SHARE = 20.0, 120.0, 1 / 3
# Timeout of collectives in training, in seconds and in steps; the longer counts.
MIN_STEP_TIMEOUT_SECONDS, TIMEOUT_STEPS = 10.0, 20
# Bytes of the timed all-reduce, and its repetitions, the fastest of which counts.
PROBE_BYTES, NUM_PROBES = 4 << 20, 3
T = TypeVar("T")
# Numbers the groups of this process: each training has a group of its own.
_group_numbers = count()


class ProcessGroup:
    """A single process. :class:`TorchrunGroup` implements the same interface for several.

    Rank 0 of ``size`` ranks, the main rank, plans the training and writes the run.
    """

    rank, size, num_restarts = 0, 1, 0

    @property
    def share(self) -> DataShard:
        """The shard of every batch that this rank computes."""
        return DataShard(self.rank, self.size)

    def broadcast(self, message: object) -> None:
        """Broadcast a message from rank 0, which does not block. The other ranks call ``receive_broadcast``."""

    def all_gather(self, message: T) -> list[T]:
        """The messages of all ranks, by rank. Waits for each rank, and raises RuntimeError if one dies."""
        return [message]

    def broadcast_timed(self, number: float) -> float:
        """Broadcast a number from rank 0. Raises RuntimeError where a rank does not answer in time."""
        return number

    def all_gather_timed(self, number: float) -> list[float]:
        """The numbers of all ranks, by rank. Raises RuntimeError where a rank does not answer in time."""
        return [number]

    def all_reduce_sum_timed_(self, numbers: Tensor) -> None:
        """Replace a CPU tensor by its sum over the ranks. Raises RuntimeError where a rank does not answer in time."""

    def all_reduce_mean_(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its mean over the ranks. For small floating-point tensors of one dtype."""

    def broadcast_parameters_(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by that of rank 0."""

    def set_step_timeout(self, seconds: float) -> None:
        """Set the timeout of the timed collectives to 20 steps of ``seconds`` each, and at least 10 s."""

    @contextmanager
    def raise_on_rank_failure(self) -> Iterator[None]:
        """Raise RankFailureError in place of a RuntimeError in the body where other ranks have failed."""
        yield

    def failed_ranks(self) -> dict[int, str]:
        """The other ranks that have failed, each with the reason. Takes up to two seconds."""
        return {}

    def failures_before_restart(self) -> tuple[str, ...]:
        """A line for each rank that failed before the launcher restarted the group."""
        return ()

    def describe_failures(self, failures: Mapping[int, str]) -> list[str]:
        """A line for each failed rank."""
        return []

    @contextmanager
    def leave_at_exit(self) -> Iterator[None]:
        """Leave the group at the end of the body; after an error there, send the other ranks its reason."""
        yield


SINGLE_PROCESS = ProcessGroup()


class TorchrunGroup(ProcessGroup):
    """The ranks that ``torchrun`` started. Raises UsageError where this rank has no GPU of its own.

    Args:
        device: requested on this rank; the one of rank 0 counts for all.
        seconds_left: until the deadline, for which this rank waits for the others to start; at least 600 s.
    Attributes:
        device: on which this rank trains, of the type that rank 0 has.
        ranks: all processes, by rank.
        gradient_group: the ``torch.distributed`` group for gradients.
    """

    def __init__(self, device: torch.device, seconds_left: float) -> None:
        self.num_restarts = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
        finite_seconds_left = 0.0 if seconds_left == float("inf") else seconds_left
        timeout = timedelta(seconds=max(finite_seconds_left, RENDEZVOUS_SECONDS))
        store, self.rank, self.size = next(rendezvous("env://", timeout=timeout))
        # The launcher's store outlives the processes: a restarted group must not read keys of the previous attempt.
        number = next(_group_numbers)
        prefix = f"timebox/{self.num_restarts}/{number}"
        own_store = PrefixStore(prefix, store)
        self._num_broadcasts = self._num_all_gathers = 0
        self.ranks: list[RankInfo] = []
        dist.init_process_group("gloo", store=own_store, rank=self.rank, world_size=self.size, timeout=timeout)
        with shared_run_key(own_store, self.rank, is_one_host()) as key:
            self._channel = MessageChannel(store, f"{prefix}/messages", key)
            # The heartbeat needs a connection of its own: it must not wait for operations of the groups.
            second_store, _, _ = next(rendezvous("env://", timeout=timeout))
            heartbeat_store = PrefixStore(f"timebox/heartbeat/{number}", second_store)
            self._heartbeat = Heartbeat(heartbeat_store, self.rank, self.size, self.num_restarts, key)
            self.device = _local_device(self.all_gather(device.type)[0])
        setup_seconds = min(max(SETUP_SHARE * seconds_left, MIN_SETUP_SECONDS), MAX_SETUP_SECONDS)
        self._create_timed_groups(timedelta(seconds=setup_seconds))
        self._seconds_per_byte: float = max(self.all_gather_timed(self._time_all_reduce())) / PROBE_BYTES
        threads = torch.get_num_threads()
        host, name = socket.gethostname(), device_name(self.device)
        self.ranks = self.all_gather(RankInfo(self.rank, host, os.getpid(), process_start(), name, threads))

    def _create_timed_groups(self, timeout: timedelta) -> None:
        """Create the groups whose operations have a timeout: one for gradients, one for decisions of the main rank."""
        self.gradient_group = dist.new_group(backend="nccl" if self.device.type == "cuda" else "gloo", timeout=timeout)
        self._control_group = dist.new_group(backend="gloo", timeout=timeout)

    def broadcast(self, message: object) -> None:
        assert self.rank == 0, "worker ranks call receive_broadcast"
        self._num_broadcasts += 1
        self._channel.send(f"broadcast/{self._num_broadcasts}", message)

    def receive_broadcast(self, kind: Any) -> Any:
        """The next message of rank 0, on another rank, of type ``kind``, which may be a union.

        Raises RuntimeError if rank 0 dies, and UsageError for a message that is not rank 0's.
        """
        self._num_broadcasts += 1
        return self._wait_for(f"broadcast/{self._num_broadcasts}", kind, 0)

    def broadcast_timed(self, number: float) -> float:
        box = torch.tensor([number], dtype=torch.float64)
        dist.broadcast(box, 0, group=self._control_group)
        return box.item()

    def all_gather(self, message: T) -> list[T]:
        self._num_all_gathers += 1
        name = f"all_gather/{self._num_all_gathers}"
        self._channel.send(f"{name}/{self.rank}", message)
        return [self._wait_for(f"{name}/{rank}", type(message), rank) for rank in range(self.size)]

    def _wait_for(self, name: str, kind: Any, rank: int) -> Any:
        """The message that ``rank`` sends under a name. Raises RuntimeError where its heartbeat ends before that."""
        alive_at = checked_at = now()
        while not self._channel.is_sent(name):
            sleep(POLL_SECONDS)
            if now() - checked_at > HEARTBEAT_CHECK_SECONDS:
                has_failed = rank in self._heartbeat.failed_ranks()
                checked_at = now()
                alive_at = alive_at if has_failed else checked_at
                if checked_at - alive_at > MIN_STEP_TIMEOUT_SECONDS:
                    raise RuntimeError(f"rank {rank} sends no heartbeat")
        return self._channel.receive(name, kind)

    def all_gather_timed(self, number: float) -> list[float]:
        boxes = [torch.zeros(1, dtype=torch.float64) for _ in range(self.size)]
        dist.all_gather(boxes, torch.tensor([number], dtype=torch.float64), group=self._control_group)
        return [box.item() for box in boxes]

    def all_reduce_sum_timed_(self, numbers: Tensor) -> None:
        dist.all_reduce(numbers, group=self._control_group)

    def broadcast_async(self, numbers: Tensor) -> Work:
        """Start to broadcast a CPU tensor from rank 0 into those of the others. The work returned waits for it."""
        work: Work = dist.broadcast(numbers, 0, group=self._control_group, async_op=True)
        return work

    @torch.no_grad()
    def all_reduce_mean_(self, tensors: Sequence[Tensor]) -> None:
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        dist.all_reduce(flat, group=self.gradient_group)
        flat /= self.size
        for tensor, mean in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(mean.view_as(tensor))

    def all_reduce_sum_(self, tensor: Tensor) -> None:
        """Replace a tensor by its sum over the ranks."""
        dist.all_reduce(tensor, group=self.gradient_group)

    @torch.no_grad()
    def broadcast_parameters_(self, tensors: Sequence[Tensor]) -> None:
        for tensor in tensors:
            # A broadcast needs contiguous memory, which a filter in channels_last has not.
            contiguous = tensor.contiguous()
            dist.broadcast(contiguous, 0, group=self.gradient_group)
            tensor.copy_(contiguous)

    def all_reduce_seconds(self, num_bytes: int) -> float:
        """Expected seconds of an all-reduce of ``num_bytes`` bytes."""
        return num_bytes * self._seconds_per_byte

    def _time_all_reduce(self) -> float:
        probe = torch.zeros(PROBE_BYTES // 4, device=self.device)
        best = float("inf")
        for _ in range(NUM_PROBES):
            started = now()
            dist.all_reduce(probe, group=self.gradient_group)
            probe[0].item()  # waits for the device
            best = min(best, now() - started)
        return best

    def set_step_timeout(self, seconds: float) -> None:
        slowest = max(self.all_gather_timed(seconds))
        self._create_timed_groups(timedelta(seconds=ceil(max(MIN_STEP_TIMEOUT_SECONDS, TIMEOUT_STEPS * slowest))))

    @contextmanager
    def raise_on_rank_failure(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            if failures := self.failed_ranks():
                raise RankFailureError(failures, self.describe_failures(failures)) from error
            raise

    def failed_ranks(self) -> dict[int, str]:
        failures = self._heartbeat.failed_ranks(self.ranks)
        kill_stopped_ranks(info for info in self.ranks if info.rank in failures)
        if failures:
            self._heartbeat.record_failures(self.describe_failures(failures))
        return failures

    def failures_before_restart(self) -> tuple[str, ...]:
        return self._heartbeat.failures_before_restart()

    def describe_failures(self, failures: Mapping[int, str]) -> list[str]:
        return [f"{self.ranks[rank]}: {reason}" for rank, reason in failures.items()]

    @contextmanager
    def leave_at_exit(self) -> Iterator[None]:
        try:
            yield
        except (RankFailureError, KeyboardInterrupt):
            self._heartbeat.leave()
            raise
        except Exception as error:
            self._heartbeat.leave(str(error) or type(error).__name__)
            raise
        self._heartbeat.leave()
        with suppress(RuntimeError):
            dist.destroy_process_group()


@contextmanager
def join_process_group(device: torch.device, deadline: Deadline) -> Iterator[ProcessGroup]:
    """Join the ranks that ``torchrun`` started, and leave them at the end; :data:`SINGLE_PROCESS` without ``torchrun``.

    The budget begins with the start of the earliest rank. Raises RankFailureError where the body fails because other
    ranks have failed.
    """
    if not is_torchrun():
        yield SINGLE_PROCESS
        return
    address, port = os.environ.get("MASTER_ADDR", ""), int(os.environ.get("MASTER_PORT", "0"))
    with listen_on_interface_of(address, port, is_one_host()):
        group = TorchrunGroup(device, deadline.remaining())
        with group.leave_at_exit(), group.raise_on_rank_failure():
            elapsed_seconds = max(group.all_gather(deadline.elapsed()))
            deadline.add_earlier_phases({"start-up": max(elapsed_seconds - deadline.elapsed(), 0.0)})
            yield group


def _local_device(kind: str) -> torch.device:
    """The device of this rank, ``cpu`` or ``cuda``: each rank of a host has a GPU of its own."""
    if kind == "cuda":
        number, num_gpus = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
        if number >= num_gpus:
            raise UsageError(
                f"process {number} of this host finds no GPU of its own: there are {num_gpus}; start {num_gpus}"
            )
        torch.cuda.set_device(number)
    return torch.device(kind)
