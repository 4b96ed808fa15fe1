"""``timebox benchmark``: repeated, interleaved trials of recipes, and what they show."""

import inspect
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path

from timebox.benchmarking import environment
from timebox.benchmarking.config import Asked, absolute, absolute_recipe, budget_text
from timebox.benchmarking.directory import BenchmarkDirectory, latest
from timebox.benchmarking.summary import progress_line, summarise
from timebox.benchmarking.trials import CutOffError, Record, Trial, run_job, schedule
from timebox.clock import Deadline, format_duration, parse_budget
from timebox.data import parse_split_size
from timebox.errors import BudgetError, DataError, RunError, UsageError
from timebox.file_versions import BENCHMARK_TRIAL_FORMAT
from timebox.files import check_free
from timebox.jobs.data import DatasetReader, SplitSize
from timebox.recipe import AUTO
from timebox.runtime.device import resolve_device

# What may be given beside a benchmark that is resumed, whatever it was begun with.
BESIDE_RESUME = ("resume", "budget", "keep_runs", "notify", "on_trial", "deadline")
# Kept free of the benchmark's own deadline: for what the trials show, and for leaving.
RESERVE_SECONDS = 1.5
BUDGET, SIGNAL = "budget", "signal"  # what may stop a benchmark before its last trial
REFUSED = 2  # the status of a `timebox train` that was asked for what cannot be


@dataclass(frozen=True)
class Benchmark:
    """A benchmark as far as it came.

    Attributes:
        path: its directory. summary: what the trials show, as in summary.json.
        trials: a record for each trial, failed ones included, as in trials.jsonl.
    """

    path: Path
    summary: Mapping[str, object]
    trials: Sequence[Record]


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
    data_dir: str | Path | None = None,
    max_bad_share: float = 0.1,
    device: str = "auto",
    precision: str = "auto",
    out: str | Path | None = None,
    resume: str | Path | None = None,
    keep_runs: bool = False,
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
        train_limit, split_seed, coarse, data_dir, max_bad_share, device, precision: as of :func:`timebox.train`.
        out: the benchmark's directory, new or empty. Default ``runs/benchmark-<data>-<date>-<time>``.
        resume: a benchmark that was stopped: does the trials that are missing or failed. All else is the benchmark's
            own; what is given beside must not contradict it.
        keep_runs: keep the model of every trial, under ``runs/`` in the directory.
        tell: takes lines of progress. on_trial: takes the record of each trial once it is on disk.
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
    arguments = dict(locals())
    if deadline is None:
        deadline = Deadline(None if budget is None else parse_budget(budget))
    notify = notify or (lambda line: None)
    if resume is not None:
        directory = BenchmarkDirectory.existing(Path(resume))
    else:
        asked = _asked(arguments)
        asked.check()
        if out is not None:
            check_free(Path(out), "benchmark")
        training_device = resolve_device(device)
        name = _check_data(asked, notify, deadline)
        about = {
            "started": time.strftime("%Y-%m-%dT%H:%M:%S"),
            "data_name": name,
            "environment": environment.environment(training_device),
        }
        _check_budget(asked, deadline)
        directory = BenchmarkDirectory.new(Path(out) if out else _default_out(name), asked, about)
    try:
        if resume is not None:
            _refuse_contradictions(arguments, directory.asked)
            _check_machine(directory)
            _check_data(directory.asked, notify, deadline)
        return _Conductor(directory, deadline, keep_runs, notify, on_trial or (lambda record: None)).run()
    except BaseException:
        directory.forget()
        raise
    finally:
        directory.close()


