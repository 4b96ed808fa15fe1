"""``timebox benchmark``: repeated, interleaved trials of recipes, and their statistics."""

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path

from timebox.benchmarking.config import (
    arguments_of,
    check_code,
    check_recipes,
    command,
    data_config,
    with_absolute_paths,
)
from timebox.benchmarking.directory import BenchmarkDirectory, BenchmarkFile, trial_values
from timebox.benchmarking.environment import environment
from timebox.benchmarking.summary import latest_trials, progress_line, summarise
from timebox.benchmarking.trials import CutOffError, FailedTrial, ScoredTrial, Trial, run_trial, schedule
from timebox.clock import Deadline, format_duration
from timebox.configs.benchmark import BenchmarkConfig
from timebox.configs.call import refuse_unknown_arguments
from timebox.errors import BudgetError, DataError, RunError, UsageError, option_text
from timebox.files import check_free
from timebox.jobs.data import DatasetReader
from timebox.paths import shell_quote
from timebox.progress import progress_lines
from timebox.recipes import AUTO
from timebox.run.directories.output import make_default_directory, resolve_link
from timebox.runtime.device import resolve_device

Record = Mapping[str, object]  # a line of trials.jsonl
# Options that may be given with `resume` and differ from the benchmark's own.
BESIDE_RESUME = ("resume", "budget", "keep_runs", "trust_code")
# Kept free before the benchmark's deadline, for the summary and for exiting.
RESERVE_SECONDS = 1.5
BUDGET, SIGNAL = "budget", "signal"  # reasons to stop before the last trial
REFUSED = 2  # exit status of a `timebox train` that was refused


@dataclass(frozen=True)
class Benchmark:
    """The result of a benchmark, finished or stopped.

    Attributes:
        path: the directory.
        summary: the content of summary.json.
        trials: the lines of trials.jsonl, failed trials included.
    """

    path: Path
    summary: Mapping[str, object]
    trials: Sequence[Record]


@refuse_unknown_arguments
def benchmark(
    data: str | Path | None = None,
    *,
    recipes: Sequence[str] = (AUTO,),
    seeds: int = 5,
    trial_budget: str | float | None = None,
    budget: str | float | None = None,
    settings: Sequence[str] = (),
    score: str = "val",
    tta: str = "recipe",
    val: str | Path | float | None = None,
    train_limit: int | None = None,
    split_seed: int = 0,
    coarse: bool = False,
    class_depth: int | None = None,
    data_dir: str | Path | None = None,
    max_bad_share: float = 0.1,
    device: str = "auto",
    precision: str = "auto",
    out: str | Path | None = None,
    resume: str | Path | None = None,
    keep_runs: bool = False,
    trust_code: bool = False,
    progress: bool = True,
    notify: Callable[[str], None] | None = None,
    on_trial: Callable[[Record], None] | None = None,
    deadline: Deadline | None = None,
) -> Benchmark:
    """Compare recipes in repeated trials, each a ``timebox train`` in a process of its own under a budget of its own.

    Trials are interleaved: a block is one seed, every recipe once, in an order that turns from block to block. All of a
    trial's budget goes into training; the images are scored afterwards, untimed and in full.

    Args:
        data: a path, or a name (``cifar10``, ``cifar100``, ``mnist``, ``digits``).
        recipes: each ``auto``, a built-in recipe or a TOML file, followed by settings of its own if need be:
            ``"haet2021 width=32 max_lr=0.4"``. The others are compared with the first.
        seeds: number of blocks; they are trained with the seeds 0, 1, 2, …
        trial_budget: the deadline of one training, seconds or text such as ``"60s"``.
        budget: the deadline of the whole benchmark; None to run all trials. A trial that could not end in time is not
            begun.
        settings: ``"FIELD=VALUE"`` texts that override every recipe.
        score: ``val``, to choose by, or ``test``, for a record: then all training images are trained on, and the
            data's own test split is scored.
        tta: ``recipe`` (as each recipe scores), ``none``, ``mirror``, ``shift`` or ``mirror_shift``.
        val: as of :func:`timebox.train`; by default ``"rest"`` where ``train_limit`` is given.
        train_limit, split_seed, coarse, class_depth, data_dir, max_bad_share, device, precision: as of
            :func:`timebox.train`.
        out: the benchmark's directory, new or empty. Default ``runs/benchmark-<data>-<date>-<time>``.
        resume: a benchmark that was stopped: runs the trials that are missing or failed. All other options are the
            benchmark's own; options given with ``resume`` must not contradict them.
        keep_runs: keep the model of every trial, under ``runs/`` in the directory.
        trust_code: whether to import code that recipe files name, or with ``resume`` the benchmark, see
            :func:`timebox.load`.
        progress: whether lines of progress are printed, where stderr is a terminal or the call comes from a notebook.
        notify: takes the lines in place of that. on_trial: takes the record of each trial once it is on disk.
        deadline: a clock already running, in place of ``budget``.
    Returns:
        The benchmark. Where Ctrl-C came after the first trial, as far as it came: its summary says ``stopped``.
    Raises:
        UsageError, BudgetError: for arguments that cannot work, before anything slow begins.
        DataError: for data that cannot be read, or have nothing to score. OutputError: for a directory that cannot be
        written to. RunError: for a benchmark that cannot be resumed.

    >>> import timebox
    >>> done = timebox.benchmark("photos", recipes=("auto",), seeds=1, trial_budget="20s", out="runs/bench")
    >>> done.summary["num_done"], done.summary["num_late"]
    (1, 0)
    """
    config = BenchmarkConfig.from_call(locals())
    deadline = deadline or Deadline.since_call(config.budget)
    notify = progress_lines(notify, progress)
    if config.resume is not None:
        directory = BenchmarkDirectory.existing(resolve_link(Path(config.resume)))
    else:
        directory = _begin(config, notify, deadline)
    try:
        if config.resume is not None:
            _refuse_contradictions(config, directory.config)
            check_code(directory.config.replace(trust_code=trust_code), is_new=False)
            _check_machine(directory)
            _check_data(directory.config, notify, deadline)
        return _BenchmarkRunner(directory, deadline, keep_runs, notify, on_trial or (lambda record: None)).run()
    except BaseException:
        directory.discard_if_empty()
        raise
    finally:
        directory.close()


