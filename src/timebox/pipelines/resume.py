"""Going on with a run that was cut off, and repeating one that was finished."""

from dataclasses import replace
from math import ceil
from pathlib import Path

from timebox.clock import Deadline, format_duration
from timebox.data import DataSplits, LoadedData, image_hashes
from timebox.distributed.process_group import ProcessGroup
from timebox.errors import BudgetError, DataError, RunError, UsageError
from timebox.jobs.config import TrainConfig
from timebox.jobs.data import DataConfig, DatasetReader
from timebox.jobs.fit import keep_partial_run, run_job
from timebox.jobs.initial_weights import InitialWeights
from timebox.jobs.job import TrainingJob, sha256_of
from timebox.jobs.main_rank import StartedRun, save_ranks_record
from timebox.jobs.messages import broadcast_read_data
from timebox.planning.batch_size import fit_batch_to_processes
from timebox.planning.plan import Plan
from timebox.planning.planner import FINAL_SCORING_SHARE
from timebox.reporter import Reporter
from timebox.run.checkpoint import Checkpoint
from timebox.run.files import CONFIG, METRICS, MODEL, SUMMARY
from timebox.run.json_values import from_values, to_values
from timebox.run.metrics_log import final_step_plans, read_metrics
from timebox.run.model_config import Machine, TrainedModelConfig, installed_versions
from timebox.run.ranks_file import read_ranks_record
from timebox.run.run import Run
from timebox.run.writer import RunWriter
from timebox.runtime.device import resolve_device
from timebox.runtime.threads import cap_threads

# Starting Python and torch and reading the data again takes up to about this long.
START_UP_SECONDS = 5.0


