"""A training put together: network, data, schedule, safety net and checkpoints; and what follows it."""

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import torch
from torch import nn

from timebox.builders import build_augmentation, build_model, build_resizing, init_whitening_
from timebox.clock import Deadline
from timebox.data import LoadedData
from timebox.data.device.loader import DeviceLoader, Share
from timebox.distributed.process_group import SINGLE_PROCESS, ProcessGroup, TorchrunGroup
from timebox.errors import RankFailureError
from timebox.jobs.finish import Finish
from timebox.jobs.job import TrainingJob, ValidationAccuracy
from timebox.jobs.messages import broadcast_run_path, broadcast_start_training
from timebox.optim.loss import Loss, class_weights
from timebox.planning.planner import MAX_VALIDATION_SHARE
from timebox.reporter import Reporter
from timebox.run.checkpoint import Checkpoint
from timebox.run.ranks_file import read_ranks_record, record_rank_failures
from timebox.run.summary import RankSummary
from timebox.run.writer import RunWriter
from timebox.runtime.async_scalars import MAX_PENDING
from timebox.runtime.faults import RecoverableError
from timebox.runtime.precision import Precision
from timebox.runtime.write_speed import NO_WRITES, WRITES_OF_A_CHECKPOINT, num_bytes
from timebox.training.checkpointer import AsyncCheckpointer, NullCheckpointer
from timebox.training.data_parallel import BroadcastSchedule, DataParallelSteps, Throughput, steps_in_block
from timebox.training.graphed_step import build_steps
from timebox.training.loop import PeriodicValidation, TrainingResult, train_model
from timebox.training.monitor import TrainingMonitor
from timebox.training.pacer import ClockPacer, StepPacer
from timebox.training.rollback import RollbackGuard
from timebox.training.schedule import (
    PacedSchedule,
    ReplaySchedule,
    Schedule,
    StepPlan,
    lr_and_momentum_at,
    warmdown_start,
)
from timebox.training.state import Facts, TrainingState

# Where no clock is read, a state is kept in memory every so many steps; else as often, or every so many seconds.
SNAPSHOT_STEPS, SNAPSHOT_SECONDS = 50, 2.0
# A training that is stopped may use so many seconds to keep how far it came.
LAST_CHECKPOINT_SECONDS = 2.5
# Images may take so much of a GPU's free memory before each process holds a part of them only.
HELD_SHARE = 0.5
# The share of the finish, saving left out, that the landing may use up when time has run short.
OVERTIME_SHARE = 0.3


