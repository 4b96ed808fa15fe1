"""``timebox train --resume``: continue a stopped run from its last checkpoint."""

from contextlib import nullcontext
from dataclasses import replace
from math import ceil

from timebox.clock import Deadline, format_duration
from timebox.errors import BudgetError, RunError, UsageError
from timebox.files.folders import Folder
from timebox.jobs.context import RunContext
from timebox.jobs.data import DatasetReader
from timebox.jobs.existing_run import ExistingRun
from timebox.jobs.job import TrainingJob
from timebox.jobs.messages import broadcast_run_finished
from timebox.jobs.pretrained import restore_pretrained
from timebox.jobs.run_job import keep_partial_run, run_job
from timebox.planning.batch_size import fit_batch_to_processes
from timebox.planning.budget import ELAPSED_MARGIN, FINAL_SCORING_SHARE
from timebox.planning.plan import Plan
from timebox.run.checkpoint import Checkpoint
from timebox.run.directories.own_files import check_no_links
from timebox.run.ranks_file import RestartedRun, read_ranks_record, save_ranks_record
from timebox.run.run import Run
from timebox.run.writer import RunWriter
from timebox.runtime.threads import cap_threads

# Starting Python and torch and reading the data again takes about this long, or as long as it took this time.
START_UP_SECONDS = 5.0


def resume(
    existing: ExistingRun, folder: Folder, reader: DatasetReader, context: RunContext, has_new_budget: bool
) -> Run:
    """Continue a stopped run from its last checkpoint.

    Args:
        folder: the directory of the run, locked.
        has_new_budget: whether the deadline has a budget of its own; else the rest of the run's budget is used.
    """
    if existing.is_finished:
        raise RunError(f"run {str(existing.path)!r} is finished: there is nothing to resume")
    if has_new_budget and existing.plan.num_steps is not None:
        raise UsageError(f"run {str(existing.path)!r} counts steps: resume it without a budget")
    check_no_links(folder)
    checkpoint = existing.run.checkpoint()
    if not has_new_budget:
        _restore_clock(existing, checkpoint, context.deadline)
    record = read_ranks_record(existing.path)
    return _resume_from(checkpoint, folder, existing, reader, context, record.failures if record else ())


def resume_after_restart(
    existing: ExistingRun, folder: Folder, restarted: RestartedRun, reader: DatasetReader, context: RunContext
) -> Run:
    """Continue the run of a group that ``torchrun`` restarted after a rank failure, under the first deadline.

    Args:
        folder: the directory of the run, locked.
    """
    if existing.is_finished:
        broadcast_run_finished(context.group, existing.path)
        return existing.run
    failures = restarted.record.failures
    context.reporter.note(f"restarted after {failures[-1] if failures else 'a failure'}")
    return _resume_from(existing.run.checkpoint(), folder, existing, reader, context, failures)


def _resume_from(
    checkpoint: Checkpoint,
    folder: Folder,
    existing: ExistingRun,
    reader: DatasetReader,
    context: RunContext,
    failures: tuple[str, ...],
) -> Run:
    """Read the data, plan the rest, train from a checkpoint and finish the run, whose directory is locked."""
    path, deadline, num_ranks = existing.path, context.deadline, context.group.size
    num_steps = existing.plan.num_steps
    if num_steps is not None and checkpoint.step > num_steps:
        raise RunError(
            f"run {str(path)!r} cannot be resumed: its plan has {num_steps:,} steps, and its checkpoint is at step "
            f"{checkpoint.step:,}: one of the two files was changed; train anew"
        )
    fit_batch_to_processes(existing.plan.recipe, num_ranks, 0.0, 0, is_fixed=True)
    if existing.recorded.machine.processes == num_ranks:
        cap_threads(existing.plan.threads)
    loaded, data_splits = existing.read_data(reader, context)
    with context.phase("features") if existing.run.pretrained else nullcontext():
        pretrained = restore_pretrained(existing.run, existing.config, data_splits, context.deadline)
    plan = _plan_rest(existing.plan, checkpoint, deadline)
    state = checkpoint.resume_state
    writer = RunWriter.resumed(folder, state.metrics_lines, checkpoint.step)
    context.reporter.note(f"resuming at step {checkpoint.step}, {checkpoint.progress:.0%} of the schedule")
    with keep_partial_run(writer, context):
        writer.remove_summary()
        save_ranks_record(context.group, path, deadline, failures)
        is_mixed = state.trained_on_other_machine or bool(existing.differences(num_ranks))
        job = TrainingJob(
            existing.config,
            plan,
            data_splits,
            pretrained=pretrained,
            checkpoint=checkpoint,
            is_mixed_environment=is_mixed,
        )
        run_job(job, loaded, writer, context, lambda: {"resumed_at_step": checkpoint.step})
    return Run(writer.path)


def _restore_clock(existing: ExistingRun, checkpoint: Checkpoint, deadline: Deadline) -> None:
    """Give a deadline the run's budget, less the time used up to the checkpoint: the time since is free."""
    phases, budget = checkpoint.resume_state.phases, checkpoint.resume_state.budget_seconds
    if existing.plan.num_steps is None:
        if budget is None or phases is None:
            raise RunError(f"the checkpoint of {str(existing.path)!r} does not record the time used: give a budget")
        deadline.budget_seconds = budget
    if phases is not None:
        deadline.add_earlier_phases({name: seconds for name, seconds in phases.items() if seconds >= 0})


def _plan_rest(plan: Plan, checkpoint: Checkpoint, deadline: Deadline) -> Plan:
    """The plan with the step time of the checkpoint, in which the network is trained and scored.

    Raises BudgetError where the time left is too short.
    """
    budget = deadline.budget_seconds
    if plan.num_steps is not None or budget is None:
        return plan
    step_seconds = checkpoint.resume_state.step_seconds or plan.step_seconds
    scoring_seconds = min(plan.scoring_seconds, FINAL_SCORING_SHARE * budget)
    expected_steps = max(plan.expected_steps, 1)
    plan = replace(plan, step_seconds=step_seconds, scoring_seconds=scoring_seconds, expected_steps=expected_steps)
    needed = plan.reserve_seconds + scoring_seconds
    if needed > deadline.remaining():
        left = format_duration(max(deadline.remaining(), 0.0))
        elapsed_seconds = deadline.elapsed() - deadline.earlier_seconds  # of this process
        start_up_seconds = max(START_UP_SECONDS, ELAPSED_MARGIN * elapsed_seconds)
        raise BudgetError(
            f"{left} left of {format_duration(budget)} are too short to complete the schedule; "
            f"give a new budget of at least {ceil(1.3 * needed + start_up_seconds)}s"
        )
    return plan
