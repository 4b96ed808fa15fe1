"""Types of the values in a run's JSON files that several files share, with their ranges."""

from typing import Annotated

from msgspec import Meta

from timebox.evaluation.calibration import HIGHEST, LOWEST

# JSON readers of other languages take no larger integers, and msgspec no larger bounds.
MAX_INT = 2**63 - 1

Count = Annotated[int, Meta(ge=0, le=MAX_INT)]
PositiveCount = Annotated[int, Meta(ge=1, le=MAX_INT)]
Seconds = Annotated[float, Meta(ge=0)]
Share = Annotated[float, Meta(ge=0, le=1)]
Temperature = Annotated[float, Meta(ge=LOWEST, le=HIGHEST)]
RecipeFields = dict[str, bool | int | float | str]
PhaseSeconds = dict[str, float]  # a phase that a download is subtracted from may come out below 0
