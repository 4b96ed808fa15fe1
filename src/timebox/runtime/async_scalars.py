"""Reading results without waiting for the device."""

from collections import deque
from typing import Generic, TypeVar

import torch
from torch import Tensor

Note = TypeVar("Note")

# Steps a GPU may lag behind before the next one waits: enough to keep it busy, few enough for the clock to stay true.
MAX_PENDING = 8


class AsyncScalars(Generic[Note]):
    """Scalars computed on the device, handed out once they are there.

    On a CPU work is finished when the call returns. On a GPU each value is copied to pinned memory behind an event;
    asking for it never waits, except to keep the number of steps in flight bounded.

    Args:
        in_lockstep: whether a value is handed out a fixed number of steps later, so that several processes learn of it
            at the same step.
    """

    def __init__(self, device: torch.device, in_lockstep: bool = False) -> None:
        self._cuda = device.type == "cuda"
        self._in_lockstep = in_lockstep
        self._pending: deque[tuple[Note, Tensor, torch.cuda.Event | None]] = deque()

    @property
    def num_pending(self) -> int:
        """Values handed in and not yet handed out."""
        return len(self._pending)

    def push(self, note: Note, value: Tensor) -> None:
        """Hand in a scalar of the step just issued, with whatever should come back beside it."""
        if not self._cuda:
            self._pending.append((note, value, None))
            return
        copy = torch.empty((), dtype=value.dtype, pin_memory=True)
        copy.copy_(value, non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        self._pending.append((note, copy, event))

    def poll(self, drain: bool = False) -> list[tuple[Note, float]]:
        """The values that have arrived since the last call, in order; all of them, waiting, with ``drain``."""
        arrived = []
        while self._pending:
            note, value, event = self._pending[0]
            if event is not None and (self._in_lockstep or not event.query()):
                if not drain and len(self._pending) <= MAX_PENDING:
                    break
                event.synchronize()
            self._pending.popleft()
            arrived.append((note, value.item()))
        return arrived
