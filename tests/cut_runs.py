"""Trainings that end in the middle of a step, and what they leave behind."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from torch import Tensor

from timebox.run import Run
from timebox.training import step as steps

STEPS = 12


class KilledError(BaseException):
    """The process was killed: nothing is tidied up, as far as that can be had inside one process."""


def cut(step: int, error: type[BaseException], begin: Callable[..., Run], *given: object, **more: object) -> Run:
    """What the training ``begin(*given, **more)`` comes to when ``error`` is raised inside its step ``step``."""
    original, count = steps.training_step, 0

    def step_or_end(*rest: object) -> Tensor:
        nonlocal count
        count += 1
        loss = original(*rest)  # type: ignore[arg-type]
        if count == step:
            raise error
        return loss

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steps, "training_step", step_or_end)
        return begin(*given, **more)


def summary(run: Run) -> dict[str, object]:
    return json.loads((run.path / "summary.json").read_text())


def entries(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


def names(path: Path) -> set[str]:
    return {file.name for file in path.iterdir()}
