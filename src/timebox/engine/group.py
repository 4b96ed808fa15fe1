"""The processes that train one network together, and what they tell each other.

They are started by ``torchrun`` and talk through ``torch.distributed``: gradients by NCCL between GPUs, everything else
by gloo. A process that trains alone is a group of one, in which nothing is sent.
"""

import os
import signal
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from math import ceil
from threading import Thread
from time import sleep
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import Work
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from timebox.clock import now, process_start
from timebox.data.loader import Share
from timebox.errors import LostMembersError
from timebox.machine import is_launched

# Rendezvous, reading and planning may take long; where there is no budget, a process is waited for so long there.
PATIENT_SECONDS = 600.0
# In training, what does not answer for so long, or for so many steps if that is more, is lost.
SHORTEST_TIMEOUT, TIMEOUT_STEPS = 10.0, 20
# What finds that another is lost waits so long for all the others to say that they are not.
ROLL_CALL_SECONDS = 1.5
NO_ANSWER = "it does not answer"
# A process of that number is the one that was known if it started at that time.
SAME_START_SECONDS = 0.05
# Bytes whose exchange is timed, often enough to see it undisturbed.
PROBE_BYTES, NUM_PROBES = 4 << 20, 3


@dataclass(frozen=True)
class Member:
    """One process of a group: where it runs, and since when, in seconds since that host was started."""

    rank: int
    host: str
    pid: int
    started_at: float
    device: str
    threads: int

    def __str__(self) -> str:
        return f"rank {self.rank} on {self.host}"


class Group:
    """A group of one: whoever trains alone. :class:`Ranks` is the same for several.

    Attributes:
        rank: this process's number, 0...size - 1. The one with number 0 leads: it decides, and writes the run.
        size: how many processes there are.
        num_restarts: how often the launcher had to start it again.
    """

    rank, size, num_restarts = 0, 1, 0

    @property
    def leads(self) -> bool:
        """Whether this process decides for all."""
        return self.rank == 0

    @property
    def share(self) -> Share:
        """What this process takes of every batch."""
        return Share(self.rank, self.size)

    def told(self, value: Any = None) -> Any:
        """What the leader says, on every process. Waits patiently."""
        return value

    def gathered(self, value: Any) -> list[Any]:
        """What every process says, by rank, on every process. Waits patiently."""
        return [value]

    def in_step(self, value: Any) -> Any:
        """As :meth:`told`, between two steps: a process that does not answer in time is lost."""
        return value

    def collected(self, value: Any) -> list[Any]:
        """As :meth:`gathered`, in time."""
        return [value]

    def average_(self, tensors: Sequence[Tensor]) -> None:
        """Replace every tensor, small and floating point, by its mean over the processes."""

    def copy_from_leader_(self, tensors: Sequence[Tensor]) -> None:
        """Replace every tensor by the leader's."""

    def exchange_seconds(self, num_bytes: int) -> float:
        """What adding up so many bytes of gradients takes among all processes."""
        return 0.0

    def expect_steps_of(self, seconds: float) -> None:
        """From now on a process is lost that does not answer for 10 s, or for 20 steps of so many seconds."""

    @contextmanager
    def losses_noticed(self) -> Iterator[None]:
        """Raises LostMembersError where what is done inside fails because others are gone."""
        yield

    def lost_lines(self) -> list[str]:
        """Who is gone, in words: asked where this process was told to stop, as all may have been."""
        return []

    def leave(self) -> None:
        """Close all connections."""


ALONE = Group()


