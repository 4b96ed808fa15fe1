"""`timebox lr-find`: what is asked for, and what is printed."""

import numpy as np
import pytest

from timebox.pipelines.lr_find import LRRange
from timebox.recipes import get_recipe
from timebox.training.lr_range_test import suggest_lr

from .conftest import Command, Replace

ASKED: list[dict[str, object]] = []


def found(recipe: str = "haet2021", suggested: bool = True, num_steps: int = 100) -> LRRange:
    lrs = np.geomspace(1e-3, 1e2, 100)
    x = np.log10(lrs)
    losses = 2.3 - (1.5 / (1 + np.exp(-5 * (x + 1))) if suggested else 0) + np.clip(x, 0, None) ** 2
    test = suggest_lr(list(lrs[:num_steps]), list(losses[:num_steps]), diverged=False)
    return LRRange(test, get_recipe(recipe), "runs/lr")


@pytest.fixture
def finds(replace: Replace) -> None:
    ASKED.clear()

    def lr_find(data: str, **given: object) -> LRRange:
        ASKED.append({"data": data, **given})
        return found(str(given["recipe"]) if given["recipe"] != "auto" else "airbench94", data != "flat")

    replace("timebox.pipelines.lr_find", lr_find=lr_find)


@pytest.mark.usefixtures("finds")
def test_the_curve_is_drawn_and_the_next_command_given(timebox: Command) -> None:
    out = timebox("lr-find", "my photos", "--recipe", "haet2021", "--train-budget", "4m").out
    lines = out.splitlines()
    assert len({len(line) for line in lines[:10]}) == 1
    assert sum(any("\u2800" < sign <= "\u28ff" for sign in line) for line in lines[:10]) > 5
    assert "▲" in out
    assert "timebox train 'my photos' --budget TIME --recipe haet2021 --set max_lr=" in lines[-1]
    assert ASKED[0]["train_budget"] == "4m"


@pytest.mark.usefixtures("finds")
def test_muon_is_told_its_rate(timebox: Command) -> None:
    assert "--set filter_lr=" in timebox("lr-find", "digits").out


@pytest.mark.usefixtures("finds")
def test_json_holds_it_all(timebox: Command) -> None:
    told = timebox("lr-find", "digits", "--json").json()
    assert told["directory"] == "runs/lr"
    assert len(told["lr"]) == told["steps"] == 100


@pytest.mark.usefixtures("finds")
def test_without_a_suggestion_there_is_no_next_command(timebox: Command) -> None:
    out = timebox("lr-find", "flat").out
    assert "no suggestion" in out
    assert "next" not in out


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "much"])
def test_rates_are_numbers_above_0(timebox: Command, value: str) -> None:
    outcome = timebox("lr-find", "digits", "--low", value)
    assert outcome.status == 2
    assert "must be a number above 0" in outcome.err
