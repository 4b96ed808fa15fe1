"""The processes that train one network together, and what they tell each other.

They are started by ``torchrun`` and talk through ``torch.distributed``: gradients by NCCL between GPUs, everything else
by gloo. A process that trains alone is a group of one, in which nothing is sent.
"""

import os
import pickle
import socket
from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from itertools import count
from math import ceil
from time import sleep
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import Work
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from timebox.clock import now, process_start
from timebox.data.device.resident import DataShard
from timebox.distributed.heartbeat import Heartbeat, RankInfo, kill_stopped_ranks
from timebox.errors import RankFailureError, UsageError
from timebox.machine import is_torchrun

# For all to be started.
RENDEZVOUS_SECONDS = 600.0
# Who waits for a word looks for it so often, and now and then whether the other is still there.
POLL_SECONDS, HEARTBEAT_CHECK_SECONDS = 0.005, 2.0
# What all do together in planning, and in the first steps, in which much is set up, takes less; of a short budget less
# than this share, so that a group that is started again has most of it left.
MIN_SETUP_SECONDS, MAX_SETUP_SECONDS, SETUP_SHARE = 20.0, 120.0, 1 / 3
# In training, what does not answer for so long, or for so many steps if that is more, is lost.
MIN_STEP_TIMEOUT_SECONDS, TIMEOUT_STEPS = 10.0, 20
# Bytes whose exchange is timed, often enough to see it undisturbed.
PROBE_BYTES, NUM_PROBES = 4 << 20, 3
# A process that trains twice is in two groups.
_numbers = count()


class ProcessGroup:
    """A group of one: whoever trains alone. :class:`TorchrunGroup` is the same for several.

    Attributes:
        rank: this process's number, 0...size - 1. The one with number 0 leads: it decides, and writes the run.
        size: how many processes there are.
        num_restarts: how often the launcher had to start it again.
    """

    rank, size, num_restarts = 0, 1, 0

    @property
    def share(self) -> DataShard:
        """What this process takes of every batch."""
        return DataShard(self.rank, self.size)

    def broadcast(self, value: Any = None) -> Any:
        """What the leader says, on every process: they wait for it as long as it is there, the leader for none."""
        return value

    def all_gather(self, value: Any) -> list[Any]:
        """What every process says, by rank, on every process: each is waited for as long as it is there."""
        return [value]

    def broadcast_timed(self, value: Any) -> Any:
        """As :meth:`told`, between two steps: a process that does not answer in time is lost."""
        return value

    def all_gather_timed(self, value: Any) -> list[Any]:
        """As :meth:`gathered`, in time."""
        return [value]

    def all_reduce_mean_(self, tensors: Sequence[Tensor]) -> None:
        """Replace every tensor, small and floating point, by its mean over the processes."""

    def broadcast_parameters_(self, tensors: Sequence[Tensor]) -> None:
        """Replace every tensor by the leader's."""

    def set_step_timeout(self, seconds: float) -> None:
        """From now on a process is lost that does not answer for 10 s, or for 20 steps of so many seconds."""

    @contextmanager
    def raise_on_rank_failure(self) -> Iterator[None]:
        """Raises LostMembersError where what is done inside fails because others are gone."""
        yield

    def failed_ranks(self) -> dict[int, str]:
        """Who is gone, by rank, and why: asked where this process was told to stop, as all may have been."""
        return {}

    def failures_before_restart(self) -> tuple[str, ...]:
        """A line for each process that was lost before the launcher started all again."""
        return ()

    def describe_failures(self, lost: Mapping[int, str]) -> list[str]:
        """A line for each process that is gone."""
        return []

    @contextmanager
    def leave_at_exit(self) -> Iterator[None]:
        """Inside, this process takes part. It leaves at the end, and where something went wrong here tells the others
        what."""
        yield


SINGLE_PROCESS = ProcessGroup()