def _begin(config: BenchmarkConfig, notify: Callable[[str], None], deadline: Deadline) -> BenchmarkDirectory:
    """Check recipes, data and budget, and make the directory of a new benchmark."""
    check_recipes(config)
    check_code(config, is_new=True)
    if config.out is not None:
        check_free(Path(config.out), "benchmark")
    device = resolve_device(config.device)
    config = with_absolute_paths(config)
    name = _check_data(config, notify, deadline)
    about = BenchmarkFile(
        started=time.strftime("%Y-%m-%dT%H:%M:%S"),
        data_name=name,
        environment=environment(device),
        command=command(config),
        arguments=arguments_of(config),
    )
    _check_budget(config, deadline)
    out = resolve_link(Path(config.out)) if config.out else make_default_directory(f"benchmark-{name}")
    return BenchmarkDirectory.new(out, about, is_claimed=not config.out)


class _BenchmarkRunner:
    """Runs the missing trials of a benchmark, one after the other."""

    def __init__(
        self,
        directory: BenchmarkDirectory,
        deadline: Deadline,
        keep_runs: bool,
        notify: Callable[[str], None],
        on_trial: Callable[[Record], None],
    ) -> None:
        self._directory, self._config, self._deadline = directory, directory.config, deadline
        self._keep_runs, self._notify, self._on_trial = keep_runs, notify, on_trial
        # Used until an evaluation has been measured: it takes at least the time of importing torch and reading data.
        self._first_evaluation_seconds = deadline.elapsed()

    def run(self) -> Benchmark:
        """Run trials as long as there is time, then write the summary."""
        missing = self._missing()
        num_done = self._num_trials - len(missing)
        done = f", {num_done} of them done before" if num_done else ""
        seconds = max(0.0, min(len(missing) * self._seconds_each, self._deadline.remaining()))
        noun = "trial" if self._num_trials == 1 else "trials"
        self._notify(
            f"{self._num_trials} {noun} of {self._config.trial_budget}{done}: "
            f"about {format_duration(seconds)}; they go to {self._directory.path}"
        )
        stopped = None
        try:
            for place, trial in enumerate(missing):
                if self._deadline.remaining() < self._seconds_each + RESERVE_SECONDS:
                    stopped = BUDGET
                    break
                self._run_trial(trial, num_done + place + 1)
        except CutOffError:
            stopped = BUDGET
        except KeyboardInterrupt:
            if not self._directory.trials:
                raise
            stopped = SIGNAL
        trials, about = self._directory.trials, self._directory.about
        summary = self._directory.save_summary(summarise(self._config, trials, about.command, self._deadline, stopped))
        if stopped:
            self._notify_how_to_resume(stopped)
        return Benchmark(self._directory.path, summary, tuple(map(trial_values, trials)))

    @property
    def _num_trials(self) -> int:
        return self._config.seeds * len(self._config.variants)

    @property
    def _seconds_each(self) -> float:
        """The time of one trial, training and scoring."""
        measured = [trial.evaluation_seconds for trial in self._directory.trials if isinstance(trial, ScoredTrial)]
        return self._config.trial_seconds + (max(measured, default=0.0) or self._first_evaluation_seconds)

    def _missing(self) -> list[Trial]:
        last = latest_trials(self._directory.trials)
        trials = schedule(self._config.variants, self._config.seeds)
        return [one for one in trials if not isinstance(last.get((one.variant.label, one.block)), ScoredTrial)]

    def _run_trial(self, trial: Trial, number: int) -> None:
        seconds_left = self._deadline.remaining() - RESERVE_SECONDS
        keep_at = self._directory.kept_run(trial) if self._keep_runs else None
        result = run_trial(self._config, trial, self._directory.in_flight, seconds_left, keep_at)
        values = self._directory.add(result)
        if isinstance(result, ScoredTrial):
            self._directory.save_recipe(trial.variant, result)
        seconds = min((self._num_trials - number) * self._seconds_each, self._deadline.remaining())
        width = max(len(variant.label) for variant in self._config.variants)
        self._notify(progress_line(result, number, self._num_trials, width, seconds))
        self._on_trial(values)
        self._refuse_where_all_are_refused()

    def _refuse_where_all_are_refused(self) -> None:
        """Raise UsageError where every training of the first block was refused: all others would be, too."""
        trials = self._directory.trials
        refused = [trial.failed for trial in trials if isinstance(trial, FailedTrial) and trial.status == REFUSED]
        if len(trials) == len(refused) == len(self._config.variants):
            trials.clear()  # nothing was measured
            raise UsageError(f"every recipe was refused: {max(refused, key=_named_seconds)}")

    def _notify_how_to_resume(self, stopped: str) -> None:
        reason = "the budget leaves no time for another trial" if stopped == BUDGET else "stopped"
        num_done = self._num_trials - len(self._missing())
        self._notify(
            f"{reason}: {num_done} of {self._num_trials} trials are done and kept; the others: "
            f"timebox benchmark --resume {shell_quote(self._directory.path)}"
        )


