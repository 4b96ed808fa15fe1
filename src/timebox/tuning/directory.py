"""The directory of a search: its config, elapsed time, trials, summary and page, each file written atomically."""

import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from msgspec import UNSET, Struct, UnsetType

from timebox.configs.options import Depth
from timebox.configs.storage_url import without_password
from timebox.configs.tune import TuneConfig
from timebox.errors import RunError, UsageError
from timebox.file_versions import TUNE_CLOCK_FORMAT, TUNE_FORMAT, TUNE_SUMMARY_FORMAT, TUNE_TRIAL_FORMAT
from timebox.files import check_free, check_readable, lock, parse_json_object, read_lines, read_regular, written
from timebox.files.folders import DIRECTORY, FILE, Folder, not_a_file
from timebox.run.files import read_json, to_json
from timebox.run.json_values import Count, PositiveCount, RecipeFields, Seconds, Share, from_values, to_values
from timebox.tuning.study import SearchTrial
from timebox.version import VERSION

CONFIG, CLOCK, TRIALS, SUMMARY, BEST = "tune.json", "clock.json", "trials.jsonl", "summary.json", "best.toml"
PAGE, JOURNAL, FINAL, LOCK, TEMPORARY = "tune.html", "journal.log", "final", "lock", "tmp-"
FILES = (CONFIG, CLOCK, TRIALS, SUMMARY, BEST, PAGE, JOURNAL, f"{JOURNAL}.lock", LOCK)
_MAX_NAME_BYTES = 100
_MAX_TRIALS_BYTES, _MAX_LINE_BYTES = 1 << 30, 1 << 24  # a trial takes one or two kilobytes
Phase = Literal["repeat", "check"]
# Keys of tune.json by the option of TuneConfig, where they differ.
_KEYS = {"budget": "budget_seconds", "trial_budget": "trial_seconds"}


class SearchArguments(Struct, frozen=True, kw_only=True):
    """The arguments of ``timebox.tune`` that decide a search, under their names.

    Attributes:
        trial_seconds: the longest budget of one trial.
    """

    data: str
    budget_seconds: Seconds
    trial_seconds: Seconds
    recipe: str
    settings: tuple[str, ...]
    space: str | None
    sampler: str
    storage: str | None
    study: str
    workers: PositiveCount
    val: str | float | None
    test: str | float | None
    train_limit: Count | None
    split_seed: Count
    seed: Count
    coarse: bool
    group_by: str | None
    data_dir: str | None
    max_bad_share: Share
    cache: bool
    device: str
    precision: str
    class_depth: Depth | None = None

    @classmethod
    def of(cls, config: TuneConfig) -> "SearchArguments":
        """The arguments of a search, without the password of its storage."""
        values = {_KEYS.get(name, name): value for name, value in config.arguments().items()}
        values |= {
            "trial_seconds": config.trial_seconds,
            "storage": config.storage and without_password(config.storage),
        }
        return cls(**{name: values[name] for name in cls.__struct_fields__})

    def to_config(self, where: str) -> TuneConfig:
        """The config of the search. Raises RunError for values that it does not allow."""
        options = {key: option for option, key in _KEYS.items()}
        try:
            return TuneConfig(**{options.get(name, name): getattr(self, name) for name in self.__struct_fields__})
        except UsageError as error:
            raise RunError(f"{where} is damaged: {error}") from error


class SearchFile(Struct, frozen=True, kw_only=True):
    """tune.json: the arguments of a search.

    Attributes:
        version: the version of timebox that wrote the file.
    """

    version: str
    command: str
    config: SearchArguments


class ClockFile(Struct, frozen=True, kw_only=True):
    """clock.json: the seconds of a search's budget that are used."""

    elapsed_seconds: Seconds


class RepeatedTrial(Struct, frozen=True, kw_only=True):
    """A line of trials.jsonl: a training of one of the best trials, or of the start, with another seed.

    Attributes:
        phase: ``check`` for the last comparison of the start and the winner.
        trial: null for the settings that the search started from.
        repeat: number of the repeat, added to the seed.
        accuracy: share of the scored validation images that are right; 0 after a failure.
        reason: of a failure.
    """

    phase: Phase
    trial: Count | None
    settings: tuple[str, ...]
    repeat: Count
    budget_seconds: Seconds
    accuracy: Share
    reason: str | UnsetType = UNSET
    num_images: Count | UnsetType = UNSET
    recipe: RecipeFields | UnsetType = UNSET
    train_images: Count | UnsetType = UNSET
    steps: Count | UnsetType = UNSET
    epochs: float | UnsetType = UNSET
    images_per_second: Seconds | UnsetType = UNSET
    seconds: Seconds | UnsetType = UNSET