class ExistingRun:
    """A run that exists, with what is needed to train it on or again.

    Args:
        path: its directory.
        data: where its data lie now; None for where they lay then.
    Raises:
        RunError: where there is no such run, or its model.json is damaged.
    """

    def __init__(
        self, path: Path, data: str | None, reader: DatasetReader, deadline: Deadline, reporter: Reporter
    ) -> None:
        self._run = Run(path)
        self._path, self._reader, self._deadline, self._reporter = path, reader, deadline, reporter
        source = DataConfig.of_run(self._run.config, path)
        self._source = source if data is None else replace(source, data=data)
        self._config = from_values(self._run.config, TrainedModelConfig, repr(str(path / CONFIG)))
        self._plan = self._config.plan.plan(self._run.recipe)
        self._request = _request(self._source, self._config)
        self.device = resolve_device(self._plan.device.type)

    @property
    def _is_finished(self) -> bool:
        return bool(self._run.summary) and not self._run.summary.get("stopped")

    def resume(self, group: ProcessGroup, new_budget: bool) -> Run:
        """Go on from the last checkpoint.

        Args:
            group: who trains together; this process leads them.
            new_budget: whether the deadline brings a budget of its own; else the run's is taken up where it was left.
        """
        if self._is_finished:
            raise RunError(f"run {str(self._path)!r} is finished: there is nothing to resume")
        if new_budget and self._plan.num_steps is not None:
            raise UsageError(f"run {str(self._path)!r} counts steps: resume it without a budget")
        checkpoint = self._run.checkpoint()
        if not new_budget:
            self._take_up_budget(checkpoint)
        record = read_ranks_record(self._path)
        return self._go_on_from(checkpoint, group, record.failures if record else ())

    def go_on(self, group: ProcessGroup, started: StartedRun) -> Run:
        """Go on, under the same deadline, where the group was when it lost a process."""
        if self._is_finished:
            group.broadcast(self._path)
            return self._run
        self._reporter.note(
            f"started again after {started.record.failures[-1] if started.record.failures else 'a failure'}"
        )
        return self._go_on_from(self._run.checkpoint(), group, started.record.failures)

    def _go_on_from(self, checkpoint: Checkpoint, group: ProcessGroup, lost: tuple[str, ...]) -> Run:
        fit_batch_to_processes(self._plan.recipe, group.size, 0.0, 0, batch_fixed=True)
        if self._config.machine.processes == group.size:
            cap_threads(self._plan.threads)
        loaded, data_splits = self._read(group)
        plan = self._plan_for_the_rest(checkpoint)
        writer = RunWriter.resumed(self._path, checkpoint.resume_state.metrics_lines, checkpoint.step)
        self._reporter.note(f"going on from step {checkpoint.step}, {checkpoint.progress:.0%} of the schedule")
        with keep_partial_run(writer, self._deadline, self._reporter, group):
            (self._path / SUMMARY).unlink(missing_ok=True)
            save_ranks_record(group, self._path, self._deadline, lost)
            job = TrainingJob.of(self._request, plan, data_splits, self._deadline.budget_seconds)
            run_job(
                job,
                loaded,
                writer,
                self._deadline,
                self._reporter,
                group,
                checkpoint,
                elsewhere=checkpoint.resume_state.trained_on_other_machine or bool(self._differences(group)),
                extra_summary=lambda: {"resumed_at_step": checkpoint.step},
            )
        return Run(writer.path)

    def replay(self, group: ProcessGroup, out: Path, overwrite: bool) -> Run:
        """Take the steps of a finished run again, into a directory of its own, and compare the weights."""
        if not self._is_finished:
            raise RunError(f"run {str(self._path)!r} is not finished: resume it first, then replay it")
        cap_threads(self._plan.threads)
        self._check_alike(group)
        entries = (entry for _, entry in read_metrics(self._path / METRICS))
        step_plans = final_step_plans(entries, self._path)
        loaded, data_splits = self._read(group)
        plan = replace(
            self._plan, num_steps=len(step_plans), step_seconds=0.0, scoring_seconds=float("inf"), finish_seconds=0.0
        )
        writer = RunWriter.new(out, overwrite)

        def compared() -> dict[str, object]:
            identical = (writer.path / MODEL).read_bytes() == (self._path / MODEL).read_bytes()
            alike = "the same, byte for byte" if identical else "NOT the same"
            self._reporter.note(f"the weights are {alike} as those of {str(self._path)!r}")
            return {"replay_of": str(self._path), "identical": identical}

        with keep_partial_run(writer, self._deadline, self._reporter, group):
            save_ranks_record(group, writer.path, self._deadline)
            writer.save_training_hashes(image_hashes(data_splits.train.images))
            job = TrainingJob.of(self._request, plan, data_splits, None, self._initial())
            run_job(
                job,
                loaded,
                writer,
                self._deadline,
                self._reporter,
                group,
                step_plans=step_plans,
                extra_summary=compared,
            )
        return Run(writer.path)

    def _initial(self) -> InitialWeights | None:
        """The weights that the run began with. Raises RunError where they are not what they were."""
        if self._request.init is None:
            return None
        initial = InitialWeights.read(Path(self._request.init))
        if initial.sha256 != self._config.training.init_sha256:
            raise RunError(f"{self._request.init!r} has other weights than those the run began with")
        return initial

    def _take_up_budget(self, checkpoint: Checkpoint) -> None:
        """Count what was used up to the checkpoint; the gap between the two processes is free."""
        phases, budget = checkpoint.resume_state.phases, checkpoint.resume_state.budget_seconds
        if self._plan.num_steps is None:
            if budget is None or phases is None:
                raise RunError(f"the checkpoint of {str(self._path)!r} does not tell what time was left: give a budget")
            self._deadline.budget_seconds = budget
        if phases is not None:
            self._deadline.add_earlier_phases({name: seconds for name, seconds in phases.items() if seconds >= 0})

    def _plan_for_the_rest(self, checkpoint: Checkpoint) -> Plan:
        """The run's plan, at the speed last seen. Raises BudgetError where the time left is too short."""
        plan, budget = self._plan, self._deadline.budget_seconds
        if plan.num_steps is not None or budget is None:
            return plan
        plan = replace(
            plan,
            step_seconds=checkpoint.resume_state.step_seconds or plan.step_seconds,
            scoring_seconds=min(plan.scoring_seconds, FINAL_SCORING_SHARE * budget),
        )
        missing = plan.reserve_seconds + plan.scoring_seconds - self._deadline.remaining()
        if missing > 0:
            smallest = ceil(1.1 * (plan.reserve_seconds + plan.scoring_seconds) + START_UP_SECONDS)
            left = format_duration(max(self._deadline.remaining(), 0.0))
            raise BudgetError(
                f"{left} left of {format_duration(budget)} are too short to bring the schedule to its end; "
                f"give a new budget of at least {smallest}s"
            )
        return plan

    def _read(self, group: ProcessGroup) -> tuple[LoadedData, DataSplits]:
        self._reporter.phase("reading")
        with self._deadline.phase("reading"):
            height, width, _ = self._run.preprocessing.image_shape
            side = self._run.recipe.image_size or None
            self._reader.largest_side = lambda num_images: max(height, width)
            loaded, data_splits = self._reader.divided(self._source, side, self._run.recipe.image_fit)
            if data_splits.train.image_shape != self._run.preprocessing.image_shape or not self._same(data_splits):
                raise DataError(
                    f"{self._source.data!r} does not hold the {height}x{width} training images that run "
                    f"{str(self._path)!r} was begun with"
                )
            broadcast_read_data(group, self._source, side, self._run.recipe.image_fit, data_splits)
        return loaded, data_splits

    def _same(self, data_splits: DataSplits) -> bool:
        return sha256_of(data_splits.train) == self._config.training.data_sha256

    def _check_alike(self, group: ProcessGroup) -> None:
        """Refuse a replay that could not give the same weights, with the reason."""
        differing = self._differences(group)
        if self._run.summary.get("trained_on_other_machine"):
            differing.append("a part of it was trained elsewhere")
        if differing:
            raise RunError(f"run {str(self._path)!r} cannot be repeated here: {'; '.join(differing)}")

    def _differences(self, group: ProcessGroup) -> list[str]:
        """In what this machine and its versions differ from those the run was begun with."""
        recorded = {**to_values(self._config.machine), **self._config.versions}
        present = {**to_values(Machine.current(self._plan.device, group.size)), **installed_versions()}
        return [
            f"{name} {recorded.get(name)!r} there, {value!r} here"
            for name, value in present.items()
            if recorded.get(name) != value
        ]


def _request(source: DataConfig, config: TrainedModelConfig) -> TrainConfig:
    """The arguments that the run was trained with, its data in ``source``."""
    training = config.training
    return TrainConfig(
        source,
        training.recipe,
        training.settings,
        config.seed,
        training.precision,
        training.num_steps,
        training.scoring,
        training.thumbnails,
        training.init,
    )
