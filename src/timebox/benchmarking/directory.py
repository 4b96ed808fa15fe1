"""The directory of a benchmark: its config, a line for each trial, resolved recipes and the summary."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from timebox.benchmarking.config import RECORDED, command, config_from_record
from timebox.benchmarking.trials import Record, Trial
from timebox.configs.benchmark import BenchmarkConfig, RecipeVariant
from timebox.errors import RunError, UsageError
from timebox.file_versions import BENCHMARK_FORMAT, BENCHMARK_TRIAL_FORMAT
from timebox.files import check_free, lock, parse_json_object, read_regular, write_whole, written
from timebox.recipe import recipe_from, upgrade_fields
from timebox.run.files import read_json, to_json

CONFIG, TRIALS, SUMMARY, RECIPES, RUNS = "benchmark.json", "trials.jsonl", "summary.json", "recipes", "runs"
IN_FLIGHT = "in-flight-"  # prefix of the directory of a trial's run, which a killed benchmark leaves behind
_MAX_BYTES = 1 << 30


class BenchmarkDirectory:
    """The files of a benchmark. A kill at any instant loses at most the trial that is running.

    Made by :meth:`new` and :meth:`existing`; locked until it is closed, so that no two processes write it.

    Attributes:
        config: its options. about: everything in benchmark.json.
        records: the trials done, failed ones included, in the order of the file.
    """

    def __init__(self, path: Path, config: BenchmarkConfig, about: Mapping[str, object], created: bool) -> None:
        self.path, self.config, self.about, self._created = path, config, about, created
        with written(_named(path)):
            self._file = os.open(path / TRIALS, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            self._lock()
            with written(_named(path)):
                content = read_regular(path / TRIALS, _MAX_BYTES)
                whole = content.rfind(b"\n") + 1
                os.ftruncate(self._file, whole)  # removes a line that a kill cut off
            for left in path.glob(f"{IN_FLIGHT}*"):
                shutil.rmtree(left, ignore_errors=True)
            self.records: list[Record] = list(_records(content[:whole], config, path))
        except BaseException:
            self.close()
            raise

    @classmethod
    def new(cls, path: Path, config: BenchmarkConfig, about: Mapping[str, object]) -> "BenchmarkDirectory":
        """A directory that does not exist yet, or is empty. Raises UsageError for one that is taken."""
        check_free(path, "benchmark")
        with written(_named(path)):
            created = not path.exists()
            path.mkdir(parents=True, exist_ok=True)
            about = BENCHMARK_FORMAT.numbered({**about, "command": command(config), "asked": config.as_dict(RECORDED)})
            write_whole(path / CONFIG, to_json(about))
        return cls(path, config, about, created)

    @classmethod
    def existing(cls, path: Path) -> "BenchmarkDirectory":
        """The directory of a benchmark that was begun. Raises RunError if there is none, or it is damaged."""
        if not (path / CONFIG).is_file():
            raise RunError(f"{str(path)!r} is no benchmark directory: it has no {CONFIG}")
        about = read_json(path / CONFIG, BENCHMARK_FORMAT)
        recorded = about.get("asked")
        if not isinstance(recorded, dict):
            raise RunError(f"{str(path / CONFIG)!r} is damaged: it does not say what was asked for")
        return cls(path, config_from_record(recorded, repr(str(path / CONFIG))), about, created=False)

    def add(self, record: Record) -> None:
        """Append the record of a trial; its line is on the disk once this returns."""
        with written(_named(self.path)):
            line = (json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8", "backslashreplace")
            while line:
                line = line[os.write(self._file, line) :]
            os.fsync(self._file)
        self.records.append(record)

    def save_recipe(self, variant: RecipeVariant, record: Record) -> None:
        """Write the resolved recipe of the first trial of `variant`, which `timebox train --recipe` reads back."""
        file = self.path / RECIPES / f"{variant.file_name}.toml"
        resolved = record.get("recipe")
        if not isinstance(resolved, Mapping) or file.exists():
            return
        with written(_named(self.path)):
            file.parent.mkdir(exist_ok=True)
            text = f"# {variant.label}, as resolved in its first trial\n{recipe_from(resolved).to_toml()}"
            write_whole(file, text.encode())

    def save_summary(self, summary: Mapping[str, object]) -> None:
        """Write summary.json."""
        with written(_named(self.path)):
            write_whole(self.path / SUMMARY, to_json(summary))

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
        """Close, and remove the directory if it was made for this benchmark and holds no trial."""
        self.close()
        if self._created and not self.records:
            shutil.rmtree(self.path, ignore_errors=True)

    def close(self) -> None:
        """Close the file, which unlocks the directory."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _lock(self) -> None:
        try:
            lock(self._file)
        except BlockingIOError as error:
            raise UsageError(f"benchmark {str(self.path)!r} is being written by another process") from error


def latest_records(records: Sequence[Record]) -> dict[tuple[str, int], Record]:
    """The last record of each (label, block): a trial that failed is done again when a benchmark is resumed."""
    return {(str(record["label"]), int(str(record["block"]))): record for record in records}


def _records(content: bytes, config: BenchmarkConfig, path: Path) -> Iterator[Record]:
    labels = {variant.label for variant in config.variants}
    for number, line in enumerate(content.splitlines(), 1):
        try:
            record = _upgraded(parse_json_object(line), f"line {number} of {str(path / TRIALS)!r}")
            is_known = record["label"] in labels and record["block"] in range(config.seeds)
            if not is_known or not ("failed" in record or 0 <= record["accuracy"] <= 1):
                raise ValueError("it is no trial of this benchmark")
        except (ValueError, TypeError, KeyError) as error:
            raise RunError(f"line {number} of {str(path / TRIALS)!r} is damaged: {error}") from error
        yield record


def _upgraded(record: Record, where: str) -> dict[str, Any]:
    """A record in the newest format, its recipe with the fields of this version."""
    upgraded = BENCHMARK_TRIAL_FORMAT.upgraded(record, where)
    recipe = upgraded.get("recipe")
    return {**upgraded, "recipe": upgrade_fields(recipe)} if isinstance(recipe, Mapping) else upgraded


def _named(path: Path) -> str:
    return f"benchmark {str(path)!r}"
