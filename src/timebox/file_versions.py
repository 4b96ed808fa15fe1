"""Format numbers of the files that timebox reads, and the migrations that bring older formats to the newest one.

Each file carries the number of its format; a file without one is of format 1. A change that an older version would
misread raises the number by one. It takes a migration in ``steps`` of the file (a pure function from the values of the
format before to those of the new one), a row in docs/reference/run-format.md, and golden runs of the new format, which
tests/golden/make.py writes.
"""

import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from timebox.errors import RunError

Values = dict[str, object]
Migration = Callable[[Values], Values]

FORMAT_KEY = "format"
FIRST_FORMAT = 1  # of a file that carries no number
DISTRIBUTION = "timebox-vision"


@dataclass(eq=False)
class FileFormat:
    """The formats of one kind of file.

    Attributes:
        file: its name, in messages and in docs/reference/run-format.md.
        oldest: the first format that a released version wrote.
        steps: the migrations from each format to the next, from the oldest on.
    """

    file: str
    oldest: int = 1
    steps: tuple[Migration, ...] = ()

    @property
    def newest(self) -> int:
        """The format that this version writes."""
        return self.oldest + len(self.steps)

    def numbered(self, values: Mapping[str, object]) -> Values:
        """``values``, which are in the newest format, with its number as the first key."""
        return {FORMAT_KEY: self.newest} | {name: value for name, value in values.items() if name != FORMAT_KEY}

    def upgraded(self, values: Mapping[str, object], where: str) -> Values:
        """The values of a file, as they were read, migrated to the newest format. ``where`` names it in messages.

        Raises RunError for a format that this version does not know, and where a migration finds the values damaged.
        """
        number = self.check(values.get(FORMAT_KEY, FIRST_FORMAT), where)
        upgraded = dict(values)
        try:
            for step in self.steps[number - self.oldest :]:
                upgraded = step(upgraded)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise RunError(f"{where} is damaged: {error}") from error
        return {**upgraded, FORMAT_KEY: self.newest}

    def check(self, number: object, where: str) -> int:
        """A format number as it was read. Raises RunError where this version cannot read that format."""
        if type(number) is not int or number < FIRST_FORMAT:
            raise RunError(f"{where} is damaged: its format {reprlib.repr(number)} is no whole number from 1 on")
        if number > self.newest:
            raise RunError(
                f"{where} has format {reprlib.repr(number)}; this version of timebox reads formats up to "
                f"{self.newest}: install a newer {DISTRIBUTION}"
            )
        if number < self.oldest:
            raise RunError(f"{where} has format {number}; the oldest that a released version wrote is {self.oldest}")
        return number


def _renamed(values: Values, new_names: Mapping[str, str]) -> Values:
    return {new_names.get(name, name): value for name, value in values.items()}


def _accept_ensemble_size(values: Values) -> Values:
    """model.json 4 to 5: the recipe's ``members`` is called ``ensemble_size``. Recipes accept either name."""
    return values


def _rename_rank_failures(values: Values) -> Values:
    """summary.json 1 to 2."""
    return _renamed(values, {"lost_ranks": "rank_failures", "elsewhere": "trained_on_other_machine"})


def _rename_ranks(values: Values) -> Values:
    """group.json 1 to 2."""
    return _renamed(values, {"members": "ranks", "lost": "failures"})


def _rename_training_state(values: Values) -> Values:
    """checkpoint/manifest.json 1 to 2."""
    facts = values["facts"]
    if not isinstance(facts, dict):
        raise TypeError("facts must be an object")
    state = _renamed(facts, {"elsewhere": "trained_on_other_machine"})
    return {**_renamed(values, {"facts": "training_state"}), "training_state": state}


def _rename_search_config(values: Values) -> Values:
    """tune.json 1 to 2."""
    return _renamed(values, {"asked": "config"})


def _rename_best_trials(values: Values) -> Values:
    """summary.json of a search 1 to 2."""
    return _renamed(values, {"leaders": "best_trials"})


# Files of a run. trained_on.npy, model.safetensors and the tensors of a checkpoint have no number of their own: a
# change to the first two raises that of model.json, a change to the last that of the manifest.
MODEL_FORMAT = FileFormat("model.json", oldest=4, steps=(_accept_ensemble_size,))
SUMMARY_FORMAT = FileFormat("summary.json", steps=(_rename_rank_failures,))
METRICS_FORMAT = FileFormat("metrics.jsonl")
STATUS_FORMAT = FileFormat("status.json")
PREDICTIONS_FORMAT = FileFormat("predictions.npz")
EXAMPLES_FORMAT = FileFormat("examples.npz")
SUSPECTS_FORMAT = FileFormat("suspects.npz")
THUMBNAILS_FORMAT = FileFormat("thumbnails.npz")
RANKS_FORMAT = FileFormat("group.json", steps=(_rename_ranks,))
CHECKPOINT_FORMAT = FileFormat("checkpoint/manifest.json", steps=(_rename_training_state,))
# Files of other commands.
ESTIMATOR_FORMAT = FileFormat("estimator.json")
LR_FIND_FORMAT = FileFormat("lr_find.json")
TUNE_FORMAT = FileFormat("tune.json", steps=(_rename_search_config,))
TUNE_CLOCK_FORMAT = FileFormat("clock.json")
TUNE_STUDY_FORMAT = FileFormat("journal.log")
TUNE_TRIAL_FORMAT = FileFormat("trials.jsonl of a search")
TUNE_SUMMARY_FORMAT = FileFormat("summary.json of a search", steps=(_rename_best_trials,))
BENCHMARK_FORMAT = FileFormat("benchmark.json")
BENCHMARK_TRIAL_FORMAT = FileFormat("trials.jsonl of a benchmark")
BENCHMARK_SUMMARY_FORMAT = FileFormat("summary.json of a benchmark")
# Printed, and no file: of `timebox doctor --json`.
DIAGNOSIS_FORMAT = FileFormat("doctor --json")

FORMATS = tuple(value for value in list(globals().values()) if isinstance(value, FileFormat))
