"""Carry out a training job: train, save, score, report, and write the summary of the run directory."""

import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from msgspec import UNSET
from numpy.typing import NDArray
from torch import nn

from timebox.builders import build_augmentation
from timebox.callbacks.events import PlanInfo
from timebox.clock import format_duration
from timebox.custom import is_code
from timebox.data import ImageDataset, LoadedData
from timebox.distributed.process_group import ProcessGroup, TorchrunGroup
from timebox.errors import OutputError, RankFailureError, RunError
from timebox.evaluation.scoring import ScoringTime, SplitScore
from timebox.jobs.context import RunContext
from timebox.jobs.examples import (
    augmented_examples,
    columns_from_examples,
    find_suspects,
    prediction_examples,
    suspect_examples,
    suspects_at,
)
from timebox.jobs.fit import Training
from timebox.jobs.job import TrainingJob
from timebox.jobs.messages import broadcast_run_finished, broadcast_start_training
from timebox.paths import shell_quote
from timebox.reporting import Example, RunData, SplitPredictions, report_page
from timebox.reporting.rendering import data_uri
from timebox.run.files import EXAMPLES, METRICS, PREDICTIONS, REPORT, SUSPECTS
from timebox.run.json_values import to_values
from timebox.run.metrics_log import downsampled_metrics
from timebox.run.model_config import installed_versions
from timebox.run.ranks_file import read_ranks_record, record_rank_failures
from timebox.run.summary import (
    MAX_BAD_FILES,
    BlendSummary,
    DataDescription,
    FinishedSummary,
    RankSummary,
    TrainingStatus,
)
from timebox.run.writer import RunWriter
from timebox.runtime.device import device_name
from timebox.runtime.write_speed import WRITES_OF_THE_SUMMARY
from timebox.training.data_parallel import Throughput
from timebox.training.loop import TrainingResult


def run_job(
    job: TrainingJob,
    loaded: LoadedData,
    writer: RunWriter,
    context: RunContext,
    extra_summary: Callable[[], Mapping[str, object]] = dict,
) -> None:
    """Train a job and finish its run directory, on the main rank.

    Args:
        loaded: the data as read, which the summary describes.
        extra_summary: further values of the summary; called when the model is on disk.
    Raises:
        OutputError: where the model or the summary cannot be written.
    """
    context.reporter.phase("training")
    if job.pretrained:
        with context.deadline.phase("saving"):
            job.pretrained.classifier.accept_normalized(job.statistics.mean, job.statistics.std)
            writer.save_pretrained(job.pretrained.classifier)
    with context.deadline.phase("training"):
        write_status(writer, context, job.data_splits.train, job)
        broadcast_start_training(context.group, job, writer.path)
        training = Training(job, context, writer)
    # Only now: a callback that draws random numbers must not change the first weights.
    context.callbacks.submit(_plan_info(job, writer, context))
    with training.checkpointer.wait_on_failure():
        with context.deadline.phase("training"):
            result = training.run()
            with context.group.raise_on_rank_failure():
                throughputs = training.throughputs()
        with context.phase("saving"):
            writer.save_model(result.model, job.model_config(context))
            extra = {**extra_summary(), **_ranks_summary(context.group, writer.path, throughputs)}
        RunFinisher(job, loaded, training, result, writer, context, extra).finish()
        broadcast_run_finished(context.group, writer.path)


def write_status(writer: RunWriter, context: RunContext, train: ImageDataset, job: TrainingJob | None = None) -> None:
    """Write status.json, for those who watch the training.

    Args:
        job: None before it is planned.
    """
    # Code of the user's may take long, or fail.
    has_examples = job and job.config.thumbnails and not is_code(job.plan.recipe.augment)
    examples = _augmented_examples(job) if job and has_examples else []
    status = TrainingStatus(
        pid=os.getpid(),
        host=socket.gethostname(),
        started_at=time.time() - context.deadline.elapsed(),
        budget_seconds=context.deadline.budget_seconds,
        expected_steps=job.plan.expected_steps if job else None,
        train_images=len(train),
        num_classes=train.num_classes,
        device=device_name(job.plan.device) if job else "",
        plan=job.plan.lines if job else (),
        examples=tuple((example.name, data_uri(example.image)) for example in examples),
    )
    try:
        writer.save_status(status)
    except OutputError as error:
        context.reporter.note(str(error))


