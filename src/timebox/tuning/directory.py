"""The directory of a search: its config, elapsed time, trials, summary and page, each file written atomically."""

import json
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from timebox.clock import format_duration
from timebox.configs.data import DataConfig
from timebox.configs.options import check_budget_length
from timebox.configs.train import TrainConfig
from timebox.errors import BudgetError, RunError, UsageError
from timebox.file_versions import TUNE_CLOCK_FORMAT, TUNE_FORMAT, TUNE_SUMMARY_FORMAT, TUNE_TRIAL_FORMAT
from timebox.files import check_free, lock, parse_json_object, read_regular, write_whole, written
from timebox.recipe import AUTO
from timebox.run.files import read_json, to_json
from timebox.tuning.storage import is_url, without_password
from timebox.tuning.study import SAMPLERS
from timebox.version import VERSION

CONFIG, CLOCK, TRIALS, SUMMARY, BEST = "tune.json", "clock.json", "trials.jsonl", "summary.json", "best.toml"
PAGE, JOURNAL, FINAL, LOCK, TEMPORARY = "tune.html", "journal.log", "final", "lock", "tmp"
# A shorter search has no time for its trials, its check and its final run.
MIN_BUDGET_SECONDS = 80.0
MIN_TRIAL_SECONDS = 4.0
# The budget over the largest trial budget: the top trials are trained several times.
MIN_TRIALS_PER_BUDGET = 15
_MAX_TRIALS_BYTES = 1 << 28
# The options of :meth:`TuneConfig.command`, in this order.
_OPTIONS = (
    "recipe", "settings", "space", "sampler", "workers", "val", "test", "train_limit", "split_seed", "seed",
    "group_by", "precision",
)  # fmt: skip

Line = Mapping[str, object]


@dataclass(frozen=True, kw_only=True)
class TuneConfig:
    """The arguments of :func:`timebox.tune` that define a search, as explained there. Stored in tune.json."""

    data: str
    budget_seconds: float
    trial_seconds: float
    recipe: str = AUTO
    settings: tuple[str, ...] = ()
    space: str | None = None
    sampler: str = "tpe"
    storage: str | None = None
    study: str
    workers: int = 1
    val: str | float | None = None
    test: str | float | None = None
    train_limit: int | None = None
    split_seed: int = 0
    seed: int = 0
    coarse: bool = False
    group_by: str | None = None
    data_dir: str | None = None
    max_bad_share: float = 0.1
    cache: bool = True
    device: str = "auto"
    precision: str = "auto"

    @property
    def source(self) -> DataConfig:
        """The data and their splits. Trials never see the test split, which is held out for the final run."""
        return DataConfig(
            self.data, self.val, self.test, self.train_limit, None, self.split_seed, self.coarse, self.group_by
        )

    def check(self) -> None:
        """Raises UsageError or BudgetError for values that can be refused before the data are read."""
        max_seconds = self.budget_seconds / MIN_TRIALS_PER_BUDGET
        if self.budget_seconds < MIN_BUDGET_SECONDS:
            raise BudgetError(
                f"budget {format_duration(self.budget_seconds)} is too short for a search; use at least "
                f"{MIN_BUDGET_SECONDS:.0f}s, or `timebox train`"
            )
        if not MIN_TRIAL_SECONDS <= self.trial_seconds <= max_seconds:
            raise BudgetError(
                f"trial_budget {format_duration(self.trial_seconds)} must be between {MIN_TRIAL_SECONDS:.0f}s and "
                f"{format_duration(max_seconds)}, a {MIN_TRIALS_PER_BUDGET}th of the budget: the top trials are "
                "trained several times"
            )
        TrainConfig.of(
            self.source, recipe=self.recipe, settings=self.settings, seed=self.seed, precision=self.precision
        )
        check_budget_length(self.budget_seconds)
        if self.sampler not in SAMPLERS:
            raise UsageError(f"sampler {self.sampler!r} is unknown; use {', '.join(SAMPLERS)}")
        if self.workers < 1:
            raise UsageError(f"workers {self.workers} must be at least 1")
        if self.storage is not None and not is_url(self.storage):
            raise UsageError(f"storage {self.storage!r} must be a URL, such as postgresql://user@host/name")
        if self.val == "none":
            raise UsageError("val 'none' leaves no images to compare trials by")

    def command(self) -> str:
        """The command line of this search, without options of its storage, device and data directory."""
        defaults = {one.name: one.default for one in fields(self)}
        words = ["timebox", "tune", self.data]
        words += ["--budget", f"{self.budget_seconds:g}s", "--trial-budget", f"{self.trial_seconds:g}s"]
        for name in _OPTIONS:
            value = getattr(self, name)
            if name == "settings":
                words += [word for setting in value for word in ("--set", setting)]
            elif value != defaults[name]:
                words += [f"--{name.replace('_', '-')}", str(value)]
        return shlex.join([*words, *["--coarse"] * self.coarse])


