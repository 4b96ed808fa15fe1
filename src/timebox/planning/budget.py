"""The split of a budget into training, validation, scoring, saving and the end of the process."""

from dataclasses import dataclass

from timebox.clock import Deadline, format_duration
from timebox.data.reading.time_limit import budget_for_share
from timebox.errors import BudgetError
from timebox.evaluation.tta import NUM_VIEWS
from timebox.planning.plan import NUM_VALIDATIONS
from timebox.runtime.write_speed import WRITES_AT_THE_END, WriteSpeed

# Shortest schedule, in steps; and the fewest for which measurements have to find time: a budget is refused below these
# only, so that one that was named for the shortest schedule is not refused where the machine is a little slower then.
MIN_STEPS, FEWEST_STEPS = 10, 8
# Margins of the smallest budget that is named: of the time that went by before training, and of the training steps.
# Both are measured once, on a machine that other programs may slow down.
ELAPSED_MARGIN, STEPS_MARGIN = 1.25, 1.5
# Fractions of the budget: scoring after the training; planned and largest time of all validations during it. Together
# they stay within a tenth.
FINAL_SCORING_SHARE = 0.07
VALIDATION_SHARE, MAX_VALIDATION_SHARE = 0.02, 0.03
# Images of a validation during training: enough to see the trend; fewer than the minimum would be misleading.
MAX_VALIDATION_IMAGES = 2000
MIN_VALIDATION_IMAGES = 50
# Reserved at the end for leaving the interpreter (seconds) and for a machine that stutters (fraction of the budget).
EXIT_SECONDS = 0.8
STUTTER_SHARE = 0.01
# Reserved for the report, which takes about half of this on two cores.
REPORT_SECONDS = 0.4


@dataclass(frozen=True)
class ScoringLoad:
    """Images to score after a training, by split, and whether a report is written."""

    num_val: int
    num_test: int
    has_report: bool = False

    @property
    def num_images(self) -> int:
        return self.num_val + self.num_test

    @property
    def num_reported(self) -> int:
        """Images of the split whose accuracy is reported first: test, else val."""
        return self.num_test or self.num_val

    def seconds(self, seconds_per_image: float, tta: str) -> float:
        """Time to reserve for scoring. The margin of 50 % is there because the time per image is measured on a few."""
        num_views = self.num_images * NUM_VIEWS[tta]
        return 1.5 * num_views * seconds_per_image + 0.5 if num_views else 0.0


@dataclass(frozen=True)
class ModelCost:
    """Costs of a model other than its training steps: scoring is for one view, recording is of CUDA graphs."""

    num_bytes: int
    scoring_seconds_per_image: float
    recording_seconds: float
    tta: str


@dataclass(frozen=True)
class BudgetSplit:
    """The time left of a budget, by its use.

    Attributes:
        training_seconds: training steps, with the validations between them; not positive where no time is left.
        scoring_seconds: scoring after the training.
        saving_seconds: writing the last files.
        finish_seconds: all after scoring: saving, the report and leaving the process.
    """

    training_seconds: float
    scoring_seconds: float
    saving_seconds: float
    finish_seconds: float