class Training:
    """One training of a job.

    Args:
        writer: of the run directory; None on a process that does not lead its group.
        group: who trains together.
        checkpoint: where to go on from; None to begin.
        decisions: how each step is to be taken; None to decide by clock or count.
        elsewhere: whether a part of it was trained on another machine, or with other versions.
    """

    def __init__(
        self,
        job: TrainingJob,
        writer: RunWriter | None,
        deadline: Deadline,
        reporter: Reporter,
        group: ProcessGroup = SINGLE_PROCESS,
        checkpoint: Checkpoint | None = None,
        step_plans: Sequence[StepPlan] | None = None,
        elsewhere: bool = False,
    ) -> None:
        self._elsewhere, self._group = elsewhere, group
        self._job, self._writer, self._deadline, self._reporter = job, writer, deadline, reporter
        self.events: list[str] = []
        plan, recipe = job.plan, job.plan.recipe
        self._state = TrainingState(
            initial_network(job, reporter.note), recipe, Precision(plan.precision, plan.device), self._facts
        )
        writes = writer.write_speed if writer else NO_WRITES
        checkpoint_bytes = num_bytes(self._state.tensors())
        self._saving_share = writes.saving_share(num_bytes(self._state.average.model.state_dict()), checkpoint_bytes)
        self.checkpointer = self._keeper(writes.expected_seconds(WRITES_OF_A_CHECKPOINT, checkpoint_bytes))
        self._schedule = self._shared(None if writer is None else self._own_schedule(step_plans))
        if checkpoint:
            self._go_on_from(checkpoint)
        self._steps = build_steps(self._state, build_loss(job), self._notify, group)
        with group.raise_on_rank_failure():
            self._begin_alike()
        self._guard = RollbackGuard(
            self._state,
            self._schedule,
            recipe.batch_size,
            recipe.ghost_size,
            self._snapshot_steps(),
            self._notify,
            can_split=group.size == 1,
        )

    def run(self) -> TrainingResult:
        """Train to the end of the schedule. Interrupted, keeps how far it came and passes the interruption on."""
        job, plan, recipe = self._job, self._job.plan, self._job.plan.recipe
        loader = DeviceLoader(
            job.data_splits.train,
            recipe.batch_size,
            job.mean,
            job.std,
            build_augmentation(recipe),
            job.request.seed,
            plan.device,
            build_resizing(recipe),
            recipe.ensemble_size,
            self._share(),
        )
        log = self._writer.metrics.add if self._writer else _unwritten
        monitor = TrainingMonitor(loader, self._schedule, self._deadline, log, self._reporter, self._group.size > 1)
        try:
            with self._group.raise_on_rank_failure():
                return train_model(
                    self._state,
                    loader,
                    self._schedule,
                    self._steps,
                    self._guard,
                    self.checkpointer,
                    monitor,
                    self._validation(),
                )
        except (KeyboardInterrupt, RankFailureError) as reason:
            if isinstance(reason, KeyboardInterrupt):  # a GPU would wait for those who are lost
                with suppress(RecoverableError):
                    monitor.collect(drain=True)
            # What was learnt of rate and memory since that state was kept stays learnt.
            learnt = {"lr_factor": self._schedule.lr_factor, "micro_batch": self._schedule.micro_batch}
            newest = self._guard.latest
            last = replace(newest, facts={**newest.facts, **learnt})
            self.checkpointer.save_last(last, LAST_CHECKPOINT_SECONDS)
            raise

    def throughputs(self) -> list[Throughput]:
        """How fast each process of the group was, by rank; empty for one that trained alone."""
        return (
            self._group.all_gather_timed(self._steps.throughput) if isinstance(self._steps, DataParallelSteps) else []
        )

    def _go_on_from(self, checkpoint: Checkpoint) -> None:
        snapshot = checkpoint.snapshot(self._state.tensors())
        self._state.restore(snapshot)
        state = checkpoint.resume_state
        self._schedule.lr_factor, self._schedule.micro_batch = state.lr_factor, state.micro_batch
        self._schedule.rewind(snapshot.step, snapshot.progress)
        # Where no step is left to take, the summary still tells the rate that the last one had.
        lr, momentum = lr_and_momentum_at(self._job.plan.recipe, snapshot.progress)
        self._state.optimizer.prepare(lr * self._schedule.lr_factor, momentum, snapshot.progress)

    def _facts(self) -> Facts:
        """What a checkpoint needs besides the tensors, for the training to go on as if nothing had happened."""
        return {
            "lr_factor": self._schedule.lr_factor,
            "micro_batch": self._schedule.micro_batch,
            "step_seconds": self._schedule.step_seconds,
            "metrics_lines": self._writer.metrics.num_lines if self._writer else 0,
            "budget_seconds": self._deadline.budget_seconds,
            "phases": self._deadline.phases_so_far(),
            "trained_on_other_machine": self._elsewhere,
        }

    def _notify(self, text: str) -> None:
        self.events.append(text)
        self._reporter.note(text)

    def _keeper(self, expected_seconds: float) -> AsyncCheckpointer:
        if self._writer is None:
            return NullCheckpointer(self._deadline)
        save = partial(self._writer.save_checkpoint, config=self._job.config(self._group.size))
        return AsyncCheckpointer(save, self._deadline, self._seconds_left, self._notify, expected_seconds)

    def _own_schedule(self, step_plans: Sequence[StepPlan] | None) -> Schedule:
        if step_plans is not None:
            return ReplaySchedule(step_plans)
        plan = self._job.plan
        return PacedSchedule(self._pacer(), plan.recipe, plan.micro_batch, num_processes=self._group.size)

    def _shared(self, own: Schedule | None) -> Schedule:
        """The schedule that this process follows: the leader's, which is its own where it leads."""
        plan = self._job.plan
        if isinstance(self._group, TorchrunGroup):
            return BroadcastSchedule(own, self._group, steps_in_block(plan.step_seconds), plan.micro_batch)
        assert own is not None
        return own

    def _begin_alike(self) -> None:
        """Begin where the leader begins, with its weights."""
        state = self._state
        self._group.broadcast_parameters_(list(state.tensors().values()))
        state.step, state.progress = self._group.broadcast_timed((state.step, state.progress))

    def _share(self) -> Share:
        """All images for everyone, or a part of them where they do not fit on a device."""
        device, num_bytes = self._job.plan.device, self._job.data_splits.train.images.nbytes
        fits = device.type == "cpu" or num_bytes <= HELD_SHARE * torch.cuda.mem_get_info(device)[0]
        return replace(self._group.share, holds_part=not all(self._group.all_gather_timed(fits)))

    def _pacer(self) -> ClockPacer | StepPacer:
        plan = self._job.plan
        if plan.num_steps is not None:
            return StepPacer(plan.num_steps)
        return ClockPacer(
            self._seconds_left,
            plan.step_seconds,
            self._deadline.elapsed,
            warmdown_start(plan.recipe),
            OVERTIME_SHARE * (plan.finish_seconds - plan.saving_seconds),
            build_resizing(plan.recipe),
        )

    def _seconds_left(self) -> float:
        """Until training must have ended: saving takes what was planned, or what checkpoints were seen to take."""
        plan = self._job.plan
        if self._deadline.budget_seconds is None:
            return float("inf")
        slower_saving = max(0.0, self._saving_share * self.checkpointer.cost_seconds - plan.saving_seconds)
        return self._deadline.remaining() - plan.scoring_seconds - plan.finish_seconds - slower_saving

    def _snapshot_steps(self) -> int:
        seconds = self._job.plan.step_seconds
        steps = min(SNAPSHOT_STEPS, int(SNAPSHOT_SECONDS / seconds)) if seconds else SNAPSHOT_STEPS
        # A GPU shows a fault so many steps late: the older of two states must be from before it.
        return max(steps, MAX_PENDING + 1 if self._job.plan.device.type == "cuda" else 1)

    def _validation(self) -> PeriodicValidation | None:
        job, plan = self._job, self._job.plan
        if job.data_splits.val is None or not plan.num_val_images:
            return None
        num_images = min(plan.num_val_images, len(job.data_splits.val))
        dataset = job.ordered(job.data_splits.val, num_images)
        measure = ValidationAccuracy(dataset, job.mean, job.std, plan.device, plan.scoring_batch, self._group)
        budget = self._deadline.budget_seconds
        allowed = MAX_VALIDATION_SHARE * budget if budget else float("inf")
        moments = [moment for moment in plan.validate_at if moment > self._state.progress]
        return PeriodicValidation(measure, moments, allowed, self._group.broadcast_timed)