class TuneDirectory:
    """The files of a search, written so that a kill at any instant loses only the trainings in progress.

    Opened by :meth:`new` or :meth:`existing`; locked until :meth:`close`.

    Attributes:
        seconds_before: seconds of the budget that earlier processes used.
        repeats: lines of trials.jsonl of the trainings after the trials, in the order trained.
    """

    def __init__(self, path: Path, config: TuneConfig) -> None:
        self.path, self.config = path, config
        self.seconds_before = 0.0
        self.repeats: list[dict[str, object]] = []
        with written(_described(path)):
            self._lock = os.open(path / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            lock(self._lock)
        except BlockingIOError as error:
            os.close(self._lock)
            raise UsageError(f"search {str(path)!r} is running in another process") from error

    @classmethod
    def new(cls, path: Path, config: TuneConfig) -> "TuneDirectory":
        """Create a directory. Raises UsageError where it exists and is not empty."""
        check_free(path, "search")
        with written(_described(path)):
            path.mkdir(parents=True, exist_ok=True)
        directory = cls(path, config)
        directory.save_config(config)
        return directory

    @classmethod
    def existing(cls, path: Path) -> "TuneDirectory":
        """Open the directory of an earlier search. Raises RunError where there is none, or it is damaged."""
        if not (path / CONFIG).is_file():
            raise RunError(f"{str(path)!r} is no directory of a search: it has no {CONFIG}")
        config = read_json(path / CONFIG, TUNE_FORMAT).get("asked")
        if not isinstance(config, dict) or set(config) != {one.name for one in fields(TuneConfig)}:
            raise RunError(f"{str(path / CONFIG)!r} is damaged: its config is incomplete")
        directory = cls(path, TuneConfig(**{**config, "settings": tuple(config["settings"])}))
        try:
            if (path / CLOCK).exists():
                seconds = read_json(path / CLOCK, TUNE_CLOCK_FORMAT).get("elapsed_seconds")
                directory.seconds_before = seconds if isinstance(seconds, float) else 0.0
            directory.repeats = [line for line in _read_lines(path / TRIALS) if line.get("phase") != "search"]
        except BaseException:
            directory.close()
            raise
        return directory

    @property
    def is_finished(self) -> bool:
        """Whether the search has a summary, under the budget of its config."""
        path, budget_seconds = self.path / SUMMARY, self.config.budget_seconds
        return path.is_file() and read_json(path, TUNE_SUMMARY_FORMAT).get("budget_seconds") == budget_seconds

    def save_config(self, config: TuneConfig) -> None:
        """Write tune.json, without the password of the storage."""
        self.config = config
        values = asdict(config) | {"storage": config.storage and without_password(config.storage)}
        content = {"version": VERSION, "command": config.command(), "asked": values}
        self.write(CONFIG, to_json(TUNE_FORMAT.numbered(content)))

    def save_clock(self, elapsed_seconds: float) -> None:
        """Write clock.json."""
        self.write(CLOCK, to_json(TUNE_CLOCK_FORMAT.numbered({"elapsed_seconds": round(elapsed_seconds, 3)})))

    def save_trials(self, trials: Sequence[Line]) -> None:
        """Write trials.jsonl: the trials, then the repeats."""
        numbered = map(TUNE_TRIAL_FORMAT.numbered, [*trials, *self.repeats])
        self.write(TRIALS, "".join(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n" for line in numbered))

    def write(self, name: str, content: str | bytes) -> None:
        """Write a file atomically. Raises OutputError."""
        blob = content if isinstance(content, bytes) else content.encode("utf-8", "backslashreplace")
        with written(_described(self.path)):
            write_whole(self.path / name, blob)

    def close(self) -> None:
        """Unlock the directory."""
        os.close(self._lock)


def _read_lines(path: Path) -> Iterator[dict[str, object]]:
    if not path.exists():
        return
    try:
        for line in read_regular(path, _MAX_TRIALS_BYTES).decode("utf-8").splitlines():
            yield TUNE_TRIAL_FORMAT.upgraded(parse_json_object(line.encode()), repr(str(path)))
    except (OSError, ValueError) as error:
        raise RunError(f"{str(path)!r} is damaged: {error}") from error


def _described(path: Path) -> str:
    return f"search {str(path)!r}"
