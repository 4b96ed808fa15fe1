"""What :func:`timebox.train` was asked for, checked before anything slow begins."""

import inspect
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from timebox.clock import Deadline, format_duration
from timebox.errors import BudgetError, UsageError
from timebox.jobs.data import DataConfig
from timebox.recipe import AUTO, parse_recipe
from timebox.runtime.precision import PRECISIONS

# Starting Python and torch and leaving again takes up to about this long on a slow machine.
SHORTEST_BUDGET_SECONDS = 4.0


@dataclass(frozen=True)
class TrainConfig:
    """The arguments of :func:`timebox.train` that decide what is trained."""

    source: DataConfig
    recipe: str
    settings: tuple[str, ...]
    seed: int
    precision: str
    num_steps: int | None
    scoring: bool = True
    thumbnails: bool = True
    init: str | None = None

    def command(self, budget_seconds: float | None) -> str:
        """The command line that asks for the same."""
        source = self.source
        options: list[tuple[str, object, object]] = [
            ("--budget", None if budget_seconds is None else f"{budget_seconds:g}s", None),
            ("--steps", self.num_steps, None),
            ("--recipe", self.recipe, AUTO),
            *(("--set", setting, None) for setting in self.settings),
            ("--val", source.val, None),
            ("--test", source.test, None),
            ("--train-limit", source.train_limit, None),
            ("--test-limit", source.test_limit, None),
            ("--split-seed", source.split_seed, 0),
            ("--group-by", source.group_by, None),
            ("--seed", self.seed, 0),
            ("--precision", self.precision, "auto"),
            ("--init", self.init, None),
        ]
        words = ["timebox", "train", source.data]
        words += [word for name, value, default in options if value != default for word in (name, str(value))]
        switches = {"--coarse": source.coarse, "--no-scoring": not self.scoring, "--no-thumbnails": not self.thumbnails}
        return shlex.join([*words, *(name for name, given in switches.items() if given)])


def check_train_config(request: TrainConfig, deadline: Deadline) -> None:
    """Refuse at once what needs no data to be refused."""
    budget, steps = deadline.budget_seconds, request.num_steps
    if budget is not None and steps is not None:
        raise UsageError("budget and steps exclude each other: give --budget 10m, or --steps N for a repeatable run")
    if budget is None and steps is None:
        raise UsageError("give a budget, for example --budget 10m, or --steps N")
    if steps is not None and steps < 1:
        raise UsageError(f"steps {steps} must be at least 1")
    if budget is not None and budget < SHORTEST_BUDGET_SECONDS:
        raise BudgetError(
            f"budget {format_duration(budget)} is too short: starting and leaving alone take seconds; "
            f"use at least {SHORTEST_BUDGET_SECONDS:.0f}s"
        )
    if request.precision not in ("auto", *PRECISIONS):
        raise UsageError(f"precision {request.precision!r} is unknown; use auto, {', '.join(PRECISIONS)}")
    for name, seed in (("seed", request.seed), ("split_seed", request.source.split_seed)):
        if not 0 <= seed < 2**63:
            raise UsageError(f"{name} {seed} must be 0 or more, and below 2**63")


def image_form(recipe: str, settings: Sequence[str]) -> tuple[int | None, str]:
    """What the recipe asks of images, known before the data are read: their side in pixels, None to follow the data,
    and how those of another shape become square.

    Also refuses an unknown recipe or field before anything slow begins.
    """
    recipe_so_far = parse_recipe(recipe, settings).base
    return recipe_so_far.image_size or None, recipe_so_far.image_fit


def arguments_given(function: Callable[..., object], arguments: Mapping[str, object]) -> set[str]:
    """Names of a function's arguments that are not left at their defaults."""
    parameters = inspect.signature(function).parameters
    return {name for name, parameter in parameters.items() if arguments[name] not in (parameter.default, [])}


def is_planned(recipe: str) -> bool:
    """Whether ``auto`` plans it."""
    return parse_recipe(recipe).fixed is None