class Ranks(Group):
    """Processes that ``torchrun`` started.

    Args:
        device: on which this process trains.
        patience_seconds: how long to wait for the others before the training.
    """

    def __init__(self, device: torch.device, patience_seconds: float) -> None:
        self.num_restarts = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
        self._device = device
        if device.type == "cuda":
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        patience = timedelta(seconds=min(max(patience_seconds, SHORTEST_TIMEOUT), 24 * 3600.0))
        store, self.rank, self.size = next(rendezvous("env://", timeout=patience))
        # The launcher's store outlives the processes: those started again must not find what others left there.
        self._store = PrefixStore(f"timebox/{self.num_restarts}", store)
        dist.init_process_group("gloo", store=self._store, rank=self.rank, world_size=self.size, timeout=patience)
        self._connect(patience)
        self._seconds_per_byte: float = max(self.collected(self._probed_seconds())) / PROBE_BYTES
        threads = torch.get_num_threads()
        own = Member(self.rank, socket.gethostname(), os.getpid(), process_start(), _name_of(device), threads)
        self.members: list[Member] = self.gathered(own)

    def _connect(self, timeout: timedelta) -> None:
        """The groups that must be in time: one for gradients, one for what is decided on the way."""
        self.gradients = dist.new_group(backend="nccl" if self._device.type == "cuda" else "gloo", timeout=timeout)
        self._decisions = dist.new_group(backend="gloo", timeout=timeout)

    def told(self, value: Any = None) -> Any:
        return _from_leader(value, None)

    def in_step(self, value: Any) -> Any:
        return _from_leader(value, self._decisions)

    def gathered(self, value: Any) -> list[Any]:
        return _from_all(value, self.size, None)

    def collected(self, value: Any) -> list[Any]:
        return _from_all(value, self.size, self._decisions)

    def begin_to_tell(self, numbers: Tensor) -> Work:
        """Send the leader's numbers, a tensor on the CPU, to all, who wait for them later."""
        work: Work = dist.broadcast(numbers, 0, group=self._decisions, async_op=True)
        return work

    @torch.no_grad()
    def average_(self, tensors: Sequence[Tensor]) -> None:
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        dist.all_reduce(flat, group=self.gradients)
        flat /= self.size
        for tensor, mean in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(mean.view_as(tensor))

    def add_up_(self, tensor: Tensor) -> None:
        """Replace a tensor by its sum over the processes, in step."""
        dist.all_reduce(tensor, group=self.gradients)

    @torch.no_grad()
    def copy_from_leader_(self, tensors: Sequence[Tensor]) -> None:
        for tensor in tensors:
            # What is sent must lie in one piece; a filter in channels_last does not.
            whole = tensor.contiguous()
            dist.broadcast(whole, 0, group=self.gradients)
            tensor.copy_(whole)

    def exchange_seconds(self, num_bytes: int) -> float:
        return num_bytes * self._seconds_per_byte

    def _probed_seconds(self) -> float:
        probe = torch.zeros(PROBE_BYTES // 4, device=self._device)
        best = float("inf")
        for _ in range(NUM_PROBES):
            started = now()
            dist.all_reduce(probe, group=self.gradients)
            probe[0].item()  # waits for a GPU
            best = min(best, now() - started)
        return best

    def expect_steps_of(self, seconds: float) -> None:
        slowest = max(self.collected(seconds))
        self._connect(timedelta(seconds=ceil(max(SHORTEST_TIMEOUT, TIMEOUT_STEPS * slowest))))

    @contextmanager
    def losses_noticed(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            if lost := self.roll_call():
                raise LostMembersError(lost, self.in_words(lost)) from error
            raise

    def lost_lines(self) -> list[str]:
        return self.in_words(self.roll_call())

    def in_words(self, lost: dict[int, str]) -> list[str]:
        """A line for each process that is gone."""
        return [f"{self.members[rank]}: {reason}" for rank, reason in lost.items()]

    def roll_call(self, leaving: str = "") -> dict[int, str]:
        """Which other processes are gone, by rank, and why: asked by those that are still there once something failed.

        Args:
            leaving: why this process leaves by itself; empty where it was well.
        """
        answers: dict[int, str] = {}
        # The store is gone with its host, and may then never answer.
        asking = Thread(target=self._call_roll, args=(answers, leaving), daemon=True)
        asking.start()
        asking.join(ROLL_CALL_SECONDS + 0.5)
        others = (rank for rank in range(self.size) if rank != self.rank)
        heard = dict(answers)
        lost = {rank: reason for rank in others if (reason := heard.get(rank, NO_ANSWER))}
        for rank in lost:
            if rank not in heard:
                self._end(self.members[rank])
        return lost

    def _end(self, member: Member) -> None:
        """End a process of this host that stands still: its launcher would wait half a minute for it."""
        same_host = member.host == socket.gethostname()
        if same_host and abs(process_start(member.pid) - member.started_at) < SAME_START_SECONDS:
            with suppress(OSError):
                os.kill(member.pid, signal.SIGKILL)

    def _call_roll(self, answers: dict[int, str], leaving: str) -> None:
        until = now() + ROLL_CALL_SECONDS
        with suppress(RuntimeError):
            self._store.set(f"present/{self.rank}", leaving)
            while len(answers) < self.size and now() < until:
                for rank in range(self.size):
                    if rank not in answers and self._store.check([f"present/{rank}"]):
                        answers[rank] = self._store.get(f"present/{rank}").decode()
                sleep(0.02)

    def leave(self) -> None:
        with suppress(RuntimeError):
            dist.destroy_process_group()


def join_group(device: torch.device, patience_seconds: float) -> Group:
    """The group that ``torchrun`` started this process in; a group of one where it did not."""
    if not is_launched():
        return ALONE
    return Ranks(device, patience_seconds if patience_seconds < float("inf") else PATIENT_SECONDS)


def _from_leader(value: Any, group: "dist.ProcessGroup | None") -> Any:
    box = [value]
    dist.broadcast_object_list(box, 0, group=group)
    return box[0]


def _from_all(value: Any, size: int, group: "dist.ProcessGroup | None") -> list[Any]:
    boxes: list[Any] = [None] * size
    dist.all_gather_object(boxes, value, group=group)
    return boxes


def _name_of(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
