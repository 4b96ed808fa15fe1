"""What follows a training: scoring, what is kept of it, the report and the summary, as far as the time reaches."""

from collections.abc import Callable, Mapping, Sequence

from msgspec.structs import replace

from timebox.builders import build_augmentation
from timebox.clock import Deadline
from timebox.data import LoadedData
from timebox.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from timebox.errors import OutputError
from timebox.jobs.examples import augmented_examples, example_columns, scored_examples
from timebox.jobs.job import SplitScore, TrainingJob, prediction_columns
from timebox.reporter import Reporter
from timebox.reporting import Example, RunFacts, Scored, report_page
from timebox.run.files import EXAMPLES, METRICS, PREDICTIONS, REPORT
from timebox.run.json_values import to_values
from timebox.run.metrics_log import downsampled_metrics
from timebox.run.summary import FinishedSummary
from timebox.run.writer import RunWriter
from timebox.training.checkpointer import AsyncCheckpointer
from timebox.training.loop import TrainingResult


class Finish:
    """Brings a run whose model is on disk to its end.

    Attributes:
        unwritten: what could not be written.
    """

    def __init__(
        self,
        job: TrainingJob,
        loaded: LoadedData,
        trained: TrainingResult,
        events: Sequence[str],
        writer: RunWriter,
        deadline: Deadline,
        reporter: Reporter,
        group: ProcessGroup = SINGLE_PROCESS,
    ) -> None:
        self._job, self._loaded, self._trained, self._events = job, loaded, trained, events
        self._writer, self._deadline, self._reporter = writer, deadline, reporter
        self._group = group
        self.unwritten: list[str] = []

    def run(self, checkpointer: AsyncCheckpointer, extra_summary: Mapping[str, object]) -> None:
        """Score, keep, report, sum up.

        Args:
            keeper: whose last checkpoint is waited for.
            remarks: what else the summary says.
        """
        job, deadline, writer = self._job, self._deadline, self._writer
        self._reporter.phase("scoring")
        with deadline.phase("scoring"), self._group.raise_on_rank_failure():
            scores = job.score(self._trained.model, deadline, self._group)
        self._reporter.phase("saving")
        with deadline.phase("saving"):
            if scores:
                self._kept(PREDICTIONS, lambda: writer.save_predictions(prediction_columns(scores)))
            checkpointer.wait(max(0.0, deadline.remaining() - job.plan.finish_seconds / 2))
            if checkpointer.has_failed:
                self.unwritten.append("a checkpoint")
        if self._is_time_for_report:
            self._reporter.phase("reporting")
            with deadline.phase("reporting"):
                try:
                    self._report(scores, extra_summary)
                except Exception as error:  # the run is worth more than its page
                    self._reporter.note(f"no report: {type(error).__name__}: {error}")
                    self.unwritten.append(REPORT)
        with deadline.phase("saving"):
            writer.save_summary(self._summary(scores, extra_summary))
            writer.finish()

    @property
    def _is_time_for_report(self) -> bool:
        """It is the first to be dropped: what leaving takes must be left after it."""
        plan = self._job.plan
        return self._job.request.scoring and self._deadline.remaining() > plan.finish_seconds - plan.saving_seconds

    def _report(self, scores: Sequence[SplitScore], extra_summary: Mapping[str, object]) -> None:
        summary = self._summary(scores, extra_summary)
        examples = self._examples(scores, summary.temperature) if self._job.request.thumbnails else []
        if examples:
            self._kept(EXAMPLES, lambda: self._writer.save_examples(example_columns(examples)))
        self._kept(
            REPORT, lambda: self._writer.save_report(report_page(self._facts(to_values(summary), scores, examples)))
        )

    def _examples(self, scores: Sequence[SplitScore], temperature: float | None) -> list[Example]:
        job = self._job
        shown = [] if not scores else [scores[-1]]  # test, where there is one
        mean, std, augmentation = job.mean, job.std, build_augmentation(job.plan.recipe)
        return [
            *(one for score in shown for one in scored_examples(score.dataset, score.probabilities, temperature)),
            *augmented_examples(job.data_splits.train, mean, std, augmentation, job.request.seed),
        ]

    def _facts(
        self, summary: Mapping[str, object], scores: Sequence[SplitScore], examples: Sequence[Example]
    ) -> RunFacts:
        self._writer.metrics.flush()
        return RunFacts(
            self._writer.out.resolve().name,
            summary,
            self._job.data_splits.train.class_names,
            downsampled_metrics(self._writer.path / METRICS, self._writer.metrics.num_lines),
            [Scored(score.split, score.dataset.labels, score.probabilities) for score in reversed(scores)],
            examples,
        )

    def _summary(self, scores: Sequence[SplitScore], extra_summary: Mapping[str, object]) -> FinishedSummary:
        """It says when it was made, but not how long writing it takes."""
        late = self._deadline.remaining() < self._writer.write_seconds
        figures = self._job.summary(self._loaded, self._trained, list(scores), list(self._events), self._deadline)
        return replace(figures, **extra_summary, unwritten=tuple(self.unwritten), late=late)

    def _kept(self, name: str, write: Callable[[], None]) -> None:
        """Write a file that the run can do without."""
        try:
            write()
        except OutputError as error:
            self._reporter.note(str(error))
            self.unwritten.append(name)
