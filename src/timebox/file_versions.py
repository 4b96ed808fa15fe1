"""The files that timebox reads again: their format numbers, and the steps that bring older formats to the present one.

Each file carries the number of its format; one without a number is of format 1. A change that an older version would
misread raises the number by one: add the step from the format before it to `steps` of the file, a pure function from
the old values to the new ones, a row in docs/run-format.md, and golden runs of the new format (tests/golden/make.py).
"""

import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from timebox.errors import RunError

Values = dict[str, object]
Migration = Callable[[Values], Values]

KEY = "format"
UNNUMBERED = 1
DISTRIBUTION = "timebox-vision"


@dataclass(eq=False)
class FileFormat:
    """The formats of one kind of file.

    Attributes:
        file: what it is called.
        oldest: the first format that a released version wrote.
        steps: from each format to the one after it, from the oldest on.
    """

    file: str
    oldest: int = 1
    steps: tuple[Migration, ...] = ()

    @property
    def newest(self) -> int:
        """The format that this version writes."""
        return self.oldest + len(self.steps)

    def numbered(self, values: Mapping[str, object]) -> Values:
        """Values in the newest format, with its number, as they are written."""
        return {KEY: self.newest} | {name: value for name, value in values.items() if name != KEY}

    def upgraded(self, values: Mapping[str, object], where: str) -> Values:
        """Values as they were read, in the newest format.

        Args:
            where: the file, for messages.
        Raises:
            RunError: for a format that this version does not know, and where a step finds the values damaged.
        """
        found = self.check(values.get(KEY, UNNUMBERED), where)
        upgraded = dict(values)
        try:
            for step in self.steps[found - self.oldest :]:
                upgraded = step(upgraded)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise RunError(f"{where} is damaged: {error}") from error
        return {**upgraded, KEY: self.newest}

    def check(self, found: object, where: str) -> int:
        """A format number that was read. Raises RunError, naming the file, where this version cannot read it."""
        if type(found) is not int or found < 1:
            raise RunError(f"{where} is damaged: its format {reprlib.repr(found)} is no whole number from 1 on")
        if found > self.newest:
            raise RunError(
                f"{where} has format {reprlib.repr(found)}; this version of timebox reads formats up to {self.newest}: "
                f"install a newer {DISTRIBUTION}"
            )
        if found < self.oldest:
            raise RunError(f"{where} has format {found}; the oldest that a released version wrote is {self.oldest}")
        return found


def _ensemble_size(values: Values) -> Values:
    """The recipe's field ``members`` is called ``ensemble_size``: recipes are read under either name."""
    return values


# A run. trained_on.npy, model.safetensors and the tensors of a checkpoint have no number of their own: a change to one
# of them raises that of model.json or of the manifest.
MODEL_FORMAT = FileFormat("model.json", oldest=4, steps=(_ensemble_size,))
SUMMARY_FORMAT = FileFormat("summary.json")
METRICS_FORMAT = FileFormat("metrics.jsonl")
PREDICTIONS_FORMAT = FileFormat("predictions.npz")
EXAMPLES_FORMAT = FileFormat("examples.npz")
RANKS_FORMAT = FileFormat("group.json")
CHECKPOINT_FORMAT = FileFormat("checkpoint/manifest.json")
# What other commands write.
ESTIMATOR_FORMAT = FileFormat("estimator.json")
LR_FIND_FORMAT = FileFormat("lr_find.json")
TUNE_FORMAT = FileFormat("tune.json")
TUNE_CLOCK_FORMAT = FileFormat("clock.json")
TUNE_STUDY_FORMAT = FileFormat("journal.log")
TUNE_TRIAL_FORMAT = FileFormat("trials.jsonl of a search")
TUNE_SUMMARY_FORMAT = FileFormat("summary.json of a search")
BENCHMARK_FORMAT = FileFormat("benchmark.json")
BENCHMARK_TRIAL_FORMAT = FileFormat("trials.jsonl of a benchmark")
BENCHMARK_SUMMARY_FORMAT = FileFormat("summary.json of a benchmark")

FORMATS = (
    MODEL_FORMAT,
    SUMMARY_FORMAT,
    METRICS_FORMAT,
    PREDICTIONS_FORMAT,
    EXAMPLES_FORMAT,
    RANKS_FORMAT,
    CHECKPOINT_FORMAT,
    ESTIMATOR_FORMAT,
    LR_FIND_FORMAT,
    TUNE_FORMAT,
    TUNE_CLOCK_FORMAT,
    TUNE_STUDY_FORMAT,
    TUNE_TRIAL_FORMAT,
    TUNE_SUMMARY_FORMAT,
    BENCHMARK_FORMAT,
    BENCHMARK_TRIAL_FORMAT,
    BENCHMARK_SUMMARY_FORMAT,
)
