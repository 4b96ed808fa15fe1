"""The directory of a benchmark: its config, a line for each trial, resolved recipes and the summary."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from msgspec import Struct, field

from timebox.benchmarking.config import BenchmarkArguments, config_of
from timebox.benchmarking.environment import Environment
from timebox.benchmarking.summary import BenchmarkSummary
from timebox.benchmarking.trials import FailedTrial, ScoredTrial, Trial, TrialRecord
from timebox.configs.benchmark import BenchmarkConfig, RecipeVariant
from timebox.errors import OutputError, RunError, UsageError
from timebox.file_versions import BENCHMARK_FORMAT, BENCHMARK_SUMMARY_FORMAT, BENCHMARK_TRIAL_FORMAT
from timebox.files import check_free, lock, parse_json_object, read_lines, written
from timebox.files.folders import Folder
from timebox.recipes import recipe_from, upgrade_fields
from timebox.run.directories.locks import remove_run
from timebox.run.files import read_json, to_json
from timebox.run.json_values import from_values, to_values

CONFIG, TRIALS, SUMMARY, RECIPES, RUNS = "benchmark.json", "trials.jsonl", "summary.json", "recipes", "runs"
IN_FLIGHT = "in-flight-"  # prefix of the directory of a trial's run, which a killed benchmark leaves behind
_MAX_BYTES, _MAX_LINE_BYTES = 1 << 28, 1 << 20


class BenchmarkFile(Struct, frozen=True, kw_only=True):
    """benchmark.json: the arguments of a benchmark, and the machine.

    Attributes:
        started: local time at which the benchmark was started.
        data_name: name of the data.
        environment: the machine and the versions.
        command: the command line that asks for the same benchmark, paths cut to their last part.
        asked: the arguments.
    """

    started: str
    data_name: str
    environment: Environment
    command: str
    arguments: BenchmarkArguments = field(name="asked")  # renaming the key would take a new format


class BenchmarkDirectory:
    """The files of a benchmark. A kill at any instant loses at most the trial that is running.

    Made by :meth:`new` and :meth:`existing`; locked until it is closed, so that no two processes write it.

    Attributes:
        about: the content of benchmark.json. config: the options recorded there.
        trials: the trials done, failed ones included, in the order of the file.
    """

    def __init__(self, path: Path, about: BenchmarkFile, created: bool = False) -> None:
        self.path, self.about, self._created = path, about, created
        self.config = config_of(about.arguments, repr(str(path / CONFIG)))
        with written(_named(path)):
            self._folder = Folder(path)
            try:
                with written(repr(str(path / TRIALS))):
                    self._file = self._folder.open_own(TRIALS)
            except BaseException:
                self._folder.close()
                raise
        try:
            self._lock()
            lines = _whole_lines(path / TRIALS)
            with written(_named(path)):
                os.ftruncate(self._file, sum(map(len, lines)))  # removes a line that a kill cut off
                os.lseek(self._file, 0, os.SEEK_END)
            for name in self._folder.names():
                if name.startswith(IN_FLIGHT):
                    remove_run(path / name)
            self.trials = list(_trials(lines, self.config, path))
        except BaseException:
            self.close()
            raise

    @classmethod
    def new(cls, path: Path, about: BenchmarkFile, is_claimed: bool = False) -> "BenchmarkDirectory":
        """A directory that does not exist yet, or is empty. Raises UsageError for one that is taken.

        Args:
            is_claimed: whether the directory was made for this benchmark.
        """
        check_free(path, "benchmark")
        with written(_named(path)):
            path.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileExistsError):
                path.mkdir()
                is_claimed = True
        directory = cls(path, about, is_claimed)
        try:
            if directory.trials or directory._folder.kind(CONFIG):
                raise UsageError(_in_use(path))
            with written(_named(path)):
                directory._folder.write_whole(CONFIG, to_json(BENCHMARK_FORMAT.numbered(to_values(about))))
        except BaseException:
            directory.close()
            raise
        return directory

    @classmethod
    def existing(cls, path: Path) -> "BenchmarkDirectory":
        """The directory of a benchmark that was begun. Raises RunError if there is none, or it is damaged."""
        if not (path / CONFIG).is_file():
            raise RunError(f"{str(path)!r} is no benchmark directory: it has no {CONFIG}")
        values = read_json(path / CONFIG, BENCHMARK_FORMAT)
        return cls(path, from_values(values, BenchmarkFile, repr(str(path / CONFIG))))

    def add(self, trial: TrialRecord) -> Mapping[str, object]:
        """Append a trial; its line, which is returned, is on the disk then."""
        values = trial_values(trial)
        line = (json.dumps(values, ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8", "backslashreplace")
        with written(_named(self.path)):
            if os.fstat(self._file).st_size + len(line) > _MAX_BYTES:
                full = f"{str(self.path / TRIALS)!r} would have over {_MAX_BYTES:,} bytes"
                raise OutputError(f"{full}: begin another benchmark")
            while line:
                line = line[os.write(self._file, line) :]
            os.fsync(self._file)
        self.trials.append(trial)
        return values

    def save_recipe(self, variant: RecipeVariant, trial: ScoredTrial) -> None:
        """Write the resolved recipe of the first trial of `variant`, which `timebox train --recipe` reads back."""
        name = f"{variant.file_name}.toml"
        with written(_named(self.path)), self._folder.folder(RECIPES, create=True) as recipes:
            if not recipes.kind(name):
                text = f"# {variant.label}, as resolved in its first trial\n{recipe_from(trial.recipe).to_toml()}"
                recipes.write_whole(name, text.encode())

    def save_summary(self, summary: BenchmarkSummary) -> Mapping[str, object]:
        """Write summary.json, and return its content."""
        values = BENCHMARK_SUMMARY_FORMAT.numbered(to_values(summary))
        with written(_named(self.path)):
            self._folder.write_whole(SUMMARY, to_json(values))
        return values

    @property
    def in_flight(self) -> Path:
        """The run directory of the trial that is running.

        It differs between processes: where a benchmark was killed, its training may still write for a while.
        """
        return self.path / f"{IN_FLIGHT}{os.getpid()}"

    def kept_run(self, trial: Trial) -> Path:
        """The directory that keeps the run of a trial."""
        name = f"{trial.block + 1:02d}-{trial.position + 1}-{trial.variant.file_name}"
        return self.path / RUNS / name

    def discard_if_empty(self) -> None:
        """Close, and remove the directory if it was made for this benchmark and holds no trial.

        Files that timebox has not written stay, and the directory with them.
        """
        if self._created and not self.trials:
            with suppress(OSError):
                for name in (SUMMARY, TRIALS, CONFIG):
                    self._folder.remove(name)
                self.path.rmdir()
        self.close()

    def close(self) -> None:
        """Close the files, which unlocks the directory."""
        self._folder.close()
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _lock(self) -> None:
        try:
            lock(self._file)
        except BlockingIOError as error:
            raise UsageError(_in_use(self.path)) from error


def trial_values(trial: TrialRecord) -> Mapping[str, object]:
    """A line of trials.jsonl."""
    return BENCHMARK_TRIAL_FORMAT.numbered(to_values(trial))


def _whole_lines(path: Path) -> list[bytes]:
    """The lines of trials.jsonl but an unfinished one at its end. Raises RunError where they cannot be read."""
    try:
        return [line for line in read_lines(path, _MAX_LINE_BYTES, _MAX_BYTES) if line.endswith(b"\n")]
    except OSError as error:
        raise RunError(f"{str(path)!r} cannot be read: {error}") from error


def _trials(lines: Sequence[bytes], config: BenchmarkConfig, path: Path) -> Iterator[TrialRecord]:
    labels = {variant.label for variant in config.variants}
    for number, line in enumerate(lines, 1):
        where = f"line {number} of {str(path / TRIALS)!r}"
        try:
            values = BENCHMARK_TRIAL_FORMAT.upgraded(parse_json_object(line), where)
            if isinstance(recipe := values.get("recipe"), Mapping):
                values["recipe"] = upgrade_fields(recipe)
        except ValueError as error:
            raise RunError(f"{where} is damaged: {error}") from error
        kind: type[TrialRecord] = FailedTrial if "failed" in values else ScoredTrial
        trial = from_values(values, kind, where)
        if trial.label not in labels or trial.block >= config.seeds:
            raise RunError(f"{where} is damaged: it is no trial of this benchmark")
        yield trial


def _in_use(path: Path) -> str:
    return f"benchmark {str(path)!r} is being written by another process"


def _named(path: Path) -> str:
    return f"benchmark {str(path)!r}"
