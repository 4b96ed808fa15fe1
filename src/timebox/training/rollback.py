"""What can go wrong in a training step and be mended: numbers that are not finite, and memory that runs out."""

from collections import deque
from collections.abc import Callable

from timebox.errors import TimeboxError
from timebox.models import GhostBatchNorm
from timebox.runtime.faults import NonFiniteError, RecoverableError
from timebox.runtime.micro_batches import smaller_micro_batch
from timebox.training.schedule import Schedule
from timebox.training.state import Snapshot, TrainingState

# Rollbacks within so many steps of each other before a training is given up.
MAX_ROLLBACKS, WITHIN_STEPS = 6, 500
# The fewest images that are computed at once: normalisation needs some to find a spread in.
MIN_MICRO_BATCH = 4


class RollbackGuard:
    """Keeps the last good states of a training in memory, and brings it back to one when a step goes wrong.

    Args:
        every: steps between two states kept, 1 or more.
        tell: takes a sentence on each fault and what was done about it.
        can_split: whether what is computed at once may be made smaller; not where other processes would have to follow.
    """

    def __init__(
        self,
        state: TrainingState,
        schedule: Schedule,
        batch_size: int,
        ghost_size: int,
        every: int,
        notify: Callable[[str], None],
        can_split: bool = True,
    ) -> None:
        self._state, self._schedule = state, schedule
        self._batch_size, self._ghost_size = batch_size, ghost_size
        self._every, self._notify, self._can_split = every, notify, can_split
        # Two, because a fault may show some steps after it happened: the newer one may hold it already.
        self._kept = deque([state.snapshot()], maxlen=2)
        self._restored: Snapshot | None = None
        self._faulty_steps: list[int] = []

    @property
    def latest(self) -> Snapshot:
        """The state kept last."""
        return self._kept[-1]

    def save_if_due(self) -> None:
        """Keep the present state, where it is time to."""
        if self._state.step % self._every == 0:
            self._kept.append(self._state.snapshot())

    def recover(self, fault: RecoverableError) -> None:
        """Mend what can be mended and go back to the last good state; if that led to a fault before, to an older one.

        Raises:
            TimeboxError: when it keeps happening, naming the step and the likely cause.
        """
        if isinstance(fault, NonFiniteError):
            # Where the device runs behind, states may have been kept since. Weights that diverge are finite for some
            # steps: a state that has led to two faults is taken to hold them, and no lower rate would help it.
            self._forget(lambda kept: kept is self._restored or kept.step >= fault.step or not kept.is_finite())
            self._slow_down(fault)
            self._restored = self.latest
        else:
            self._forget(lambda kept: not kept.is_finite())
            self._split(fault)
        self._state.restore(self.latest)
        self._schedule.rewind(self._state.step, self._state.progress)

    def _forget(self, holds_fault: Callable[[Snapshot], bool]) -> None:
        while len(self._kept) > 1 and holds_fault(self.latest):
            self._kept.pop()

    def _slow_down(self, fault: NonFiniteError) -> None:
        self._faulty_steps = [s for s in self._faulty_steps if abs(fault.step - s) <= WITHIN_STEPS] + [fault.step]
        if len(self._faulty_steps) > MAX_ROLLBACKS:
            raise TimeboxError(
                f"{fault}, and again each time the training went back and on at half the rate, {MAX_ROLLBACKS} times "
                f"in a row; lower the rate with --set max_lr=VALUE, or use --precision fp32"
            )
        self._schedule.lower_lr()
        self._notify(f"{fault}: back to step {self.latest.step} and on at {self._schedule.lr_factor:g} times the rate")

    def _split(self, fault: RecoverableError) -> None:
        """Halve what is computed at once: in whole normalisation groups, while a batch has several of them."""
        present = min(self._schedule.micro_batch, self._batch_size)
        if not self._can_split:
            raise TimeboxError(
                f"memory ran out with {present} images at a time; take a smaller batch with --set batch_size=VALUE, or "
                f"start more processes on more devices"
            ) from fault
        part = smaller_micro_batch(present, self._ghost_size)
        if part is not None:
            self._notify(f"memory ran out: batches of {self._batch_size} are run in parts of {part} images")
        else:
            part = present // 2
            if part < MIN_MICRO_BATCH:
                raise TimeboxError(
                    f"memory ran out with {present} images at a time; make the network smaller with --set width=VALUE, "
                    f"or the images with --set image_size=VALUE"
                ) from fault
            self._ghost_size = part
            for module in self._state.model.modules():
                if isinstance(module, GhostBatchNorm):
                    module.ghost_size = part
            self._notify(
                f"memory ran out: batches of {self._batch_size} are run in parts of {part} images, each now normalised "
                f"by itself"
            )
        self._schedule.micro_batch = part
