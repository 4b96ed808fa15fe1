"""``timebox train --replay``: train a finished run again, step by step, and compare the weights."""

from dataclasses import replace
from math import inf
from pathlib import Path

from timebox.data import image_hashes
from timebox.errors import RunError
from timebox.files import open_regular
from timebox.jobs.context import RunContext
from timebox.jobs.data import DatasetReader
from timebox.jobs.existing_run import ExistingRun
from timebox.jobs.initial_weights import InitialWeights
from timebox.jobs.job import TrainingJob
from timebox.jobs.pretrained import restore_pretrained
from timebox.jobs.run_job import keep_partial_run, run_job
from timebox.machine import available_threads
from timebox.run.files import METRICS, MODEL
from timebox.run.metrics_log import final_step_plans, read_metrics
from timebox.run.ranks_file import save_ranks_record
from timebox.run.run import Run
from timebox.run.writer import RunWriter
from timebox.runtime.threads import cap_threads

_BLOCK_BYTES = 1 << 20


def replay(existing: ExistingRun, reader: DatasetReader, context: RunContext, out: Path | None, overwrite: bool) -> Run:
    """Train a finished run again with its recorded step plans, and compare the weights byte for byte.

    Args:
        out: the new run's directory; None for one in ``runs/``.
    Raises RunError where the run is not finished, or this machine and its versions could not give the same weights.
    """
    if not existing.is_finished:
        raise RunError(f"run {str(existing.path)!r} is not finished: resume it first, then replay it")
    cap_threads(existing.plan.threads)
    reasons = existing.differences(context.group.size)
    if existing.run.summary.get("trained_on_other_machine"):
        reasons.append("a part of it was trained on another machine or with other versions")
    step_plans = final_step_plans((entry for _, entry in read_metrics(existing.path / METRICS)), existing.path)
    most_threads = max(step_plan.threads or 1 for step_plan in step_plans)
    if most_threads > available_threads():
        reasons.append(f"some of its steps had {most_threads:,} threads, and {available_threads()} are available")
    if reasons:
        raise RunError(f"run {str(existing.path)!r} cannot be repeated here: {'; '.join(reasons)}")
    loaded, data_splits = existing.read_data(reader, context)
    plan = replace(existing.plan, num_steps=len(step_plans), step_seconds=0.0, scoring_seconds=inf, finish_seconds=0.0)
    writer = RunWriter.new(out, overwrite) if out else RunWriter.new_in_runs(f"{existing.path.name}-replay")

    def compare_weights() -> dict[str, object]:
        identical = _same_content(writer.path / MODEL, existing.path / MODEL)
        result = "identical to" if identical else "NOT identical to"
        context.reporter.note(f"the weights are {result} those of {str(existing.path)!r}")
        return {"replay_of": str(existing.path), "identical": identical}

    with keep_partial_run(writer, context):
        save_ranks_record(context.group, writer.path, context.deadline)
        writer.save_training_hashes(image_hashes(data_splits.train.images))
        pretrained = restore_pretrained(existing.run, existing.config, data_splits, context.deadline)
        initial = _read_initial_weights(existing)
        job = TrainingJob(existing.config, plan, data_splits, initial, pretrained, step_plans=step_plans)
        run_job(job, loaded, writer, context, compare_weights)
    return Run(writer.path)


def _same_content(written: Path, recorded: Path) -> bool:
    """Whether two files are the same, byte for byte. Raises RunError where the second cannot be read."""
    try:
        with open_regular(written) as one, open_regular(recorded, follow=False) as other:
            while (block := one.read(_BLOCK_BYTES)) == other.read(_BLOCK_BYTES):
                if not block:
                    return True
        return False
    except OSError as error:
        raise RunError(f"{str(recorded)!r} cannot be read: {error}") from error


def _read_initial_weights(existing: ExistingRun) -> InitialWeights | None:
    """The weights that the run started from. Raises RunError where their file has changed."""
    if existing.config.initial_run is None:
        return None
    initial = InitialWeights.read(Path(existing.config.initial_run))
    if initial.sha256 != existing.recorded.training.init_sha256:
        raise RunError(f"{existing.config.initial_run!r} has other weights than those the run started from")
    return initial
