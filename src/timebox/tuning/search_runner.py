"""Runs a search: trials by workers, repeats of the top trials, a check on all images, the final run."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from statistics import fmean

import optuna
from optuna.exceptions import OptunaError

from timebox.clock import Deadline, format_duration
from timebox.configs.storage_url import hide_passwords, is_url
from timebox.errors import OutputError, RunError, TimeboxError
from timebox.evaluation.metrics import standard_error
from timebox.file_versions import TUNE_SUMMARY_FORMAT
from timebox.machine import available_threads
from timebox.pipelines.train import train
from timebox.recipes import check_trial_code, parse_recipe
from timebox.reporting.search_page import tuning_page
from timebox.run.files import CHECKPOINT, to_json
from timebox.run.json_values import from_values, to_values
from timebox.run.run import Run
from timebox.tuning import study as studies
from timebox.tuning.directory import BEST, FINAL, PAGE, SUMMARY, Phase, RepeatedTrial, TuneDirectory
from timebox.tuning.outcome import (
    Candidate,
    CheckedAccuracy,
    FinalRun,
    SearchSummary,
    best_toml,
    candidates_of,
    importance_of,
    repeated_candidates,
    trial_text,
)
from timebox.tuning.space import Space
from timebox.tuning.study import SearchSpec, SearchTrial
from timebox.tuning.trial import DivergedError, Trainer
from timebox.tuning.worker import READING, SLACK_SECONDS, WorkerConfig, load_trainer
from timebox.tuning.worker_pool import WorkerPool

# Shares of the budget at which the phases end; the final run has the rest.
TRIALS_END, REPEATS_END, CHECK_END = 0.5, 0.65, 0.77
# Top trials that are trained again beside the starting recipe, and the number of seeds at most.
NUM_TOP_TRIALS, MAX_REPEATS = 3, 10
# For writing the page and ending the process.
RESERVE_SECONDS = 2.5
# Options of the search that the final run takes as they are.
FINAL_OPTIONS = (
    "test", "train_limit", "split_seed", "coarse", "class_depth", "group_by", "seed", "device", "precision",
)  # fmt: skip
_POLL_SECONDS, _SAVE_CLOCK_SECONDS = 0.2, 2.0


class SearchRunner:
    """Runs the phases of a search, without the trainings that its directory and its study already hold.

    Args:
        storage: path of the journal or URL of the database.
    """

    def __init__(
        self,
        directory: TuneDirectory,
        study: optuna.Study,
        spec: SearchSpec,
        storage: str,
        deadline: Deadline,
        notify: Callable[[str], None],
    ) -> None:
        self._directory, self._config, self._study, self._spec = directory, directory.config, study, spec
        self._deadline, self._notify, self._is_journal = deadline, notify, not is_url(storage)
        num_workers = self._config.workers
        self._worker_config = WorkerConfig.of(
            self._config,
            storage=storage,
            study=study.study_name,
            trust_code=True,  # the names of the study were checked, see tune.py
            num_threads=None if num_workers == 1 else max(1, available_threads() // num_workers),
        )
        self._notified = {trial.number for trial in self._finished_trials()}
        self._lines: list[SearchTrial] = []
        self._trainer: Trainer | None = None
        self._why = ""

    def run(self) -> tuple[Run, dict[str, object]]:
        """Run the search; returns the final run and the content of summary.json."""
        stopped = threading.Event()
        clock = threading.Thread(target=self._save_clock_until, args=(stopped,), daemon=True)
        clock.start()
        try:
            self._run_trials()
            start, *top_trials = candidates_of(self._study, NUM_TOP_TRIALS)
            winner = self._run_repeats(start, top_trials)
            if winner is not start:
                winner = self._check_on_all_images(start, winner)
            self._trainer = None  # frees its images for the final run
            self._notify(f"the winner: {winner.text}")
            importance = self._importance()
            run = self._run_final(winner)
            summary = TUNE_SUMMARY_FORMAT.numbered(to_values(self._summary(winner, run)))
            self._directory.write(SUMMARY, to_json(summary))
            trials, repeats = (list(map(to_values, lines)) for lines in (self._lines, self._directory.repeats))
            self._directory.write(PAGE, tuning_page(summary, trials, repeats, importance))
            return run, summary
        finally:
            stopped.set()
            clock.join()

    def _summary(self, winner: Candidate, run: Run) -> SearchSummary:
        states, repeats = [line.state for line in self._lines], self._directory.repeats
        final = {name: run.summary.get(name) for name in FinalRun.__struct_fields__}
        return SearchSummary(
            command=self._config.command,
            budget_seconds=self._config.budget_seconds,
            trial_budgets=self._spec.rungs,
            images_a_trial=self._spec.num_images,
            workers=self._config.workers,
            num_trials=len(states),
            num_complete=states.count("complete"),
            num_failed=states.count("failed"),
            winner=winner,
            best_trials=repeated_candidates(repeats),
            check=tuple(CheckedAccuracy(line.settings, line.accuracy) for line in repeats if line.phase == "check"),
            final=from_values(final, FinalRun, f"run {str(run.path)!r}"),
            recipe=run.recipe.as_dict(),
            why=self._why,
            elapsed_seconds=round(self._deadline.elapsed(), 3),
            late=self._deadline.late,
        )

    def _seconds_to(self, share: float) -> float:
        """Seconds until a share of the budget has elapsed."""
        return share * self._config.budget_seconds - self._deadline.elapsed()

    def _save_clock_until(self, stopped: threading.Event) -> None:
        while not stopped.wait(_SAVE_CLOCK_SECONDS):
            with suppress(OutputError):  # the main thread meets it too, with its next file
                self._directory.save_clock(self._deadline.elapsed())

    def _importance(self) -> dict[str, float]:
        try:
            return importance_of(self._study, Space.from_json(self._spec.space))
        except Exception as error:  # the final run matters more than a chart
            self._notify(f"importance of the fields is unknown: {error}")
            return {}

    def _run_trials(self) -> None:
        """Let workers run trials until half the budget has elapsed."""
        if self._seconds_to(TRIALS_END) < self._spec.rungs[0] + SLACK_SECONDS:
            self._record_trials()
            return
        self._spec = studies.set_end(self._study, self._spec, time.time() + self._seconds_to(TRIALS_END))
        first_number = len(self._study.get_trials(deepcopy=False))
        with self._directory.temporary_directory() as temporary:
            pool = WorkerPool(self._config.workers, self._worker_config, temporary, first_number)
            is_interrupted = True
            try:
                while pool.is_running and self._seconds_to(TRIALS_END) > 0:
                    time.sleep(_POLL_SECONDS)
                    with self._tolerate_storage_errors():
                        self._record_trials()
                        dead = pool.replace_dead(sum(line.state != "failed" for line in self._lines))
                        self._fail_orphans(dead, retry=True)
                is_interrupted = False
            finally:
                workers = pool.stop()
                with self._tolerate_storage_errors():
                    self._fail_orphans(workers, retry=is_interrupted)
                    self._record_trials()

    @contextmanager
    def _tolerate_storage_errors(self) -> Iterator[None]:
        """A database may be away for a while."""
        try:
            yield
        except OptunaError as error:
            reason = hide_passwords(" ".join(str(error).split()), self._worker_config.storage)
            self._notify(f"the storage does not answer: {reason}")

    def _fail_orphans(self, dead_workers: Sequence[str], retry: bool) -> None:
        for trial in studies.orphaned_trials(self._study, dead_workers, include_unclaimed=self._is_journal):
            studies.fail_trial(self._study, trial, retry)
            reason = "its worker died; the trial is run again" if retry else "stopped with its worker"
            self._notify(f"trial {trial.number}: {reason}")

    def _finished_trials(self) -> list[optuna.trial.FrozenTrial]:
        return [trial for trial in self._study.get_trials(deepcopy=False) if trial.state.is_finished()]

    def _record_trials(self) -> None:
        """Write and report the trials that have finished since the last call."""
        finished = self._finished_trials()
        if len(finished) == len(self._lines):
            return
        self._lines = [studies.trial_record(self._spec, trial) for trial in finished]
        for line in self._lines:
            if line.trial not in self._notified:
                self._notify(trial_text(line))
        self._notified = {trial.number for trial in finished}
        self._directory.save_trials(self._lines)

    def _run_repeats(self, start: Candidate, top_trials: Sequence[Candidate]) -> Candidate:
        """Train the starting recipe and the top trials with other seeds; returns the one with the best mean."""
        if not top_trials:
            return self._keep_start(start, "no other recipe was measured")
        trainer, trial_seconds = self._load_trainer().cut(self._spec.num_images), self._config.trial_seconds
        num_fitting = max(1, int(self._seconds_to(REPEATS_END) / (trial_seconds + SLACK_SECONDS)))
        partly_repeated = [one for one in top_trials if self._accuracies(one)]
        candidates = [start, *(partly_repeated or top_trials[: num_fitting - 1])]
        for repeat in range(1, MAX_REPEATS + 1):
            missing = [one for one in candidates if len(self._accuracies(one)) < repeat]
            if self._seconds_to(REPEATS_END) < len(missing) * (trial_seconds + SLACK_SECONDS):
                break
            for one in missing:
                self._repeat(trainer, one, "repeat", repeat, trial_seconds)
        accuracies = {one: self._accuracies(one) for one in candidates}
        if len(candidates) == 1 or not all(accuracies.values()):
            return self._keep_start(start, "there was no time to train the top trials again")
        for one in candidates:
            seeds = f"{len(accuracies[one])} seed{'s' if len(accuracies[one]) > 1 else ''}"
            self._notify(f"{fmean(accuracies[one]):.2%} on average over {seeds}: {one.text}")
        best = max(candidates, key=lambda one: (fmean(accuracies[one]), one is start))
        return self._keep_start(start, "no trial was better on average over seeds") if best is start else best

    def _keep_start(self, start: Candidate, why: str) -> Candidate:
        self._why = why
        self._notify(f"{why}: the final run uses the starting recipe")
        return start

    def _check_on_all_images(self, start: Candidate, winner: Candidate) -> Candidate:
        """Train both on all training images; returns the winner if it is ahead by one standard error or more."""
        trainer, repeats = self._load_trainer(), self._directory.repeats
        both = [one.settings for one in (start, winner)]
        checks = [line for line in repeats if line.phase == "check" and line.settings in both]
        if len(checks) < len(both):  # a check of one of them alone had another budget
            self._directory.repeats = [line for line in repeats if line.phase != "check"]
            seconds = self._seconds_to(CHECK_END) / 2 - SLACK_SECONDS
            if seconds < self._spec.rungs[0]:
                return self._keep_start(start, f"there was no time to check {winner.text} on all images")
            for one in (start, winner):
                self._repeat(trainer, one, "check", 1, seconds)
        (new,), (old,) = (self._accuracies(one, "check")[:1] for one in (winner, start))
        self._notify(f"on all {len(trainer.train_images):,} images: {new:.2%}; the starting recipe {old:.2%}")
        if new < old + standard_error(old, len(trainer.val_images)):
            return self._keep_start(start, "the best trial was not clearly better on all images")
        return winner

    def _load_trainer(self) -> Trainer:
        self._trainer = self._trainer or load_trainer(self._spec, self._worker_config)
        return self._trainer

    def _repeat(self, trainer: Trainer, one: Candidate, phase: Phase, repeat: int, seconds: float) -> None:
        """Train a candidate with another seed, and record the result."""
        spec = self._spec
        try:
            outcome = to_values(trainer.train(spec.recipe, (*spec.settings, *one.settings), repeat, seconds))
        except (DivergedError, TimeboxError, RuntimeError, MemoryError) as error:
            outcome = {"accuracy": 0.0, "reason": str(error)}
        line = RepeatedTrial(
            phase=phase,
            trial=one.trial,
            settings=one.settings,
            repeat=repeat,
            budget_seconds=round(seconds, 2),
            **outcome,  # type: ignore[arg-type]  # the fields of TrialResult
        )
        self._directory.repeats.append(line)
        self._directory.save_trials(self._lines)
        self._notify(f"{phase} {repeat} of {one.text}: {line.accuracy:.2%}")

    def _accuracies(self, one: Candidate, phase: Phase = "repeat") -> list[float]:
        """Accuracies of a candidate by seed."""
        repeats = self._directory.repeats
        return [line.accuracy for line in repeats if (line.phase, line.settings) == (phase, one.settings)]

    def _run_final(self, winner: Candidate) -> Run:
        """Train the winner on all images until the deadline, or resume a final run that was begun."""
        config, spec = self._config, self._spec
        settings = (*spec.settings, *winner.settings)
        check_trial_code(spec.recipe, settings)  # settings of trials come from the study
        toml = best_toml(parse_recipe(spec.recipe, settings))
        final, best = self._directory.path / FINAL, self._directory.path / BEST
        can_resume = (final / CHECKPOINT).exists() and self._directory.read(BEST) == toml.encode()
        self._directory.write(BEST, toml)
        seconds = self._deadline.remaining() - RESERVE_SECONDS
        self._notify(f"training on all images for {format_duration(seconds)}")
        options = config.arguments()
        reading = {name: options[name] for name in READING}
        if can_resume:
            with suppress(RunError):  # killed while it wrote its first checkpoint, or finished
                return train(config.data, resume=final, budget=seconds, progress=False, **reading)
        return train(
            config.data,
            recipe=str(best),
            val=config.val if spec.val_is_apart else "none",
            out=final,
            overwrite=True,
            deadline=Deadline(self._deadline.remaining() - RESERVE_SECONDS),
            progress=False,
            **{name: options[name] for name in FINAL_OPTIONS},
            **reading,
        )