def _augmented_examples(job: TrainingJob) -> list[Example]:
    """Training images as the job augments them."""
    augmentation = build_augmentation(job.plan.recipe)
    return augmented_examples(job.data_splits.train, job.statistics, augmentation, job.config.seed)


def _plan_info(job: TrainingJob, writer: RunWriter, context: RunContext) -> PlanInfo:
    return PlanInfo(
        run_directory=writer.out,
        lines=job.plan.lines,
        recipe=job.plan.recipe.as_dict(),
        budget_seconds=context.deadline.budget_seconds,
        expected_steps=job.plan.expected_steps,
    )


@contextmanager
def keep_partial_run(writer: RunWriter, context: RunContext) -> Iterator[None]:
    """Whatever ends a training inside, keep its last checkpoint; without one, leave nothing behind.

    After Ctrl-C or a rank failure with a checkpoint, the summary says ``stopped``. Ctrl-C is then not raised again;
    every other error is.
    """
    try:
        yield
    except KeyboardInterrupt:
        if not writer.close_unfinished():
            raise
        writer.save_stopped(context.deadline)
        record_rank_failures(writer.path, context.group.describe_failures(context.group.failed_ranks()))
    except RankFailureError as error:
        if not writer.close_unfinished():
            raise
        writer.save_stopped(context.deadline)
        record_rank_failures(writer.path, error.lines)
        command = f"timebox train --resume {shell_quote(writer.path)}"
        raise RankFailureError(error.failed_ranks, [*error.lines, f"resume with {command}"]) from error
    except BaseException:
        if writer.close_unfinished():
            context.reporter.note(f"the model of the last checkpoint is kept in {str(writer.path)!r}")
        raise
    finally:
        writer.close()


def score_held_out(
    job: TrainingJob, model: nn.Module, context: RunContext, slower_saving_seconds: float = 0.0
) -> list[SplitScore]:
    """Score the val and test splits within the time planned for it; nothing where the job leaves scoring out.

    Args:
        slower_saving_seconds: time that saving takes beyond what was planned, as the disk has become slower.
    """
    if not job.config.scoring:
        return []
    reserved_seconds = job.plan.finish_seconds + slower_saving_seconds
    time = ScoringTime(context.deadline, job.plan.scoring_seconds, reserved_seconds)
    return job.scorer(context.group).score_splits(model, job.held_out, job.plan.recipe.tta, time)


