"""Carry out a training job: train, save, and finish the run directory."""

import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

from timebox.callbacks.events import PlanInfo
from timebox.custom import is_code
from timebox.data import ImageDataset, LoadedData
from timebox.distributed.process_group import ProcessGroup, TorchrunGroup
from timebox.errors import OutputError, RankFailureError, RunError
from timebox.jobs.context import RunContext
from timebox.jobs.finishing.finisher import RunFinisher
from timebox.jobs.finishing.images import augmented_examples_of
from timebox.jobs.fit import Training
from timebox.jobs.job import TrainingJob
from timebox.jobs.messages import broadcast_run_finished, broadcast_start_training
from timebox.paths import shell_quote
from timebox.reporting.rendering import data_uri
from timebox.run.ranks_file import read_ranks_record, record_rank_failures
from timebox.run.summary import (
    RankSummary,
    TrainingStatus,
)
from timebox.run.writer import RunWriter
from timebox.runtime.device import device_name
from timebox.training.data_parallel import Throughput


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
    examples = augmented_examples_of(job) if job and has_examples else []
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


def _ranks_summary(group: ProcessGroup, run: Path, throughputs: Sequence[Throughput]) -> dict[str, object]:
    """The summary's values about ranks and rank failures; empty for a single process."""
    if not isinstance(group, TorchrunGroup):
        return {}
    pairs, record = zip(group.ranks, throughputs, strict=True), None
    with suppress(RunError):  # it was damaged while the model was trained, which is whole
        record = read_ranks_record(run)
    ranks = tuple(RankSummary(**asdict(rank), **asdict(throughput)) for rank, throughput in pairs)
    return {"ranks": ranks, "rank_failures": record.failures if record else ()}