class TuneDirectory:
    """The files of a search, written so that a kill at any instant loses only the trainings in progress.

    Opened by :meth:`new` or :meth:`existing`; locked until :meth:`close`.

    Attributes:
        seconds_before: seconds of the budget that earlier processes used.
        repeats: the trainings after the trials, in the order trained.
    """

    def __init__(self, path: Path, config: TuneConfig) -> None:
        self.path, self.config = path, config
        self.seconds_before = 0.0
        self.repeats: list[RepeatedTrial] = []
        with written(_described(path)):
            self._folder = Folder(path)
            try:
                self._lock = self._folder.open_own(LOCK)
            except BaseException:
                self._folder.close()
                raise
        try:
            lock(self._lock)
        except BlockingIOError as error:
            self.close()
            raise UsageError(f"search {str(path)!r} is running in another process") from error

    @classmethod
    def new(cls, path: Path, config: TuneConfig) -> "TuneDirectory":
        """Create a directory. Raises UsageError where it exists and is not empty."""
        check_free(path, "search")
        with written(_described(path)):
            path.mkdir(parents=True, exist_ok=True)
        directory = cls(path, config)
        try:
            if directory._folder.kind(CONFIG):  # another search was faster
                check_free(path, "search")
            directory.save_config(config)
        except BaseException:
            directory.close()
            raise
        return directory

    @classmethod
    def existing(cls, path: Path) -> "TuneDirectory":
        """Open the directory of an earlier search. Raises RunError where there is none, or it is damaged."""
        file = path / CONFIG
        if not file.is_file():
            raise RunError(f"{str(path)!r} is no directory of a search: it has no {CONFIG}")
        where = repr(str(file))
        directory = cls(path, from_values(read_json(file, TUNE_FORMAT), SearchFile, where).config.to_config(where))
        try:
            directory.check_no_links()
            if (path / CLOCK).exists():
                clock = from_values(read_json(path / CLOCK, TUNE_CLOCK_FORMAT), ClockFile, repr(str(path / CLOCK)))
                directory.seconds_before = clock.elapsed_seconds
            directory.repeats = list(_read_repeats(path / TRIALS))
        except BaseException:
            directory.close()
            raise
        return directory

    @property
    def study_name(self) -> str:
        """Name of the search in its storage."""
        return str(self.config.study)

    @property
    def is_finished(self) -> bool:
        """Whether the search has a summary, under the budget of its config."""
        path, budget_seconds = self.path / SUMMARY, self.config.budget_seconds
        return os.path.lexists(path) and read_json(path, TUNE_SUMMARY_FORMAT).get("budget_seconds") == budget_seconds

    def save_config(self, config: TuneConfig) -> None:
        """Write tune.json."""
        self.config = config
        content = SearchFile(version=VERSION, command=config.command, config=SearchArguments.of(config))
        self.write(CONFIG, to_json(TUNE_FORMAT.numbered(to_values(content))))

    def save_clock(self, elapsed_seconds: float) -> None:
        """Write clock.json."""
        self.write(CLOCK, to_json(TUNE_CLOCK_FORMAT.numbered({"elapsed_seconds": round(elapsed_seconds, 3)})))

    def save_trials(self, trials: Sequence[SearchTrial]) -> None:
        """Write trials.jsonl: the trials, then the repeats."""
        lines = [TUNE_TRIAL_FORMAT.numbered(to_values(trial)) for trial in (*trials, *self.repeats)]
        self.write(TRIALS, "".join(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n" for line in lines))

    def write(self, name: str, content: str | bytes) -> None:
        """Write a file atomically. Raises OutputError."""
        blob = content if isinstance(content, bytes) else content.encode("utf-8", "backslashreplace")
        check_readable(blob, _MAX_TRIALS_BYTES, repr(str(self.path / name)))
        with written(_described(self.path)):
            self._folder.write_whole(name, blob)

    def read(self, name: str) -> bytes:
        """The content of a file; empty where there is none. Raises OutputError where it cannot be read."""
        with written(_described(self.path)):
            try:
                return read_regular(self.path / name, _MAX_TRIALS_BYTES, follow=False)
            except FileNotFoundError:
                return b""

    def check_no_links(self) -> None:
        """Raise RunError where a name that the search writes is a link, a pipe or anything but a file."""
        for name in FILES:
            if (kind := self._folder.kind(name)) not in (FILE, ""):
                raise RunError(f"{str(self.path / name)!r} cannot be used: {not_a_file(kind)}")

    @contextmanager
    def temporary_directory(self) -> Iterator[Path]:
        """A new directory in this one for the temporary files of workers, removed at the end.

        The lock file holds its name, so that the next process removes what a killed one has left.
        """
        with written(_described(self.path)):
            self._remove_temporary()
            folder = self.path / f"{TEMPORARY}{secrets.token_hex(8)}"
            self._write_lock(folder.name)
            folder.mkdir(mode=0o700)
        try:
            yield folder
        finally:
            self._remove_temporary()

    def _remove_temporary(self) -> None:
        name = os.pread(self._lock, _MAX_NAME_BYTES, 0).decode("utf-8", "replace")
        if re.fullmatch(rf"{TEMPORARY}[0-9a-f]{{16}}", name) and self._folder.kind(name) == DIRECTORY:
            shutil.rmtree(self.path / name, ignore_errors=True)

    def _write_lock(self, text: str) -> None:
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, text.encode(), 0)
        os.fsync(self._lock)

    def close(self) -> None:
        """Unlock the directory."""
        self._folder.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def _read_repeats(path: Path) -> Iterator[RepeatedTrial]:
    if not path.exists():
        return
    where = repr(str(path))
    try:
        for line in read_lines(path, _MAX_LINE_BYTES, _MAX_TRIALS_BYTES):
            values = TUNE_TRIAL_FORMAT.upgraded(parse_json_object(line), where)
            if values.get("phase") != "search":
                yield from_values(values, RepeatedTrial, where)
    except (OSError, ValueError) as error:
        raise RunError(f"{where} is damaged: {error}") from error


def _described(path: Path) -> str:
    return f"search {str(path)!r}"
