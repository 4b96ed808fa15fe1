"""Trainings interrupted in the middle of a step, and the files that they leave."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from torch import Tensor

from timebox.run import Run
from timebox.training import step as steps

STEPS = 12


class KilledError(BaseException):
    """Stands for a killed process: no code handles it as an error of its own."""


def cut(step: int, error: type[BaseException], train: Callable[..., Run], *args: object, **kwargs: object) -> Run:
    """The run that ``train(*args, **kwargs)`` returns when ``error`` is raised inside training step ``step``."""
    original, count = steps.training_step, 0

    def step_or_raise(*args: object) -> Tensor:
        nonlocal count
        count += 1
        loss = original(*args)  # type: ignore[arg-type]
        if count == step:
            raise error
        return loss

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steps, "training_step", step_or_raise)
        return train(*args, **kwargs)


def summary(run: Run) -> dict[str, object]:
    return json.loads((run.path / "summary.json").read_text())


def entries(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


def names(path: Path) -> set[str]:
    return {file.name for file in path.iterdir()}
