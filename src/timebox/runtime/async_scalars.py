"""Scalars read from the device without waiting for it."""

from collections import deque
from typing import Generic, TypeVar

import torch
from torch import Tensor

Tag = TypeVar("Tag")

# Most steps that a GPU may lag behind: enough to keep it busy, few enough for the measured speed to be current.
MAX_PENDING = 8


class AsyncScalars(Generic[Tag]):
    """A queue of scalars computed on the device, each with a tag, read once they have arrived on the host.

    On a CPU a scalar is ready when it is pushed. On a GPU it is copied to pinned memory behind a CUDA event; ``poll``
    waits for it only where more than ``MAX_PENDING`` scalars are pending.

    Args:
        in_lockstep: whether a scalar is returned a fixed number of pushes later: all ranks read it at the same step.
    """

    def __init__(self, device: torch.device, in_lockstep: bool = False) -> None:
        self._cuda = device.type == "cuda"
        self._in_lockstep = in_lockstep
        self._pending: deque[tuple[Tag, Tensor, torch.cuda.Event | None]] = deque()

    @property
    def num_pending(self) -> int:
        """Scalars pushed and not yet returned by ``poll``."""
        return len(self._pending)

    def push(self, tag: Tag, value: Tensor) -> None:
        """Append a 0-dim tensor whose computation has just been issued."""
        if not self._cuda:
            self._pending.append((tag, value, None))
            return
        copy = torch.empty((), dtype=value.dtype, pin_memory=True)
        copy.copy_(value, non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        self._pending.append((tag, copy, event))

    def poll(self, drain: bool = False) -> list[tuple[Tag, float]]:
        """The scalars that have arrived since the last call, in order; with ``drain`` wait for all of them."""
        arrived = []
        while self._pending:
            tag, value, event = self._pending[0]
            if event is not None and (self._in_lockstep or not event.query()):
                if not drain and len(self._pending) <= MAX_PENDING:
                    break
                event.synchronize()
            self._pending.popleft()
            arrived.append((tag, value.item()))
        return arrived
