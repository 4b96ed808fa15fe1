"""The directory of a benchmark: what was asked, a line for each trial, resolved recipes, and what they show."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from timebox.benchmarking.config import Asked, Contender
from timebox.benchmarking.trials import Record, Trial
from timebox.errors import RunError, UsageError
from timebox.file_versions import BENCHMARK_FORMAT, BENCHMARK_TRIAL_FORMAT
from timebox.files import check_free, lock, parse_json_object, read_regular, write_whole, written
from timebox.recipe import recipe_from, upgrade_fields
from timebox.run.files import read_json, to_json

ASKED, TRIALS, SUMMARY, RECIPES, RUNS = "benchmark.json", "trials.jsonl", "summary.json", "recipes", "runs"
IN_FLIGHT = "in-flight-"  # what a killed benchmark may leave behind
_MOST_BYTES = 1 << 30


class BenchmarkDirectory:
    """Written so that a kill at any instant loses the trial in flight at most.

    Made by :meth:`new` and :meth:`existing`; locked until it is closed, so that no two processes write it.

    Attributes:
        asked: what was asked for. about: everything in benchmark.json.
        records: what has been measured, in the order of the file.
    """

    def __init__(self, path: Path, asked: Asked, about: Mapping[str, object], created: bool) -> None:
        self.path, self.asked, self.about, self._created = path, asked, about, created
        with written(_named(path)):
            self._file = os.open(path / TRIALS, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            self._lock()
            with written(_named(path)):
                content = read_regular(path / TRIALS, _MOST_BYTES)
                whole = content.rfind(b"\n") + 1
                os.ftruncate(self._file, whole)  # a kill in the middle of a line leaves the rest of it
            for left in path.glob(f"{IN_FLIGHT}*"):
                shutil.rmtree(left, ignore_errors=True)
            self.records: list[Record] = list(_records(content[:whole], asked, path))
        except BaseException:
            self.close()
            raise

    @classmethod
    def new(cls, path: Path, asked: Asked, about: Mapping[str, object]) -> "BenchmarkDirectory":
        """A directory that does not exist yet, or is empty. Raises UsageError for one that is taken."""
        check_free(path, "benchmark")
        with written(_named(path)):
            created = not path.exists()
            path.mkdir(parents=True, exist_ok=True)
            about = BENCHMARK_FORMAT.numbered({**about, "command": asked.command(), "asked": asked.as_dict()})
            write_whole(path / ASKED, to_json(about))
        return cls(path, asked, about, created)

    @classmethod
    def existing(cls, path: Path) -> "BenchmarkDirectory":
        """One that was begun. Raises RunError where there is none, or it is damaged."""
        if not (path / ASKED).is_file():
            raise RunError(f"{str(path)!r} is no benchmark directory: it has no {ASKED}")
        about = read_json(path / ASKED, BENCHMARK_FORMAT)
        asked = about.get("asked")
        if not isinstance(asked, dict):
            raise RunError(f"{str(path / ASKED)!r} is damaged: it does not say what was asked for")
        return cls(path, Asked.from_dict(asked, repr(str(path / ASKED))), about, created=False)

    def add(self, record: Record) -> None:
        """Take in a trial: its line is on the disk once this returns."""
        with written(_named(self.path)):
            line = (json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8", "backslashreplace")
            while line:
                line = line[os.write(self._file, line) :]
            os.fsync(self._file)
        self.records.append(record)

    def save_recipe(self, contender: Contender, record: Record) -> None:
        """Keep the resolved recipe of a contender's first trial, for `timebox train --recipe` to read back."""
        file = self.path / RECIPES / f"{contender.file_name}.toml"
        resolved = record.get("recipe")
        if not isinstance(resolved, Mapping) or file.exists():
            return
        with written(_named(self.path)):
            file.parent.mkdir(exist_ok=True)
            text = f"# {contender.label}, as resolved in its first trial\n{recipe_from(resolved).to_toml()}"
            write_whole(file, text.encode())

    def save_summary(self, summary: Mapping[str, object]) -> None:
        """Write summary.json."""
        with written(_named(self.path)):
            write_whole(self.path / SUMMARY, to_json(summary))

    @property
    def in_flight(self) -> Path:
        """Where the model of a trial is until it is scored.

        Another place for each process: where one was killed, the training that it began may go on for a while.
        """
        return self.path / f"{IN_FLIGHT}{os.getpid()}"

    def kept_run(self, trial: Trial) -> Path:
        """Where the model of a trial is kept."""
        name = f"{trial.block + 1:02d}-{trial.position + 1}-{trial.contender.file_name}"
        return self.path / RUNS / name

    def forget(self) -> None:
        """Remove a directory in which nothing was measured, if it was made for this benchmark."""
        self.close()
        if self._created and not self.records:
            shutil.rmtree(self.path, ignore_errors=True)

    def close(self) -> None:
        """Let go of the file and its lock."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _lock(self) -> None:
        try:
            lock(self._file)
        except BlockingIOError as error:
            raise UsageError(f"benchmark {str(self.path)!r} is being written by another process") from error


def latest(records: Sequence[Record]) -> dict[tuple[str, int], Record]:
    """The last record of each (label, block): a trial that failed is done again when a benchmark is resumed."""
    return {(str(record["label"]), int(str(record["block"]))): record for record in records}


def _records(content: bytes, asked: Asked, path: Path) -> Iterator[Record]:
    labels = {contender.label for contender in asked.contenders}
    for number, line in enumerate(content.splitlines(), 1):
        try:
            record = _present(parse_json_object(line), f"line {number} of {str(path / TRIALS)!r}")
            is_known = record["label"] in labels and record["block"] in range(asked.seeds)
            if not is_known or not ("failed" in record or 0 <= record["accuracy"] <= 1):
                raise ValueError("it is no trial of this benchmark")
        except (ValueError, TypeError, KeyError) as error:
            raise RunError(f"line {number} of {str(path / TRIALS)!r} is damaged: {error}") from error
        yield record


def _present(record: Record, where: str) -> dict[str, Any]:
    """A trial in the newest format, its recipe in the present fields."""
    upgraded = BENCHMARK_TRIAL_FORMAT.upgraded(record, where)
    recipe = upgraded.get("recipe")
    return {**upgraded, "recipe": upgrade_fields(recipe)} if isinstance(recipe, Mapping) else upgraded


def _named(path: Path) -> str:
    return f"benchmark {str(path)!r}"
