"""Carry out a training job: train, save, score, report, and write the summary of the run directory."""

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from msgspec.structs import replace
from torch import nn

from timebox.builders import build_augmentation
from timebox.data import LoadedData
from timebox.distributed.process_group import ProcessGroup, TorchrunGroup
from timebox.errors import OutputError, RankFailureError
from timebox.evaluation.scoring import ScoringTime, SplitScore
from timebox.jobs.context import RunContext
from timebox.jobs.examples import augmented_examples, columns_from_examples, prediction_examples
from timebox.jobs.fit import Training
from timebox.jobs.job import TrainingJob, prediction_columns
from timebox.jobs.messages import broadcast_run_finished, broadcast_start_training
from timebox.reporting import Example, RunData, SplitPredictions, report_page
from timebox.run.files import EXAMPLES, METRICS, PREDICTIONS, REPORT
from timebox.run.json_values import to_values
from timebox.run.metrics_log import downsampled_metrics
from timebox.run.ranks_file import read_ranks_record, record_rank_failures
from timebox.run.summary import FinishedSummary, RankSummary
from timebox.run.writer import RunWriter
from timebox.training.checkpointer import AsyncCheckpointer
from timebox.training.data_parallel import Throughput
from timebox.training.loop import TrainingResult


def run_job(
    job: TrainingJob,
    loaded: LoadedData,
    writer: RunWriter,
    context: RunContext,
    extra_summary: Callable[[], Mapping[str, object]] = dict,
) -> None:
    """Train a job and finish its run directory. Called on the main rank.

    Args:
        loaded: the data as read, for the summary.
        extra_summary: further values of the summary; called when the model is on disk.
    Raises:
        OutputError: where the model or the summary cannot be written.
    """
    context.reporter.phase("training")
    with context.deadline.phase("training"):
        broadcast_start_training(context.group, job, writer.path)
        training = Training(job, context, writer)
    with training.checkpointer.wait_on_failure():
        with context.deadline.phase("training"):
            result = training.run()
            with context.group.raise_on_rank_failure():
                throughputs = training.throughputs()
        with context.phase("saving"):
            writer.save_model(result.model, job.config(context.group.size))
            extra = {**extra_summary(), **_ranks_summary(context.group, writer.path, throughputs)}
        finisher = RunFinisher(job, loaded, result, training.events, writer, context)
        finisher.finish(training.checkpointer, {**extra, "trained_on_other_machine": job.is_mixed_environment})
        broadcast_run_finished(context.group, writer.path)


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
        command = f"timebox train --resume {shlex.quote(str(writer.path))}"
        raise RankFailureError(error.failed_ranks, [*error.lines, f"resume with {command}"]) from error
    except BaseException:
        if writer.close_unfinished():
            context.reporter.note(f"the model of the last checkpoint is kept in {str(writer.path)!r}")
        raise


def score_held_out(job: TrainingJob, model: nn.Module, context: RunContext) -> list[SplitScore]:
    """Score the val and test splits within the time planned for it; nothing where the job leaves scoring out."""
    if not job.request.scoring:
        return []
    time = ScoringTime(context.deadline, job.plan.scoring_seconds, job.plan.finish_seconds)
    return job.scorer(context.group).score_splits(model, job.held_out(), job.plan.recipe.tta, time)