@dataclass(frozen=True)
class Budget:
    """A deadline, and the work besides training that has to be done before it.

    Attributes:
        planning_started: seconds of the deadline that had gone by when planning began.
    """

    deadline: Deadline
    scoring: ScoringLoad
    write_speed: WriteSpeed
    planning_started: float = 0.0

    @property
    def total_seconds(self) -> float:
        """The whole budget."""
        return self.deadline.budget_seconds or 0.0

    def split(self) -> BudgetSplit:
        """Split the time left before a model is chosen: scoring gets the most that it may take."""
        saving_seconds, finish_seconds = self._ending_seconds(0)
        seconds = self.deadline.remaining() - finish_seconds
        scoring_share = FINAL_SCORING_SHARE if self.scoring.num_images else 0.0
        training_seconds = max((1 - scoring_share) * seconds, 0.0)
        return BudgetSplit(training_seconds, scoring_share * seconds, saving_seconds, finish_seconds)

    def training_seconds_of(self, split: BudgetSplit, budget_seconds: float) -> float:
        """Seconds of training with another budget, given the split of this one."""
        growing_share = 1 - STUTTER_SHARE - (FINAL_SCORING_SHARE if split.scoring_seconds else 0.0)
        return split.training_seconds + growing_share * (budget_seconds - self.total_seconds)

    def split_for(self, model: ModelCost) -> BudgetSplit:
        """Split the time left for a model."""
        saving_seconds, finish_seconds = self._ending_seconds(model.num_bytes)
        planned_seconds = self.scoring.seconds(model.scoring_seconds_per_image, model.tta)
        scoring_seconds = min(FINAL_SCORING_SHARE * self.total_seconds, planned_seconds)
        training_seconds = self.deadline.remaining() - scoring_seconds - finish_seconds - model.recording_seconds
        return BudgetSplit(training_seconds, scoring_seconds, saving_seconds, finish_seconds)

    def _ending_seconds(self, model_bytes: int) -> tuple[float, float]:
        """(saving, saving and all that follows)."""
        has_scores, has_report = self.scoring.num_images > 0, self.scoring.has_report
        num_writes = WRITES_AT_THE_END + (1 if has_scores else 0) + (2 if has_report else 0)
        large_seconds = self.write_speed.planned_seconds(0, model_bytes)
        saving_seconds = self.write_speed.planned_seconds(num_writes)
        report_seconds = REPORT_SECONDS if has_report else 0.0
        finish_seconds = saving_seconds + report_seconds + EXIT_SECONDS + STUTTER_SHARE * self.total_seconds
        return saving_seconds + large_seconds, finish_seconds + large_seconds

    def num_val_images(self, scoring_seconds_per_image: float) -> int:
        """Images of each validation during training, as many as 2 % of the budget allow; 0 if those are too few."""
        num_val = self.scoring.num_val
        affordable = VALIDATION_SHARE * self.total_seconds / (NUM_VALIDATIONS - 1) / scoring_seconds_per_image
        num_images = min(num_val, int(affordable), MAX_VALIDATION_IMAGES)
        return num_images if num_images >= min(num_val, MIN_VALIDATION_IMAGES) else 0

    def has_time_for(self, model: ModelCost, step_seconds: float) -> bool:
        """Whether there is time left for ``FEWEST_STEPS`` steps."""
        return self.split_for(model).training_seconds >= FEWEST_STEPS * step_seconds

    def check_training_time(self, model: ModelCost, step_seconds: float, source: str) -> None:
        """Raise BudgetError with the smallest sufficient budget if there is no time for ``FEWEST_STEPS`` steps."""
        if self.has_time_for(model, step_seconds):
            return
        raise BudgetError.too_short(
            f"budget {format_duration(self.total_seconds)} is too short: reading {source!r} and planning took "
            f"{format_duration(self.deadline.elapsed())}, and {MIN_STEPS} steps take about "
            f"{format_duration(MIN_STEPS * step_seconds)} here",
            self._smallest_seconds(model, step_seconds),
        )

    def _smallest_seconds(self, model: ModelCost, step_seconds: float) -> float:
        """The smallest budget with which a command like this one has time for ``MIN_STEPS`` steps, with margins."""
        elapsed, (_, finish_seconds) = self.deadline.elapsed(), self._ending_seconds(model.num_bytes)
        fixed = ELAPSED_MARGIN * elapsed + finish_seconds - STUTTER_SHARE * self.total_seconds + model.recording_seconds
        fixed += STEPS_MARGIN * MIN_STEPS * step_seconds
        # Scoring takes the planned time or its share of the budget, whichever is less.
        with_planned_scoring = fixed + self.scoring.seconds(model.scoring_seconds_per_image, model.tta)
        with_share = fixed / (1 - FINAL_SCORING_SHARE - STUTTER_SHARE)
        reading_seconds = self.deadline.phases_so_far().get("reading", 0.0)
        for_reading = budget_for_share(self.planning_started - reading_seconds, ELAPSED_MARGIN * reading_seconds)
        return max(min(with_planned_scoring / (1 - STUTTER_SHARE), with_share), for_reading)