def _refuse_contradictions(config: BenchmarkConfig, recorded: BenchmarkConfig) -> None:
    """Raise UsageError for options that differ from those of the benchmark to resume."""
    absolute, differing = with_absolute_paths(config), []
    for name in config.changed_fields():
        if name in BESIDE_RESUME or (name != "out" and getattr(absolute, name) == getattr(recorded, name)):
            continue
        own = "" if name == "out" else f" (the benchmark's is {getattr(recorded, name)})"
        differing.append(f"{name} {getattr(config, name)}{own}")
    if differing:
        raise UsageError(
            f"{', '.join(differing)} cannot be given with resume: a benchmark goes on as it was begun; "
            f"a new {option_text('budget')} may be given"
        )


def _check_machine(directory: BenchmarkDirectory) -> None:
    """Raise RunError where this machine is not the one that the benchmark was begun on."""
    there, here = directory.about.environment, environment(resolve_device(directory.config.device))
    differing = [
        f"{name} {getattr(there, name)!r} there, {getattr(here, name)!r} here"
        for name in ("processor", "threads", "device")
        if getattr(there, name) != getattr(here, name)
    ]
    if differing:
        raise RunError(f"benchmark {str(directory.path)!r} cannot go on here: {'; '.join(differing)}")


def _check_data(config: BenchmarkConfig, notify: Callable[[str], None], deadline: Deadline) -> str:
    """Read the data once, so that errors show, and downloads are done, before the first trial; returns their name.

    Raises DataError or UsageError for data that cannot be read or split, or have nothing to score.
    """
    reader = DatasetReader(config.data_dir, config.max_bad_share, notify, deadline)
    source = data_config(config)
    loaded, data_splits = reader.read_splits(source if config.score == "val" else source.replace(test=None), None)
    if config.score == "test" and data_splits.test is None:
        raise DataError(f"{config.data!r} has no test split of its own to score; use {option_text('score', 'val')}")
    if config.score == "val" and data_splits.val is None:
        path = option_text("val", "PATH")
        raise DataError(f"{config.data!r} leaves no images to validate on: no class has two; give {path}")
    return loaded.name if config.train_limit is None else f"{loaded.name}-{config.train_limit}"


def _named_seconds(refusal: str) -> float:
    """The budget that a refusal says would do, in seconds; 0 for one that names none."""
    named = re.search(r"; use at least (\d+)s", refusal)
    return float(named[1]) if named else 0.0


def _check_budget(config: BenchmarkConfig, deadline: Deadline) -> None:
    """Raise BudgetError where the budget is too short for one block of trials."""
    num = len(config.variants)
    needed = num * (config.trial_seconds + deadline.elapsed()) + RESERVE_SECONDS
    if deadline.remaining() < needed:
        smallest = ceil(1.05 * (deadline.elapsed() + needed))
        raise BudgetError(
            f"budget {format_duration(deadline.budget_seconds or 0.0)} is too short for one block, that is {num} "
            f"{'trial' if num == 1 else 'trials'} of {config.trial_budget} with their scoring; use at least "
            f"{format_duration(smallest) if smallest % 60 else f'{smallest // 60}m'}"
        )
