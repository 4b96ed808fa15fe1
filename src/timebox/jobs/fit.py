"""Training a job: builds network, schedule, data loader, rollback guard and checkpointer, and runs the loop."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import astuple, replace
from functools import partial
from math import inf, isnan, nan

import torch
from torch import nn

from timebox.builders import build_augmentation, build_loss, build_model, build_resizing, init_whitening_
from timebox.callbacks.event_source import EventSource
from timebox.callbacks.events import CheckpointInfo
from timebox.data.device.loader import DeviceLoader, Sampling
from timebox.data.device.resident import DataShard, ResidentImages
from timebox.distributed.process_group import TorchrunGroup
from timebox.errors import RankFailureError
from timebox.jobs.context import RunContext
from timebox.jobs.job import TrainingJob
from timebox.machine import available_threads
from timebox.optim.loss import Loss, class_weights
from timebox.optim.margins import MarginRecorder, MeanMargins
from timebox.planning.budget import MAX_VALIDATION_SHARE
from timebox.run.checkpoint import Checkpoint
from timebox.run.files import CHECKPOINT
from timebox.run.model_config import TrainedModelConfig
from timebox.run.writer import RunWriter
from timebox.runtime.async_scalars import MAX_PENDING
from timebox.runtime.faults import RecoverableError
from timebox.runtime.precision import Precision
from timebox.runtime.thread_tuner import ThreadTuner
from timebox.runtime.threads import keep_num_threads, threads_are_fixed
from timebox.runtime.write_speed import NO_WRITES, WRITES_OF_A_CHECKPOINT, WRITES_OF_THE_WEIGHTS, num_bytes
from timebox.training.checkpointer import AsyncCheckpointer
from timebox.training.data_parallel import BroadcastSchedule, DataParallelStepRunner, Throughput, block_size_for
from timebox.training.graphed_step import build_step_runner
from timebox.training.loop import PeriodicValidation, TrainingComponents, TrainingResult, train_model
from timebox.training.monitor import TrainingMonitor
from timebox.training.pacer import ClockPacer, StepPacer, Warmdown
from timebox.training.rollback import RollbackGuard
from timebox.training.schedule import PacedSchedule, ReplaySchedule, Schedule, lr_and_momentum_at, warmdown_start
from timebox.training.state import Metadata, Snapshot, TrainingState

# A snapshot for rollbacks is kept in memory every 50 steps, or every 2 s where that is more often and a clock is read.
SNAPSHOT_STEPS, SNAPSHOT_SECONDS = 50, 2.0
# An interrupted training may take this long to write its last checkpoint.
LAST_CHECKPOINT_SECONDS = 2.5
# Images may take this share of a GPU's free memory; beyond it, each rank holds a part of them only.
MAX_IMAGE_MEMORY_SHARE = 0.5
# When time has run short, the warmdown may take this share of the time reserved for the report, exiting and stalls.
OVERTIME_SHARE = 0.3
# A step is aborted once it has taken this share of the same time, as beside other programs it may.
ABORT_SHARE = 0.4


class Training:
    """The training of a job on one rank.

    Args:
        writer: of the run directory; None on a worker rank.
    Attributes:
        events: a line for each rollback, and for each other fault that the training survived.
    """

    def __init__(self, job: TrainingJob, context: RunContext, writer: RunWriter | None = None) -> None:
        self._job, self._writer, self._context = job, writer, context
        self._group, self._deadline, self._reporter = context.group, context.deadline, context.reporter
        self.events: list[str] = []
        plan, network = job.plan, build_initial_network(job, self._reporter.note)
        self._state = TrainingState(network, plan.recipe, Precision(plan.precision, plan.device), self._metadata)
        writes = writer.write_speed if writer else NO_WRITES
        checkpoint_bytes = num_bytes(self._state.tensors())
        self._model_bytes = num_bytes(self._state.average.model.state_dict())
        self._saving_share = writes.saving_share(self._model_bytes, checkpoint_bytes)
        self._checkpointer = self._build_checkpointer(writes.expected_seconds(WRITES_OF_A_CHECKPOINT, checkpoint_bytes))
        self._schedule = self._build_schedule()
        # Each of several ranks sees a part of the batches only.
        self._margins = None
        if self._group.size == 1:
            self._margins = MarginRecorder(len(job.data_splits.train), plan.device)
        loss = replace(build_job_loss(job), margins=self._margins)
        self._step_runner = build_step_runner(
            self._state, loss, self._notify, self._group, lambda: self._seconds_left(ABORT_SHARE)
        )
        with self._group.raise_on_rank_failure():  # every rank starts with the main rank's weights and step
            self._group.broadcast_parameters_(list(self._state.tensors().values()))
            self._state.step = int(self._group.broadcast_timed(self._state.step))
            self._state.progress = self._group.broadcast_timed(self._state.progress)
        can_shrink = self._group.size == 1
        self._guard = RollbackGuard(
            self._state, self._schedule, plan.recipe, self._snapshot_steps(), self._notify, can_shrink
        )

    def run(self) -> TrainingResult:
        """Train to the end of the schedule. On Ctrl-C or a rank failure, write a last checkpoint and raise it again."""
        job, plan, recipe = self._job, self._job.plan, self._job.plan.recipe
        loader = DeviceLoader(
            ResidentImages.from_dataset(job.data_splits.train, plan.device, self._data_shard()),
            job.statistics,
            build_augmentation(recipe),
            Sampling(recipe.batch_size, job.config.seed, recipe.ensemble_size, self._state.has_own_code),
            build_resizing(recipe),
        )
        log = self._writer.metrics.add if self._writer else lambda line: None
        source = EventSource(self._context.callbacks, log, self._reporter, self._notify)
        monitor = TrainingMonitor(loader, self._schedule, self._deadline, source.log, source, self._group.size > 1)
        try:
            with self._group.raise_on_rank_failure(), keep_num_threads():
                validation, state, schedule = self._build_validation(), self._state, self._schedule
                components = TrainingComponents(
                    state, loader, schedule, self._step_runner, self._guard, monitor, self._checkpointer, validation
                )
                if job.pretrained and self._checkpointer and not state.step:
                    self._checkpointer.save(state.snapshot())  # from here on the run predicts, by pretrained features
                result = train_model(components)
                source.submit_steps()
                if result.is_aborted:
                    self._notify_of_abort(result)
                return result
        except (KeyboardInterrupt, RankFailureError) as reason:
            if isinstance(reason, KeyboardInterrupt):  # after a rank failure a GPU would wait for the failed ranks
                with suppress(RecoverableError):
                    monitor.collect(drain=True)
            if self._checkpointer:
                # A learning rate or micro-batch that was reduced after the latest snapshot stays reduced.
                latest = self._guard.latest
                reduced = {"lr_factor": self._schedule.lr_factor, "micro_batch": self._schedule.micro_batch}
                last = replace(latest, metadata={**latest.metadata, **reduced})
                self._checkpointer.save_last(last, LAST_CHECKPOINT_SECONDS)
            raise

    def _notify_of_abort(self, result: TrainingResult) -> None:
        self._notify(
            f"time ran out in step {result.num_steps + 1:,}, which was aborted: the training ended at "
            f"{self._state.progress:.0%} of its schedule, with a learning rate of {result.final_lr:.3g}"
        )

    def note_callbacks(self) -> None:
        """Note the exceptions of callbacks and the events that were dropped, and add them to ``events``."""
        for line in self._context.callbacks.messages():
            self._notify(line)

    @property
    def margins(self) -> MeanMargins | None:
        """Those of the training images; None where several ranks trained."""
        return self._margins.means() if self._margins else None

    @property
    def checkpointer(self) -> AsyncCheckpointer:
        """The main rank's, which writes checkpoints in the background; worker ranks write none."""
        assert self._checkpointer is not None
        return self._checkpointer

    def throughputs(self) -> list[Throughput]:
        """The throughput of each rank; empty for a process that trained alone. All ranks call this together."""
        runner = self._step_runner
        if not isinstance(runner, DataParallelStepRunner):
            return []
        columns = [
            self._group.all_gather_timed(nan if value is None else value) for value in astuple(runner.throughput)
        ]
        rows = zip(*columns, strict=True)
        return [Throughput(*(None if isnan(value) else value for value in row)) for row in rows]

    def _restore(self, schedule: PacedSchedule, checkpoint: Checkpoint) -> None:
        """Restore state and schedule. Raises RunError where the checkpoint is damaged."""
        snapshot = checkpoint.snapshot(self._state.tensors())
        self._state.restore(snapshot)
        state = checkpoint.resume_state
        schedule.lr_factor, schedule.micro_batch = state.lr_factor, state.micro_batch
        schedule.rewind(snapshot.step, snapshot.progress)
        # Where no step is left, the summary still needs the learning rate of the last one.
        lr, momentum = lr_and_momentum_at(self._job.plan.recipe, snapshot.progress)
        self._state.optimizer.prepare(lr * schedule.lr_factor, momentum, snapshot.progress)

    def _metadata(self) -> Metadata:
        """The values that a checkpoint stores beside the tensors, for an exact resume."""
        return {
            "lr_factor": self._schedule.lr_factor,
            "micro_batch": self._schedule.micro_batch,
            "step_seconds": self._schedule.pacer.step_seconds,
            "metrics_lines": self._writer.metrics.num_lines if self._writer else 0,
            "budget_seconds": self._deadline.budget_seconds,
            "phases": self._deadline.phases_so_far(),
            "trained_on_other_machine": self._job.is_mixed_environment,
        }

    def _notify(self, text: str) -> None:
        self.events.append(text)
        self._reporter.note(text)

    def _build_checkpointer(self, expected_seconds: float) -> AsyncCheckpointer | None:
        if self._writer is None:
            return None
        save = partial(self._save_checkpoint, self._writer, self._job.model_config(self._context))
        probe = self._writer.probe
        return AsyncCheckpointer(save, self._deadline, self._seconds_left, self._notify, expected_seconds, probe)

    def _save_checkpoint(self, writer: RunWriter, config: TrainedModelConfig, snapshot: Snapshot) -> None:
        """Write a checkpoint, in the checkpointer's thread."""
        writer.save_checkpoint(snapshot, config)
        self._context.callbacks.submit(CheckpointInfo(snapshot.step, writer.path / CHECKPOINT))

    def _build_schedule(self) -> Schedule:
        """The main rank's schedule, which worker ranks receive while they train."""
        plan = self._job.plan
        if not isinstance(self._group, TorchrunGroup):
            return self._build_main_schedule()
        main_schedule = self._build_main_schedule() if self._writer else None
        micro_batch = main_schedule.micro_batch if main_schedule else plan.micro_batch
        return BroadcastSchedule(main_schedule, self._group, block_size_for(plan.step_seconds), micro_batch)

    def _build_main_schedule(self) -> Schedule:
        """The recorded step plans of a replay, else the recipe's schedule from the checkpoint on, if there is one."""
        if self._job.step_plans is not None:
            return ReplaySchedule(self._job.step_plans)
        plan = self._job.plan
        tuner = self._build_thread_tuner()
        pacer = self._build_pacer(tuner)
        schedule = PacedSchedule(pacer, plan.recipe, plan.micro_batch, self._group.size, tuner)
        if self._job.checkpoint:
            self._restore(schedule, self._job.checkpoint)
        return schedule

    def _data_shard(self) -> DataShard:
        """This rank's shard of each batch. Every rank holds all images, or a part where they do not fit on a device."""
        device, num_bytes = self._job.plan.device, self._job.data_splits.train.images.nbytes
        fits = device.type == "cpu" or num_bytes <= MAX_IMAGE_MEMORY_SHARE * torch.cuda.mem_get_info(device)[0]
        return replace(self._group.share, holds_shard=not all(self._group.all_gather_timed(fits)))

    def _build_thread_tuner(self) -> ThreadTuner | None:
        """Of a single process that trains by the clock; None where its number of threads is fixed."""
        most = self._job.plan.max_threads
        if most is None or self._group.size > 1 or threads_are_fixed():  # a resumed run may be started otherwise
            return None
        return ThreadTuner(torch.get_num_threads(), min(most, available_threads()), self._reporter.note)

    def _build_pacer(self, tuner: ThreadTuner | None) -> ClockPacer | StepPacer:
        plan = self._job.plan
        if plan.num_steps is not None:
            return StepPacer(plan.num_steps)
        warmdown = Warmdown(warmdown_start(plan.recipe), OVERTIME_SHARE * plan.closing_seconds)
        resizing = build_resizing(plan.recipe)
        notify = tuner.record if tuner else lambda seconds, cost: None
        return ClockPacer(self._seconds_left, plan.step_seconds, self._deadline.elapsed, warmdown, resizing, notify)

    def _seconds_left(self, closing_share: float = 0.0) -> float:
        """Seconds until training must have ended, or until it has also used ``closing_share`` of the closing seconds.

        Saving takes as long as planned, or longer where the disk is slower now.
        """
        plan = self._job.plan
        if self._deadline.budget_seconds is None:
            return inf
        slower_saving = max(0.0, self._saving_seconds - plan.saving_seconds)
        seconds = self._deadline.remaining() - plan.scoring_seconds - plan.finish_seconds - slower_saving
        return seconds + closing_share * plan.closing_seconds

    @property
    def _saving_seconds(self) -> float:
        """Seconds to reserve for the weights as the disk is now, by the latest checkpoints and by the latest small
        files: whichever of them met the slower disk."""
        by_checkpoints = self._saving_share * self.checkpointer.recent_seconds
        if self._writer is None:
            return by_checkpoints
        return max(by_checkpoints, self._writer.write_speed.planned_seconds(WRITES_OF_THE_WEIGHTS, self._model_bytes))

    def _snapshot_steps(self) -> int:
        seconds = self._job.plan.step_seconds
        steps = min(SNAPSHOT_STEPS, int(SNAPSHOT_SECONDS / seconds)) if seconds else SNAPSHOT_STEPS
        # A GPU reports a fault up to MAX_PENDING steps late: the older of the two snapshots must precede it.
        return max(steps, MAX_PENDING + 1 if self._job.plan.device.type == "cuda" else 1)

    def _build_validation(self) -> PeriodicValidation | None:
        job, plan = self._job, self._job.plan
        if job.data_splits.val is None or not plan.num_val_images:
            return None
        scorer = job.scorer(self._group)
        dataset = scorer.stratify(job.data_splits.val, plan.num_val_images)
        budget = self._deadline.budget_seconds
        limit_seconds = MAX_VALIDATION_SHARE * budget if budget else inf
        validate_at = [progress for progress in plan.validate_at if progress > self._state.progress]
        measure = partial(scorer.accuracy, dataset=dataset)
        return PeriodicValidation(measure, validate_at, limit_seconds, self._group.broadcast_timed)


def build_initial_network(job: TrainingJob, notify: Callable[[str], None]) -> nn.Module:
    """The recipe's network on the device: random weights with data-dependent whitening filters, or initial weights."""
    plan, train = job.plan, job.data_splits.train
    # Weights are drawn on the CPU, whatever the device; other random generators stay untouched.
    torch.default_generator.manual_seed(job.config.seed)
    height, width, channels = train.image_shape
    model = build_model(plan.recipe, channels, train.num_classes, (height, width)).to(plan.device).train()
    if job.initial:
        job.initial.copy_to(model, train.class_names, notify)
    else:
        statistics = job.statistics.to(plan.device)
        init_whitening_(model, plan.recipe, torch.from_numpy(train.images), statistics.mean, statistics.std)
    return model


def build_job_loss(job: TrainingJob) -> Loss:
    """The recipe's training loss, with the class weights of the training images."""
    recipe = job.plan.recipe
    weights = class_weights(job.data_splits.train.class_counts(), recipe.class_balance)
    return build_loss(recipe, None if weights is None else weights.to(job.plan.device))