@dataclass(eq=False)
class RunFinisher:
    """Scores a trained model whose weights are on disk, and writes predictions, report and summary.

    Attributes:
        extra_summary: further values of the summary.
        unwritten: names of the files that could not be written.
        blend: of the network and the pretrained classifier, once they are scored; None without one.
        suspects: training images whose label the training doubts, for the report.
    """

    job: TrainingJob
    loaded: LoadedData
    training: Training
    result: TrainingResult
    writer: RunWriter
    context: RunContext
    extra_summary: Mapping[str, Any]
    unwritten: list[str] = field(default_factory=list)
    blend: BlendSummary | None = None
    suspects: list[Example] = field(default_factory=list)

    def finish(self) -> None:
        """Score, write predictions and report as far as time allows, then the summary."""
        job, context, writer, checkpointer = self.job, self.context, self.writer, self.training.checkpointer
        with context.deadline.phase("saving"):
            if self._is_time_to_sync(1):
                writer.sync_model()
        with context.phase("scoring"), context.group.raise_on_rank_failure():
            scores = self._score()
        with context.phase("saving"):
            num_bytes = sum(score.probabilities.nbytes for score in scores)
            if scores and self._is_time_for(
                PREDICTIONS, self._files_seconds(1, num_bytes), self.job.plan.closing_seconds / 2
            ):
                self._write_optional(PREDICTIONS, lambda: writer.save_predictions(prediction_columns(scores)))
            needed_seconds = self.job.plan.closing_seconds / 2 + self._files_seconds(0)
            checkpointer.wait(max(0.0, context.deadline.remaining() - needed_seconds))
            if checkpointer.has_failed:
                self.unwritten.append("a checkpoint")
        if job.config.scoring and self._is_time_for(REPORT, self._files_seconds(2), self.job.plan.closing_seconds):
            with context.phase("reporting"):
                try:
                    self._write_suspects()
                    self._write_report(scores)
                except Exception as error:  # a fault in the report must not cost the run
                    context.reporter.note(f"no report: {type(error).__name__}: {error}")
                    self.unwritten.append(REPORT)
        with context.deadline.phase("saving"):
            self._write_summary(scores)
            if self.blend and self.blend.share == 0:
                writer.remove_pretrained()
            writer.finish()

    def _write_suspects(self) -> None:
        """Write the training images whose label the training doubts, where it ran in one process."""
        if (margins := self.training.margins) is None or not self.result.num_steps:
            return
        train, positions = self.job.data_splits.train, find_suspects(margins)
        self.suspects = suspect_examples(positions, train, margins)
        columns = suspects_at(positions, train, margins).columns()
        self._write_optional(SUSPECTS, lambda: self.writer.save_suspects(columns))

    def _score(self) -> list[SplitScore]:
        """Score the model, and find the blend where there is a pretrained classifier."""
        job = self.job
        if job.pretrained and not job.plan.expected_steps:
            scores, self.blend = job.pretrained.alone()
            return scores
        slower_saving = self._files_seconds(1) - job.plan.saving_seconds
        scores = score_held_out(job, self.result.model, self.context, max(slower_saving, 0.0))
        if job.pretrained:
            scores, self.blend = job.pretrained.blend(scores)
        return scores

    def _files_seconds(self, num_files: int, num_bytes: int = 0) -> float:
        """Seconds to reserve for so many files and the summary, as the disk is now; the largest has ``num_bytes``."""
        return self.writer.write_speed.planned_seconds(num_files + WRITES_OF_THE_SUMMARY, num_bytes)

    def _is_time_for(self, name: str, files_seconds: float, seconds: float) -> bool:
        """Whether files that the run can do without, the summary and ``seconds`` more fit before the deadline.

        Where they do not, adds that to the events, and notes it.
        """
        remaining = self.context.deadline.remaining()
        if remaining > seconds + files_seconds:
            return True
        left, needed = format_duration(max(remaining, 0.0)), format_duration(seconds + files_seconds)
        event = f"{name} left out: {left} before the deadline, and all that is left to do may take {needed} now"
        self.training.events.append(event)
        self.context.reporter.note(event)
        return False

    def _is_time_to_sync(self, num_syncs: int) -> bool:
        """Whether there is time to wait for the disk so many times, and for the summary."""
        return self.context.deadline.remaining() > self.job.plan.closing_seconds / 2 + self._files_seconds(num_syncs)

    def _write_summary(self, scores: Sequence[SplitScore]) -> None:
        """Write the summary, without waiting for the disk where there is no time to; again if it came too late."""
        self.training.note_callbacks()
        writer, summary = self.writer, self._summary(scores)
        writer.waits_for_disk = self._is_time_to_sync(0)
        writer.save_summary(summary)
        if self.context.deadline.late and not summary.late:
            writer.save_summary(self._summary(scores))

    def _write_report(self, scores: Sequence[SplitScore]) -> None:
        self.training.note_callbacks()
        summary, writer = self._summary(scores), self.writer
        examples = self._examples(scores, summary.temperature) if self.job.config.thumbnails else []
        if examples:
            self._write_optional(EXAMPLES, lambda: writer.save_examples(columns_from_examples(examples)))
        writer.metrics.flush()
        run_data = RunData(
            writer.out.resolve().name,
            to_values(summary),
            self.job.data_splits.train.class_names,
            downsampled_metrics(writer.path / METRICS, writer.metrics.num_lines),
            [SplitPredictions(score.split, score.dataset.labels, score.probabilities) for score in reversed(scores)],
            examples,
        )
        self._write_optional(REPORT, lambda: writer.save_report(report_page(run_data)))

    def _examples(self, scores: Sequence[SplitScore], temperature: float | None) -> list[Example]:
        """Mistakes and unsure hits of the test split, else of val, and augmented training images."""
        job, examples = self.job, []
        for score in scores[-1:]:
            examples += prediction_examples(score.dataset, score.probabilities, temperature)
        return [*examples, *self.suspects, *_augmented_examples(job)]

    def _summary(self, scores: Sequence[SplitScore]) -> FinishedSummary:
        """The summary at this moment."""
        job, loaded, result, deadline = self.job, self.loaded, self.result, self.context.deadline
        plan, config, train, held_out = job.plan, job.config, job.data_splits.train, job.held_out
        by_split = {score.split: score for score in scores}
        val, test = by_split.get("val"), by_split.get("test")
        phases = deadline.phases_so_far()
        return FinishedSummary(
            val_accuracy=val.accuracy if val else None,
            test_accuracy=test.accuracy if test else None,
            val_images=len(val.dataset) if val else 0,
            test_images=len(test.dataset) if test else 0,
            val_images_total=len(held_out.get("val", ())),
            test_images_total=len(held_out.get("test", ())),
            temperature=val.temperature if val else None,
            tta=scores[-1].tta if scores else plan.recipe.tta,
            budget_seconds=deadline.budget_seconds,
            elapsed_seconds=round(sum(phases.values()), 3),
            reserve_seconds=round(plan.reserve_seconds, 3),
            download_seconds=round(loaded.download_seconds, 3),
            phases={name: round(seconds, 3) for name, seconds in phases.items()},
            steps=result.num_steps,
            epochs=round(result.epochs, 3),
            images_per_second=round(result.images_per_second, 1),
            final_lr=result.final_lr,
            train_images=len(train),
            num_classes=train.num_classes,
            data=DataDescription(name=loaded.name, format=loaded.format, why=loaded.why),
            device=device_name(plan.device),
            threads=torch.get_num_threads(),
            precision=plan.precision,
            seed=config.seed,
            source=config.source,
            recipe=plan.recipe.as_dict(),
            command=config.command(deadline.budget_seconds),
            plan=plan.lines,
            forecast=plan.forecasts[0] if plan.forecasts else UNSET,
            blend=self.blend or UNSET,
            notes=loaded.notes,
            events=tuple(self.training.events),
            bad_files=loaded.bad_files[:MAX_BAD_FILES],
            num_bad_files=len(loaded.bad_files),
            part_read=loaded.part or UNSET,
            versions=installed_versions(),
            unwritten=tuple(self.unwritten),
            late=deadline.late,
            trained_on_other_machine=job.is_mixed_environment,
            **self.extra_summary,
        )

    def _write_optional(self, name: str, write: Callable[[], None]) -> None:
        """Write a file that the run can do without."""
        try:
            write()
        except OutputError as error:
            self.context.reporter.note(str(error))
            self.unwritten.append(name)


def _ranks_summary(group: ProcessGroup, run: Path, throughputs: Sequence[Throughput]) -> dict[str, object]:
    """The summary's values about ranks and rank failures; empty for a single process."""
    if not isinstance(group, TorchrunGroup):
        return {}
    pairs, record = zip(group.ranks, throughputs, strict=True), None
    with suppress(RunError):  # it was damaged while the model was trained, which is whole
        record = read_ranks_record(run)
    ranks = tuple(RankSummary(**asdict(rank), **asdict(throughput)) for rank, throughput in pairs)
    return {"ranks": ranks, "rank_failures": record.failures if record else ()}


def prediction_columns(scores: Sequence[SplitScore]) -> dict[str, NDArray[np.generic]]:
    """The columns of predictions.npz, a row for each scored image."""
    return {
        "split": np.concatenate([np.full(len(score.dataset), score.split) for score in scores]),
        "id": np.array([name for score in scores for name in score.dataset.ids]),
        "label": np.concatenate([score.dataset.labels for score in scores]),
        "probabilities": np.concatenate([score.probabilities for score in scores]),
    }
