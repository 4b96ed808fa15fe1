"""One schedule for several processes: the leader decides, and tells the others some steps ahead."""

from collections import deque
from math import isnan, nan

import torch
from torch import Tensor
from torch.distributed import Work

from timebox.engine.group import Ranks
from timebox.engine.schedule import SLOWER, Decision, Schedule

# Decisions travel in blocks of so many steps, or of as many as take so long: what is decided a few steps ahead knows
# less of the time left.
MOST_STEPS, BLOCK_SECONDS = 8, 0.25


def steps_in_block(step_seconds: float) -> int:
    """How many steps are decided at once, where one takes ``step_seconds``; 0 where no clock is read."""
    return max(1, min(MOST_STEPS, int(BLOCK_SECONDS / step_seconds))) if step_seconds else MOST_STEPS


class SharedSchedule:
    """The leader's schedule on every process.

    While the steps of one block are taken, the next block is decided and on its way: nobody waits for it.

    Args:
        own: the leader's schedule; None on the others.
        block: steps decided at once, 1 or more, the same on all.
        micro_batch: images computed at once in the first step.
    """

    def __init__(self, own: Schedule | None, group: Ranks, block: int, micro_batch: int) -> None:
        self._own, self._group, self._block = own, group, block
        self._micro_batch, self._lr_factor = micro_batch, 1.0
        self._ready: deque[Decision | None] = deque()
        self._sent: tuple[Tensor, Work] | None = None
        self._num_sent = 0

    def next(self, num_unfinished: int) -> Decision | None:
        """The next step, the same on all processes."""
        if not self._ready:
            if self._sent is None:
                self._send(num_unfinished)
            self._receive()
            if None not in self._ready:
                self._send(num_unfinished + len(self._ready))
        decision = self._ready[0]
        if decision is not None:
            self._ready.popleft()
            self._micro_batch = decision.micro_batch
        return decision

    def _send(self, num_unfinished: int) -> None:
        """Have a block of decisions under way. The leader knows how many steps will be under way before each."""
        numbers = torch.full((self._block, 4), nan, dtype=torch.float64)
        self._num_sent = 0
        if self._own is not None:
            for row in range(self._block):
                decision = self._own.next(num_unfinished + row)
                if decision is None:
                    break
                values = (decision.progress, decision.lr, decision.momentum, float(decision.micro_batch))
                numbers[row] = torch.tensor(values, dtype=torch.float64)
                self._num_sent += 1
        self._sent = numbers, self._group.begin_to_tell(numbers)

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
            self._ready.append(Decision(progress, lr, momentum, int(micro_batch)))

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

    def slow_down(self) -> None:
        self._lr_factor *= SLOWER
        if self._own is not None:
            self._own.slow_down()

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
        return self._own.steps_left + self._num_sent + sum(decision is not None for decision in self._ready)
