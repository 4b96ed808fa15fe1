"""Going on with a run that was cut off, and repeating one that was finished."""

from collections.abc import Mapping
from dataclasses import replace
from math import ceil
from pathlib import Path

from timebox.clock import Deadline, format_duration
from timebox.configs.data import DataConfig
from timebox.configs.train import TrainConfig
from timebox.data import DataSplits, LoadedData, image_hashes
from timebox.distributed.process_group import ProcessGroup
from timebox.errors import BudgetError, DataError, RunError, UsageError
from timebox.jobs.data import DatasetReader
from timebox.jobs.fit import keep_partial_run, run_job
from timebox.jobs.initial_weights import InitialWeights
from timebox.jobs.job import TrainingJob, machine, sha256_of, versions
from timebox.jobs.main_rank import StartedRun, save_ranks_record
from timebox.jobs.messages import broadcast_read_data
from timebox.planning.batch_size import fit_batch_to_processes
from timebox.planning.plan import Plan
from timebox.planning.planner import FINAL_SCORING_SHARE
from timebox.reporter import Reporter
from timebox.run.checkpoint import Checkpoint
from timebox.run.files import METRICS, MODEL, SUMMARY
from timebox.run.metrics_log import read_metrics, step_plans_taken
from timebox.run.ranks_file import read_ranks_record
from timebox.run.run import Run, mapping
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
        self._source = source if data is None else source.replace(data=data)
        try:
            training = mapping(self._run.config.get("training"))
            self._plan = Plan.from_dict(mapping(self._run.config.get("plan")), self._run.recipe)
            self._config = TrainConfig.of_run(self._source, training, self._run.config.get("seed"))
            self._data_sha256 = training.get("data_sha256")
        except (TypeError, ValueError) as error:
            raise RunError(f"model.json of {str(path)!r} is damaged: {error}") from error
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
        return self._go_on_from(checkpoint, group, record.lost if record else ())

    def go_on(self, group: ProcessGroup, started: StartedRun) -> Run:
        """Go on, under the same deadline, where the group was when it lost a process."""
        if self._is_finished:
            group.broadcast(self._path)
            return self._run
        self._reporter.note(f"started again after {started.record.lost[-1] if started.record.lost else 'a failure'}")
        return self._go_on_from(self._run.checkpoint(), group, started.record.lost)

    def _go_on_from(self, checkpoint: Checkpoint, group: ProcessGroup, lost: tuple[str, ...]) -> Run:
        fit_batch_to_processes(self._plan.recipe, group.size, 0.0, 0, batch_fixed=True)
        if mapping(self._run.config.get("machine")).get("processes", 1) == group.size:
            cap_threads(self._plan.threads)
        loaded, data_splits = self._read(group)
        plan = self._plan_for_the_rest(checkpoint)
        writer = RunWriter.resumed(self._path, _count(checkpoint.facts.get("metrics_lines")), checkpoint.step)
        self._reporter.note(f"going on from step {checkpoint.step}, {checkpoint.progress:.0%} of the schedule")
        with keep_partial_run(writer, self._deadline, self._reporter, group):
            (self._path / SUMMARY).unlink(missing_ok=True)
            save_ranks_record(group, self._path, self._deadline, lost)
            job = TrainingJob.of(self._config, plan, data_splits, self._deadline.budget_seconds)
            run_job(
                job,
                loaded,
                writer,
                self._deadline,
                self._reporter,
                group,
                checkpoint,
                elsewhere=bool(checkpoint.facts.get("elsewhere")) or bool(self._differences(group)),
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
        step_plans = step_plans_taken(entries, self._path)
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
            job = TrainingJob.of(self._config, plan, data_splits, None, self._initial())
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
        if self._config.init is None:
            return None
        initial = InitialWeights.read(Path(self._config.init))
        if initial.sha256 != mapping(self._run.config.get("training")).get("init_sha256"):
            raise RunError(f"{self._config.init!r} has other weights than those the run began with")
        return initial

    def _take_up_budget(self, checkpoint: Checkpoint) -> None:
        """Count what was used up to the checkpoint; the gap between the two processes is free."""
        phases, budget = checkpoint.facts.get("phases"), checkpoint.facts.get("budget_seconds")
        if self._plan.num_steps is None:
            if not isinstance(budget, int | float) or not isinstance(phases, dict):
                raise RunError(f"the checkpoint of {str(self._path)!r} does not tell what time was left: give a budget")
            self._deadline.budget_seconds = float(budget)
        if isinstance(phases, dict):
            self._deadline.add_earlier_phases(
                {str(name): seconds for name, seconds in phases.items() if isinstance(seconds, float) and seconds >= 0}
            )

    def _plan_for_the_rest(self, checkpoint: Checkpoint) -> Plan:
        """The run's plan, at the speed last seen. Raises BudgetError where the time left is too short."""
        plan, budget = self._plan, self._deadline.budget_seconds
        if plan.num_steps is not None or budget is None:
            return plan
        seconds = checkpoint.facts.get("step_seconds")
        plan = replace(
            plan,
            step_seconds=seconds if isinstance(seconds, float) and seconds > 0 else plan.step_seconds,
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
        return sha256_of(data_splits.train) == self._data_sha256

    def _check_alike(self, group: ProcessGroup) -> None:
        """Refuse a replay that could not give the same weights, with the reason."""
        differing = self._differences(group)
        if self._run.summary.get("elsewhere"):
            differing.append("a part of it was trained elsewhere")
        if differing:
            raise RunError(f"run {str(self._path)!r} cannot be repeated here: {'; '.join(differing)}")

    def _differences(self, group: ProcessGroup) -> list[str]:
        """In what this machine and its versions differ from those the run was begun with."""
        recorded = {
            "processes": 1,
            **mapping(self._run.config.get("machine")),
            **mapping(self._run.config.get("versions")),
        }
        present: Mapping[str, object] = {**machine(self._plan.device, group.size), **versions()}
        return [
            f"{name} {recorded.get(name)!r} there, {value!r} here"
            for name, value in present.items()
            if recorded.get(name) != value
        ]


def _count(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 0