class TorchrunGroup(ProcessGroup):
    """Processes that ``torchrun`` started.

    Args:
        device: on which this process trains.
        seconds_left: until the deadline; the others are waited for at least that long before the training.
    Attributes:
        device: the leader's kind of device.
        members: all processes, by rank.
    Raises:
        UsageError: where there is no such device for this process.
    """

    def __init__(self, device: torch.device, seconds_left: float) -> None:
        self.num_restarts = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
        known_left = 0.0 if seconds_left == float("inf") else seconds_left
        patience = timedelta(seconds=max(known_left, RENDEZVOUS_SECONDS))
        store, self.rank, self.size = next(rendezvous("env://", timeout=patience))
        # The launcher's store outlives the processes: those started again must not find what others left there.
        number = next(_numbers)
        self._store = PrefixStore(f"timebox/{self.num_restarts}/{number}", store)
        self._num_broadcasts = self._num_all_gathers = 0
        self.ranks: list[RankInfo] = []
        dist.init_process_group("gloo", store=self._store, rank=self.rank, world_size=self.size, timeout=patience)
        # What goes on in the background must not wait for what the groups do with the same connection.
        second, _, _ = next(rendezvous("env://", timeout=patience))
        calls = PrefixStore(f"timebox/roll call/{number}", second)
        self._heartbeat = Heartbeat(calls, self.rank, self.size, self.num_restarts)
        self.device = _own_device(self.broadcast(device.type))
        share = SETUP_SHARE * seconds_left
        self._connect(timedelta(seconds=min(max(share, MIN_SETUP_SECONDS), MAX_SETUP_SECONDS)))
        self._seconds_per_byte: float = max(self.all_gather_timed(self._time_all_reduce())) / PROBE_BYTES
        threads = torch.get_num_threads()
        own = RankInfo(self.rank, socket.gethostname(), os.getpid(), process_start(), _name_of(self.device), threads)
        self.ranks = self.all_gather(own)

    def _connect(self, timeout: timedelta) -> None:
        """The groups that must be in time: one for gradients, one for what is decided on the way."""
        self.gradients = dist.new_group(backend="nccl" if self.device.type == "cuda" else "gloo", timeout=timeout)
        self._decisions = dist.new_group(backend="gloo", timeout=timeout)

    def broadcast(self, value: Any = None) -> Any:
        self._num_broadcasts += 1
        key = f"told/{self._num_broadcasts}"
        if self.rank == 0:
            self._store.set(key, _as_text(value))
            return value
        return self._wait_for(key, 0)

    def broadcast_timed(self, value: Any) -> Any:
        return _from_leader(value, self._decisions)

    def all_gather(self, value: Any) -> list[Any]:
        self._num_all_gathers += 1
        key = f"gathered/{self._num_all_gathers}"
        self._store.set(f"{key}/{self.rank}", _as_text(value))
        return [self._wait_for(f"{key}/{rank}", rank) for rank in range(self.size)]

    def _wait_for(self, key: str, rank: int) -> Any:
        """What a process leaves under a key, however long it takes, as long as it gives signs of life.

        Raises RuntimeError where it is gone.
        """
        heard_at = asked_at = now()
        while not self._store.check([key]):
            sleep(POLL_SECONDS)
            if now() - asked_at > HEARTBEAT_CHECK_SECONDS:
                gone = rank in self._heartbeat.failed_ranks()
                asked_at = now()
                heard_at = heard_at if gone else asked_at
                if asked_at - heard_at > MIN_STEP_TIMEOUT_SECONDS:
                    raise RuntimeError(f"rank {rank} gives no sign of life")
        return pickle.loads(b64decode(self._store.get(key)))

    def all_gather_timed(self, value: Any) -> list[Any]:
        return _from_all(value, self.size, self._decisions)

    def broadcast_async(self, numbers: Tensor) -> Work:
        """Send the leader's numbers, a tensor on the CPU, to all, who wait for them later."""
        work: Work = dist.broadcast(numbers, 0, group=self._decisions, async_op=True)
        return work

    @torch.no_grad()
    def all_reduce_mean_(self, tensors: Sequence[Tensor]) -> None:
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        dist.all_reduce(flat, group=self.gradients)
        flat /= self.size
        for tensor, mean in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(mean.view_as(tensor))

    def all_reduce_sum_(self, tensor: Tensor) -> None:
        """Replace a tensor by its sum over the processes, in step."""
        dist.all_reduce(tensor, group=self.gradients)

    @torch.no_grad()
    def broadcast_parameters_(self, tensors: Sequence[Tensor]) -> None:
        for tensor in tensors:
            # What is sent must lie in one piece; a filter in channels_last does not.
            whole = tensor.contiguous()
            dist.broadcast(whole, 0, group=self.gradients)
            tensor.copy_(whole)

    def all_reduce_seconds(self, num_bytes: int) -> float:
        """What adding up so many bytes of gradients takes among all processes."""
        return num_bytes * self._seconds_per_byte

    def _time_all_reduce(self) -> float:
        probe = torch.zeros(PROBE_BYTES // 4, device=self.device)
        best = float("inf")
        for _ in range(NUM_PROBES):
            started = now()
            dist.all_reduce(probe, group=self.gradients)
            probe[0].item()  # waits for a GPU
            best = min(best, now() - started)
        return best

    def set_step_timeout(self, seconds: float) -> None:
        slowest = max(self.all_gather_timed(seconds))
        self._connect(timedelta(seconds=ceil(max(MIN_STEP_TIMEOUT_SECONDS, TIMEOUT_STEPS * slowest))))

    @contextmanager
    def raise_on_rank_failure(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            if lost := self.failed_ranks():
                raise RankFailureError(lost, self.describe_failures(lost)) from error
            raise

    def failed_ranks(self) -> dict[int, str]:
        lost = self._heartbeat.failed_ranks()
        kill_stopped_ranks(member for member in self.ranks if member.rank in lost)
        if lost:
            self._heartbeat.note(self.describe_failures(lost))
        return lost

    def failures_before_restart(self) -> tuple[str, ...]:
        return self._heartbeat.failures_before_restart()

    def describe_failures(self, lost: Mapping[int, str]) -> list[str]:
        return [f"{self.ranks[rank]}: {reason}" for rank, reason in lost.items()]

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


def join_process_group(device: torch.device, seconds_left: float) -> ProcessGroup:
    """The group that ``torchrun`` started this process in; a group of one where it did not."""
    if not is_torchrun():
        return SINGLE_PROCESS
    return TorchrunGroup(device, seconds_left)


def _as_text(value: Any) -> str:
    """As a store takes it."""
    return b64encode(pickle.dumps(value)).decode()


def _from_leader(value: Any, group: "dist.ProcessGroup | None") -> Any:
    box = [value]
    dist.broadcast_object_list(box, 0, group=group)
    return box[0]


def _from_all(value: Any, size: int, group: "dist.ProcessGroup | None") -> list[Any]:
    boxes: list[Any] = [None] * size
    dist.all_gather_object(boxes, value, group=group)
    return boxes


def _own_device(kind: str) -> torch.device:
    """The device of that kind that this process trains on: each of a host has its own GPU."""
    if kind == "cuda":
        number, there = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
        if number >= there:
            raise UsageError(f"process {number} of this host finds no GPU of its own: there are {there}; start {there}")
        torch.cuda.set_device(number)
    return torch.device(kind)


def _name_of(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