class _Conductor:
    """Runs what is missing of a benchmark, one trial after the other."""

    def __init__(
        self,
        directory: BenchmarkDirectory,
        deadline: Deadline,
        keep_runs: bool,
        notify: Callable[[str], None],
        on_trial: Callable[[Record], None],
    ) -> None:
        self._directory, self._asked, self._deadline = directory, directory.asked, deadline
        self._keep_runs, self._notify, self._on_trial = keep_runs, notify, on_trial
        # Until one has been measured: starting Python and torch and reading the data is what scoring takes at least.
        self._first_evaluation_seconds = deadline.elapsed()

    def run(self) -> Benchmark:
        """Trial after trial, as far as the time goes; then what they show."""
        missing = self._missing()
        num_kept = self._num_trials - len(missing)
        kept = f", {num_kept} of them kept" if num_kept else ""
        seconds = max(0.0, min(len(missing) * self._seconds_each, self._deadline.remaining()))
        self._notify(
            f"{self._num_trials} {'trial' if self._num_trials == 1 else 'trials'} of {self._asked.trial_budget}{kept}: "
            f"about {format_duration(seconds)}; they go to {self._directory.path}"
        )
        stopped = None
        try:
            for place, trial in enumerate(missing):
                if self._deadline.remaining() < self._seconds_each + RESERVE_SECONDS:
                    stopped = BUDGET
                    break
                self._carry_out(trial, num_kept + place + 1)
        except CutOffError:
            stopped = BUDGET
        except KeyboardInterrupt:
            if not self._directory.records:
                raise
            stopped = SIGNAL
        summary = {
            **summarise(self._asked, self._directory.records, stopped),
            "command": self._directory.about["command"],
            "budget_seconds": self._deadline.budget_seconds,
            "elapsed_seconds": round(self._deadline.elapsed(), 3),
            "late": self._deadline.late,
        }
        self._directory.save_summary(summary)
        if stopped:
            self._tell_how_to_go_on(stopped)
        return Benchmark(self._directory.path, summary, tuple(self._directory.records))

    @property
    def _num_trials(self) -> int:
        return self._asked.seeds * len(self._asked.contenders)

    @property
    def _seconds_each(self) -> float:
        """What one trial takes, training and scoring."""
        measured = [_seconds(record) for record in self._directory.records]
        return self._asked.trial_seconds + (max(measured, default=0.0) or self._first_evaluation_seconds)

    def _missing(self) -> list[Trial]:
        done = {key for key, record in latest(self._directory.records).items() if "accuracy" in record}
        trials = schedule(self._asked.contenders, self._asked.seeds)
        return [trial for trial in trials if (trial.contender.label, trial.block) not in done]

    def _carry_out(self, trial: Trial, number: int) -> None:
        seconds_left = self._deadline.remaining() - RESERVE_SECONDS
        keep_at = self._directory.kept_run(trial) if self._keep_runs else None
        measured = run_job(self._asked, trial, self._directory.in_flight, seconds_left, keep_at)
        record = BENCHMARK_TRIAL_FORMAT.numbered(measured)
        self._directory.add(record)
        self._directory.save_recipe(trial.contender, record)
        left = (self._num_trials - number) * self._seconds_each
        width = max(len(contender.label) for contender in self._asked.contenders)
        self._notify(progress_line(record, number, self._num_trials, width, min(left, self._deadline.remaining())))
        self._on_trial(record)
        self._refuse_where_all_are_refused()

    def _refuse_where_all_are_refused(self) -> None:
        """A first block in which every training was refused says what the user must change; the rest would as well."""
        records = self._directory.records
        if len(records) == len(self._asked.contenders) and all(r.get("status") == REFUSED for r in records):
            message = f"every recipe was refused: {records[0]['failed']}"
            records.clear()  # nothing was measured
            raise UsageError(message)

    def _tell_how_to_go_on(self, stopped: str) -> None:
        why = "the budget leaves no time for another trial" if stopped == BUDGET else "stopped"
        num_done = self._num_trials - len(self._missing())
        self._notify(
            f"{why}: {num_done} of {self._num_trials} trials are done and kept; the others: "
            f"timebox benchmark --resume {shlex.quote(str(self._directory.path))}"
        )


def _seconds(record: Record) -> float:
    seconds = record.get("evaluation_seconds")
    return seconds if isinstance(seconds, float) else 0.0


def _asked(arguments: Mapping[str, object]) -> Asked:
    """The arguments of :func:`benchmark` as they are kept: paths so that they mean the same from any directory."""
    given = {name: arguments[name] for name in Asked.__dataclass_fields__}
    if given["data"] is None:
        raise UsageError("say what to measure on: a path, or a name such as digits")
    if given["trial_budget"] is None:
        raise UsageError("say how long one trial may take, for instance --trial-budget 60s")
    for name in given:
        given[name] = _kept(name, given[name])
    return Asked(**given)  # type: ignore[arg-type]  # each is what the signature of benchmark says