class RunFinisher:
    """Scores a trained model whose weights are on disk, and writes predictions, report and summary.

    Args:
        events: lines about faults that the training survived, for the summary.
    Attributes:
        unwritten: names of the files that could not be written.
    """

    def __init__(
        self,
        job: TrainingJob,
        loaded: LoadedData,
        result: TrainingResult,
        events: Sequence[str],
        writer: RunWriter,
        context: RunContext,
    ) -> None:
        self._job, self._loaded, self._result, self._events = job, loaded, result, events
        self._writer, self._context = writer, context
        self.unwritten: list[str] = []

    def finish(self, checkpointer: AsyncCheckpointer, extra_summary: Mapping[str, object]) -> None:
        """Score, write predictions and report as far as time allows, then the summary."""
        job, context, writer = self._job, self._context, self._writer
        with context.phase("scoring"), context.group.raise_on_rank_failure():
            scores = score_held_out(job, self._result.model, context)
        with context.phase("saving"):
            if scores:
                self._write_optional(PREDICTIONS, lambda: writer.save_predictions(prediction_columns(scores)))
            checkpointer.wait(max(0.0, context.deadline.remaining() - job.plan.finish_seconds / 2))
            if checkpointer.has_failed:
                self.unwritten.append("a checkpoint")
        if self._is_time_for_report:
            with context.phase("reporting"):
                try:
                    self._write_report(scores, extra_summary)
                except Exception as error:  # a fault in the report must not cost the run
                    context.reporter.note(f"no report: {type(error).__name__}: {error}")
                    self.unwritten.append(REPORT)
        with context.deadline.phase("saving"):
            writer.save_summary(self._summary(scores, extra_summary))
            writer.finish()

    @property
    def _is_time_for_report(self) -> bool:
        """Whether enough time is left to write a report, and to exit after it."""
        plan, deadline = self._job.plan, self._context.deadline
        return self._job.request.scoring and deadline.remaining() > plan.finish_seconds - plan.saving_seconds

    def _write_report(self, scores: Sequence[SplitScore], extra_summary: Mapping[str, object]) -> None:
        summary = self._summary(scores, extra_summary)
        examples = self._examples(scores, summary.temperature) if self._job.request.thumbnails else []
        if examples:
            self._write_optional(EXAMPLES, lambda: self._writer.save_examples(columns_from_examples(examples)))
        facts = self._facts(to_values(summary), scores, examples)
        self._write_optional(REPORT, lambda: self._writer.save_report(report_page(facts)))

    def _examples(self, scores: Sequence[SplitScore], temperature: float | None) -> list[Example]:
        """Mistakes and unsure hits of the test split, else of val, and augmented training images."""
        job = self._job
        augmentation = build_augmentation(job.plan.recipe)
        return [
            *(
                one
                for score in scores[-1:]
                for one in prediction_examples(score.dataset, score.probabilities, temperature)
            ),
            *augmented_examples(job.data_splits.train, job.mean, job.std, augmentation, job.request.seed),
        ]

    def _facts(
        self, summary: Mapping[str, object], scores: Sequence[SplitScore], examples: Sequence[Example]
    ) -> RunData:
        self._writer.metrics.flush()
        return RunData(
            self._writer.out.resolve().name,
            summary,
            self._job.data_splits.train.class_names,
            downsampled_metrics(self._writer.path / METRICS, self._writer.metrics.num_lines),
            [SplitPredictions(score.split, score.dataset.labels, score.probabilities) for score in reversed(scores)],
            examples,
        )

    def _summary(self, scores: Sequence[SplitScore], extra_summary: Mapping[str, object]) -> FinishedSummary:
        """The summary at this moment. Writing it takes time too, which ``late`` estimates by the latest small file."""
        deadline = self._context.deadline
        is_late = deadline.remaining() < self._writer.write_seconds
        summary = self._job.summary(self._loaded, self._result, list(scores), list(self._events), deadline)
        return replace(summary, **extra_summary, unwritten=tuple(self.unwritten), late=is_late)

    def _write_optional(self, name: str, write: Callable[[], None]) -> None:
        """Write a file that the run can do without."""
        try:
            write()
        except OutputError as error:
            self._context.reporter.note(str(error))
            self.unwritten.append(name)


def _ranks_summary(group: ProcessGroup, run: Path, throughputs: Sequence[Throughput]) -> dict[str, object]:
    """The summary's values about ranks and rank failures; empty for a single process."""
    if not isinstance(group, TorchrunGroup):
        return {}
    ranks = tuple(
        RankSummary(**asdict(rank), **asdict(throughput))
        for rank, throughput in zip(group.ranks, throughputs, strict=True)
    )
    record = read_ranks_record(run)
    return {"ranks": ranks, "rank_failures": record.failures if record else ()}
