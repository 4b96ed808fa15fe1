"""The directory of a search: what was asked, the clock, a line for each trial, and what came of it."""

import json
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from timebox.errors import RunError, UsageError
from timebox.file_versions import TUNE_CLOCK_FORMAT, TUNE_FORMAT, TUNE_SUMMARY_FORMAT, TUNE_TRIAL_FORMAT
from timebox.files import check_free, lock, parse_json_object, read_regular, write_whole, written
from timebox.run.files import read_json, to_json
from timebox.tuning.storage import without_password
from timebox.version import VERSION

ASKED, CLOCK, TRIALS, SUMMARY, BEST = "tune.json", "clock.json", "trials.jsonl", "summary.json", "best.toml"
PAGE, JOURNAL, FINAL, LOCK, TEMPORARY = "tune.html", "journal.log", "final", "lock", "tmp"
_MOST_BYTES = 1 << 28

Line = Mapping[str, object]


@dataclass(frozen=True)
class Asked:
    """The arguments of :func:`timebox.tune` that decide what is searched; their meaning is written there."""

    data: str
    budget_seconds: float
    trial_seconds: float
    recipe: str
    settings: tuple[str, ...]
    space: str | None
    sampler: str
    storage: str | None
    study: str
    workers: int
    val: str | float | None
    test: str | float | None
    train_limit: int | None
    split_seed: int
    seed: int
    coarse: bool
    group_by: str | None
    data_dir: str | None
    max_bad_share: float
    cache: bool
    device: str
    precision: str

    def command(self) -> str:
        """The command line that asks for the same, without what storage it may be kept in."""
        options: list[tuple[str, object, object]] = [
            ("--budget", f"{self.budget_seconds:g}s", None),
            ("--trial-budget", f"{self.trial_seconds:g}s", None),
            ("--recipe", self.recipe, "auto"),
            *(("--set", setting, None) for setting in self.settings),
            ("--space", self.space, None),
            ("--sampler", self.sampler, "tpe"),
            ("--workers", self.workers, 1),
            ("--val", self.val, None),
            ("--test", self.test, None),
            ("--train-limit", self.train_limit, None),
            ("--split-seed", self.split_seed, 0),
            ("--seed", self.seed, 0),
            ("--group-by", self.group_by, None),
            ("--precision", self.precision, "auto"),
        ]
        words = ["timebox", "tune", self.data]
        words += [word for name, value, default in options if value != default for word in (name, str(value))]
        return shlex.join([*words, *["--coarse"] * self.coarse])


class TuneDirectory:
    """Written so that a kill at any instant loses trainings in flight at most.

    Made by :meth:`new` and :meth:`existing`; locked until it is closed.
    """

    def __init__(self, path: Path, asked: Asked) -> None:
        self.path, self.asked = path, asked
        with written(_named(path)):
            self._lock = os.open(path / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            lock(self._lock)
        except BlockingIOError as error:
            os.close(self._lock)
            raise UsageError(f"search {str(path)!r} is going on in another process") from error
        self.seconds_before = 0.0
        self.repeats: list[dict[str, object]] = []

    @classmethod
    def new(cls, path: Path, asked: Asked) -> "TuneDirectory":
        """A directory that does not exist yet, or is empty."""
        check_free(path, "search")
        with written(_named(path)):
            path.mkdir(parents=True, exist_ok=True)
        directory = cls(path, asked)
        directory.save_asked(asked)
        return directory

    @classmethod
    def existing(cls, path: Path) -> "TuneDirectory":
        """One that was begun, with the time used and the repeats done. Raises RunError where there is none."""
        if not (path / ASKED).is_file():
            raise RunError(f"{str(path)!r} is no directory of a search: it has no {ASKED}")
        about = read_json(path / ASKED, TUNE_FORMAT)
        asked = about.get("asked")
        if not isinstance(asked, dict) or set(asked) != {one.name for one in fields(Asked)}:
            raise RunError(f"{str(path / ASKED)!r} is damaged: what was asked for is incomplete")
        directory = cls(path, Asked(**{**asked, "settings": tuple(asked["settings"])}))
        try:
            if (path / CLOCK).exists():
                seconds = read_json(path / CLOCK, TUNE_CLOCK_FORMAT).get("elapsed_seconds")
                directory.seconds_before = seconds if isinstance(seconds, float) else 0.0
            directory.repeats = [line for line in _lines(path / TRIALS) if line.get("phase") != "search"]
        except BaseException:
            directory.close()
            raise
        return directory

    @property
    def is_finished(self) -> bool:
        """Whether it came to its end under the budget that is asked for."""
        path, budget_seconds = self.path / SUMMARY, self.asked.budget_seconds
        return path.is_file() and read_json(path, TUNE_SUMMARY_FORMAT).get("budget_seconds") == budget_seconds

    def save_asked(self, asked: Asked) -> None:
        """Keep what is asked for, but for a password."""
        self.asked = asked
        kept = asdict(asked) | {"storage": asked.storage and without_password(asked.storage)}
        about = {"version": VERSION, "command": asked.command(), "asked": kept}
        self._write(ASKED, to_json(TUNE_FORMAT.numbered(about)))

    def save_clock(self, elapsed_seconds: float) -> None:
        """Keep how much of the budget is used."""
        self._write(CLOCK, to_json(TUNE_CLOCK_FORMAT.numbered({"elapsed_seconds": round(elapsed_seconds, 3)})))

    def save_trials(self, searched: Sequence[Line]) -> None:
        """Keep a line for each trial, the search's and the repeats'."""
        numbered = map(TUNE_TRIAL_FORMAT.numbered, [*searched, *self.repeats])
        lines = (json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n" for line in numbered)
        self._write(TRIALS, "".join(lines).encode("utf-8", "backslashreplace"))

    def save_best(self, toml: str) -> None:
        """Keep the recipe found."""
        self._write(BEST, toml.encode())

    def save_summary(self, summary: Line) -> None:
        """Keep what came of it."""
        self._write(SUMMARY, to_json(summary))

    def save_page(self, page: str) -> None:
        """Keep the page."""
        self._write(PAGE, page.encode("utf-8", "backslashreplace"))

    def close(self) -> None:
        """Let others go on with it."""
        os.close(self._lock)

    def _write(self, name: str, blob: bytes) -> None:
        with written(_named(self.path)):
            write_whole(self.path / name, blob)


def _lines(path: Path) -> Iterator[dict[str, object]]:
    if not path.exists():
        return
    try:
        for line in read_regular(path, _MOST_BYTES).decode("utf-8").splitlines():
            yield TUNE_TRIAL_FORMAT.upgraded(parse_json_object(line.encode()), repr(str(path)))
    except (OSError, ValueError) as error:
        raise RunError(f"{str(path)!r} is damaged: {error}") from error


def _named(path: Path) -> str:
    return f"search {str(path)!r}"