def _kept(name: str, value: object) -> object:
    if name == "recipes" and not isinstance(value, str):
        return tuple(absolute_recipe(text) for text in value)  # type: ignore[attr-defined]
    if name in ("recipes", "settings"):
        if isinstance(value, str):
            raise UsageError(f"{name} {value!r} must be a list of texts, not one text")
        return tuple(value)  # type: ignore[arg-type]
    if name == "val":
        portion: SplitSize = parse_split_size(str(value) if isinstance(value, Path) else value, "val")  # type: ignore[arg-type]
        return absolute(portion) if isinstance(portion, str) and portion not in ("none", "rest") else portion
    if name == "trial_budget":
        return budget_text(value)  # type: ignore[arg-type]
    if name in ("data", "data_dir") and value is not None:
        return absolute(value)  # type: ignore[arg-type]
    return value


def _refuse_contradictions(arguments: Mapping[str, object], asked: Asked) -> None:
    parameters = inspect.signature(benchmark).parameters
    wrong = []
    for name, parameter in parameters.items():
        value = arguments[name]
        if name in BESIDE_RESUME or value == parameter.default or value == []:
            continue
        recorded = getattr(asked, name, None)
        if name == "out" or _kept(name, value) != recorded:
            wrong.append(f"{name} {value}" + ("" if name == "out" else f" (the benchmark's is {recorded})"))
    if wrong:
        raise UsageError(
            f"{', '.join(wrong)} cannot be given with resume: a benchmark goes on as it was begun; "
            "a new --budget may be given"
        )


def _check_machine(directory: BenchmarkDirectory) -> None:
    """Raise RunError where a benchmark would go on on another machine than it was begun on."""
    recorded, asked = directory.about.get("environment"), directory.asked
    here = environment.environment(resolve_device(asked.device))
    differing = [
        f"{name} {recorded.get(name)!r} there, {here[name]!r} here"
        for name in ("processor", "threads", "device")
        if isinstance(recorded, dict) and recorded.get(name) != here[name]
    ]
    if differing:
        raise RunError(f"benchmark {str(directory.path)!r} cannot go on here: {'; '.join(differing)}")


def _check_data(asked: Asked, notify: Callable[[str], None], deadline: Deadline) -> str:
    """Read the data once, so that what is missing shows now and downloads lie before the first trial; their name.

    Raises DataError, UsageError: for what cannot be read or divided, and where there is nothing to score.
    """
    reader = DatasetReader(Path(asked.data_dir) if asked.data_dir else None, asked.max_bad_share, notify, deadline)
    source = asked.source if asked.score == "val" else replace(asked.source, test=None)
    loaded, data_splits = reader.divided(source, None)
    if asked.score == "test" and data_splits.test is None:
        raise DataError(f"{asked.data!r} has no test split of its own to score; use --score val")
    if asked.score == "val" and data_splits.val is None:
        raise DataError(f"{asked.data!r} leaves no images to validate on: no class has two; give --val PATH")
    return loaded.name if asked.train_limit is None else f"{loaded.name}-{asked.train_limit}"


def _check_budget(asked: Asked, deadline: Deadline) -> None:
    """Raise BudgetError where not one block of trials would fit."""
    num = len(asked.contenders)
    needed = num * (asked.trial_seconds + deadline.elapsed()) + RESERVE_SECONDS
    if deadline.remaining() < needed:
        smallest = ceil(1.05 * (deadline.elapsed() + needed))
        raise BudgetError(
            f"budget {format_duration(deadline.budget_seconds or 0.0)} is too short for one block, that is {num} "
            f"{'trial' if num == 1 else 'trials'} of {asked.trial_budget} with their scoring; use at least "
            f"{format_duration(smallest) if smallest % 60 else f'{smallest // 60}m'}"
        )


def _default_out(name: str) -> Path:
    return Path("runs") / f"benchmark-{name}-{time.strftime('%Y%m%d-%H%M%S')}"
