"""Rollback: recovery from steps whose loss is not finite or for which memory runs out."""

from collections import deque
from collections.abc import Callable

from timebox.errors import TimeboxError, option_text
from timebox.models import GhostBatchNorm
from timebox.recipes import Recipe
from timebox.runtime.faults import NonFiniteError, RecoverableError
from timebox.runtime.micro_batches import smaller_micro_batch
from timebox.training.schedule import Schedule
from timebox.training.state import Snapshot, TrainingState

# Most rollbacks within a window of steps; after one more the training fails.
MAX_ROLLBACKS, ROLLBACK_WINDOW_STEPS = 6, 500
# Fewest images per forward and backward pass: batch normalisation needs some for its variance.
MIN_MICRO_BATCH = 4


class RollbackGuard:
    """Keeps the last two snapshots of a training in memory, and restores one when a step fails.

    ``can_shrink`` is False where other ranks would have to use the smaller micro-batch too.
    """

    def __init__(
        self,
        state: TrainingState,
        schedule: Schedule,
        recipe: Recipe,
        snapshot_steps: int,
        notify: Callable[[str], None],
        can_shrink: bool = True,
    ) -> None:
        self._state, self._schedule = state, schedule
        self._batch_size, self._ghost_size = recipe.batch_size, recipe.ghost_size
        self._snapshot_steps, self._notify, self._can_shrink = snapshot_steps, notify, can_shrink
        # Two, because a fault may show some steps after it happened, when the newer snapshot may contain it already.
        self._snapshots = deque([state.snapshot()], maxlen=2)
        self._restored: Snapshot | None = None
        self._faulty_steps: list[int] = []

    @property
    def latest(self) -> Snapshot:
        """The newest snapshot."""
        return self._snapshots[-1]

    def snapshot_if_due(self) -> None:
        """Take a snapshot every ``snapshot_steps`` steps."""
        if self._state.step % self._snapshot_steps == 0:
            self._snapshots.append(self._state.snapshot())

    def recover(self, fault: RecoverableError) -> None:
        """Lower the learning rate or the micro-batch, and restore the newest snapshot that does not lead to the fault.

        Raises TimeboxError where faults recur.
        """
        if isinstance(fault, NonFiniteError):
            # Where the device lags behind, snapshots may have been taken after the faulty step. Weights that diverge
            # are finite for some steps: a snapshot from which the training failed twice is taken to contain the fault.
            self._drop_snapshots(lambda one: one is self._restored or one.step >= fault.step or not one.is_finite())
            self._lower_lr(fault)
            self._restored = self.latest
        else:
            self._drop_snapshots(lambda one: not one.is_finite())
            self._shrink_micro_batch(fault)
        self._state.restore(self.latest)
        self._schedule.rewind(self._state.step, self._state.progress)

    def _drop_snapshots(self, is_faulty: Callable[[Snapshot], bool]) -> None:
        """Drop faulty snapshots, newest first; the oldest one stays."""
        while len(self._snapshots) > 1 and is_faulty(self.latest):
            self._snapshots.pop()

    def _lower_lr(self, fault: NonFiniteError) -> None:
        recent = [step for step in self._faulty_steps if abs(fault.step - step) <= ROLLBACK_WINDOW_STEPS]
        self._faulty_steps = [*recent, fault.step]
        if len(self._faulty_steps) > MAX_ROLLBACKS:
            raise TimeboxError(
                f"{fault}, and again after each of {MAX_ROLLBACKS} rollbacks in a row, each at half the learning rate; "
                f"lower the learning rate with {option_text('settings', 'max_lr=VALUE')}, or use "
                f"{option_text('precision', 'fp32')}"
            )
        self._schedule.lower_lr()
        self._notify(
            f"{fault}: back to step {self.latest.step} and on at {self._schedule.lr_factor:g} times the learning rate"
        )

    def _shrink_micro_batch(self, fault: RecoverableError) -> None:
        """Halve the micro-batch, in whole ghost batch normalisation groups while it has several of them."""
        present = min(self._schedule.micro_batch, self._batch_size)
        if not self._can_shrink:
            raise TimeboxError(
                f"memory ran out with {present} images at a time; take a smaller batch with "
                f"{option_text('settings', 'batch_size=VALUE')}, or start more processes on more devices"
            ) from fault
        smaller, note = smaller_micro_batch(present, self._ghost_size), ""
        if smaller is None:
            smaller, note = present // 2, ", each normalised by itself from now on"
            if smaller < MIN_MICRO_BATCH:
                raise TimeboxError(
                    f"memory ran out with {present} images at a time; make the network smaller with "
                    f"{option_text('settings', 'width=VALUE')}, or the images with "
                    f"{option_text('settings', 'image_size=VALUE')}"
                ) from fault
            self._ghost_size = smaller
            for module in self._state.model.modules():
                if isinstance(module, GhostBatchNorm):
                    module.ghost_size = smaller
        self._notify(
            f"memory ran out: batches of {self._batch_size} are computed in micro-batches of {smaller} images{note}"
        )
        self._schedule.lower_micro_batch(smaller)
