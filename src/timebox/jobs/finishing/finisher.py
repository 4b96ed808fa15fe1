"""Finishes a run whose weights are on disk: scores it, and writes predictions, report and summary."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from msgspec import UNSET
from numpy.typing import NDArray
from torch import nn

from timebox.clock import format_duration
from timebox.data import ImageDataset, LoadedData
from timebox.errors import OutputError
from timebox.evaluation.scoring import ScoringTime, SplitScore
from timebox.jobs.context import RunContext
from timebox.jobs.finishing.images import (
    augmented_examples_of,
    columns_from_examples,
    find_suspects,
    prediction_thumbnails,
    suspect_examples,
    suspects_at,
)
from timebox.jobs.fit import Training
from timebox.jobs.job import TrainingJob
from timebox.reporting import Example, RunData, SplitPredictions, report_page
from timebox.run.files import EXAMPLES, METRICS, PREDICTIONS, REPORT, SUSPECTS, THUMBNAILS
from timebox.run.json_values import to_values
from timebox.run.metrics_log import downsampled_metrics
from timebox.run.model_config import installed_versions
from timebox.run.results.thumbnails import Thumbnails
from timebox.run.summary import (
    MAX_BAD_FILES,
    BlendSummary,
    DataDescription,
    FinishedSummary,
)
from timebox.run.writer import RunWriter
from timebox.runtime.device import device_name
from timebox.runtime.write_speed import WRITES_OF_THE_SUMMARY
from timebox.training.loop import TrainingResult


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
        summary, writer, has_images = self._summary(scores), self.writer, self.job.config.thumbnails
        predictions = [_split_predictions(score) for score in reversed(scores)]
        examples = [*self.suspects, *augmented_examples_of(self.job)] if has_images else []
        if examples:
            self._write_optional(EXAMPLES, lambda: writer.save_examples(columns_from_examples(examples)))
        writer.metrics.flush()
        run_data = RunData(
            writer.out.resolve().name,
            to_values(summary),
            self.job.data_splits.train.class_names,
            downsampled_metrics(writer.path / METRICS, writer.metrics.num_lines),
            predictions,
            examples,
            str(self.job.config.source.data),
            self._write_thumbnails(scores[-1].dataset, predictions[0]) if scores and has_images else None,
            has_images,
        )
        self._write_optional(REPORT, lambda: writer.save_report(report_page(run_data)))

    def _write_thumbnails(self, dataset: ImageDataset, predictions: SplitPredictions) -> Thumbnails | None:
        """Write thumbnails of the images with these predictions, in half of the time that is left over; the thumbnails.

        None where the disk is too slow for them.
        """
        deadline, closing_seconds = self.context.deadline, self.job.plan.closing_seconds
        needed_seconds = closing_seconds + self._files_seconds(3)
        half = (deadline.remaining() - needed_seconds) / 2
        thumbnails = prediction_thumbnails(dataset, predictions, lambda: deadline.remaining() - needed_seconds >= half)
        # The report has them once more, in base64.
        num_bytes = int(2.4 * thumbnails.num_bytes)
        if not self._is_time_for(THUMBNAILS, self._files_seconds(2, num_bytes), closing_seconds):
            return None
        self._write_optional(THUMBNAILS, lambda: self.writer.save_thumbnails(thumbnails.columns()))
        return thumbnails

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


def _split_predictions(score: SplitScore) -> SplitPredictions:
    return SplitPredictions(score.split, score.dataset.labels, score.probabilities, np.array(score.dataset.ids))


def prediction_columns(scores: Sequence[SplitScore]) -> dict[str, NDArray[np.generic]]:
    """The columns of predictions.npz, a row for each scored image."""
    return {
        "split": np.concatenate([np.full(len(score.dataset), score.split) for score in scores]),
        "id": np.array([name for score in scores for name in score.dataset.ids]),
        "label": np.concatenate([score.dataset.labels for score in scores]),
        "probabilities": np.concatenate([score.probabilities for score in scores]),
    }