def run_job(
    job: TrainingJob,
    loaded: LoadedData,
    writer: RunWriter,
    deadline: Deadline,
    reporter: Reporter,
    group: ProcessGroup = SINGLE_PROCESS,
    checkpoint: Checkpoint | None = None,
    step_plans: Sequence[StepPlan] | None = None,
    elsewhere: bool = False,
    extra_summary: Callable[[], Mapping[str, object]] = dict,
) -> None:
    """Train, save, score: from a job to a finished run directory.

    Args:
        group: who trains together; this process leads them.
        remarks: what else the summary says, asked once the model is on disk.
    Raises:
        OutputError: where not everything could be written.
    """
    reporter.phase("training")
    with deadline.phase("training"):
        broadcast_start_training(group, job, writer.path)
        training = Training(job, writer, deadline, reporter, group, checkpoint, step_plans, elsewhere)
    with training.checkpointer.wait_on_failure():
        with deadline.phase("training"):
            trained = training.run()
            with group.raise_on_rank_failure():
                throughputs = training.throughputs()
        reporter.phase("saving")
        with deadline.phase("saving"):
            writer.save_model(trained.model, job.config(group.size))
            more = {**extra_summary(), **group_remarks(group, writer.path, throughputs)}
        finish = Finish(job, loaded, trained, training.events, writer, deadline, reporter, group)
        finish.run(training.checkpointer, {**more, "trained_on_other_machine": elsewhere})
        broadcast_run_path(group, writer.path)


def group_remarks(group: ProcessGroup, run: Path, throughputs: Sequence[Throughput]) -> dict[str, object]:
    """What the summary says of the processes that trained together; nothing for one alone."""
    if not isinstance(group, TorchrunGroup):
        return {}
    ranks = tuple(
        RankSummary(**asdict(rank), **asdict(throughput))
        for rank, throughput in zip(group.ranks, throughputs, strict=True)
    )
    record = read_ranks_record(run)
    return {"ranks": ranks, "rank_failures": record.failures if record else ()}


@contextmanager
def keep_partial_run(
    writer: RunWriter, deadline: Deadline, reporter: Reporter, group: ProcessGroup = SINGLE_PROCESS
) -> Iterator[None]:
    """Whatever ends a training, its last checkpoint stays; before the first one nothing is left behind.

    An interruption ends here where there is a checkpoint: the run stands as far as it came, its summary says
    ``stopped``. Everything else is passed on.
    """
    try:
        yield
    except KeyboardInterrupt:
        if not writer.close_unfinished():
            raise
        writer.save_stopped(deadline)
        record_rank_failures(writer.path, group.describe_failures(group.failed_ranks()))
    except RankFailureError as error:
        if not writer.close_unfinished():
            raise
        writer.save_stopped(deadline)
        record_rank_failures(writer.path, error.lines)
        where = shlex.quote(str(writer.path))
        raise RankFailureError(
            error.failed_ranks, [*error.lines, f"go on with timebox train --resume {where}"]
        ) from error
    except BaseException:
        if writer.close_unfinished():
            reporter.note(f"the model as far as it came is kept in {str(writer.path)!r}")
        raise


def _unwritten(entry: Mapping[str, object]) -> None:
    """A line of metrics that the leader writes."""


def initial_network(job: TrainingJob, notify: Callable[[str], None]) -> nn.Module:
    """The recipe's network with its first weights, on the device."""
    plan, data = job.plan, job.data_splits.train
    # Weights are drawn on the CPU, whatever device trains; no other generator is touched.
    torch.default_generator.manual_seed(job.request.seed)
    model = build_model(plan.recipe, data.image_shape[2], data.num_classes).to(plan.device).train()
    if job.initial:
        job.initial.give(model, data.class_names, notify)
        return model
    images, mean, std = torch.from_numpy(data.images), job.mean.to(plan.device), job.std.to(plan.device)
    init_whitening_(model, plan.recipe, images, mean, std)
    return model


def build_loss(job: TrainingJob) -> Loss:
    """The loss that the recipe asks for on these data."""
    recipe = job.plan.recipe
    weights = class_weights(job.data_splits.train.class_counts(), recipe.class_balance)
    return Loss(recipe.label_smoothing, None if weights is None else weights.to(job.plan.device))
