"""`timebox tune`: what is asked for, and what is printed."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from timebox.configs.tune import TuneConfig

from .conftest import Command, Replace

ASKED: list[dict[str, object]] = []
SUMMARY = {
    "winner": {"trial": 3, "settings": ["max_lr=x0.5"]},
    "best_trials": [
        {"trial": 3, "settings": ["max_lr=x0.5"], "accuracies": [0.8, 0.81], "mean": 0.805, "sd": 0.00707},
        {"trial": None, "settings": [], "accuracies": [0.79], "mean": 0.79, "sd": None},
    ],
    "final": {"test_accuracy": 0.85, "test_images": 1000},
    "why": "",
    "late": False,
    "num_trials": 12,
    "num_complete": 4,
    "elapsed_seconds": 118.2,
    "budget_seconds": 120.0,
}


@pytest.fixture
def tunes(replace: Replace) -> None:
    ASKED.clear()

    def tune(data: str | None, **given: object) -> object:
        ASKED.append({"data": data, **given})
        return SimpleNamespace(path=Path("runs/tune"), summary=SUMMARY)

    def join(config: TuneConfig) -> int:
        ASKED.append(config.arguments())
        return 7

    replace("timebox.tuning.tune", tune=tune, join=join)


@pytest.mark.usefixtures("tunes")
def test_what_is_asked_for_is_handed_on(timebox: Command) -> None:
    outcome = timebox(
        "tune", "photos", "--budget", "1h", "--trial-budget", "30s", "--set", "max_lr=x20", "--space", "space.toml",
        "--workers", "3", "--val", "0.3", "--train-limit", "500", "--seed", "7", "--storage", "sqlite:///a.db",
    )  # fmt: skip
    assert outcome.status == 0
    (asked,) = ASKED
    expected = {
        "data": "photos", "trial_budget": "30s", "settings": ("max_lr=x20",), "space": "space.toml", "workers": 3,
        "val": 0.3, "train_limit": 500, "seed": 7, "storage": "sqlite:///a.db", "sampler": "tpe", "recipe": "auto",
    }  # fmt: skip
    assert {name: asked[name] for name in expected} == expected
    assert asked["deadline"].budget_seconds == 3600.0  # type: ignore[attr-defined]


@pytest.mark.usefixtures("tunes")
def test_the_best_trials_and_the_winner_are_shown(timebox: Command) -> None:
    out = timebox("tune", "photos", "--budget", "2m").out
    assert "80.50 %" in out
    assert "the starting recipe" in out
    assert "max_lr=x0.5" in out
    assert "85.00 % of 1,000 images" in out
    assert "12, 4 of them under the whole trial budget" in out


@pytest.mark.usefixtures("tunes")
def test_json_holds_it_all(timebox: Command) -> None:
    told = timebox("tune", "photos", "--budget", "2m", "--json").json()
    assert told["directory"] == "runs/tune"
    assert told["best_trials"] == SUMMARY["best_trials"]


@pytest.mark.usefixtures("tunes")
def test_joining_takes_data_and_storage(timebox: Command) -> None:
    assert timebox("tune", "photos", "--join", "s", "--storage", "postgresql://h/d").status == 0
    (asked,) = ASKED
    assert (asked["data"], asked["join"], asked["storage"]) == ("photos", "s", "postgresql://h/d")
    outcome = timebox("tune", "photos", "--join", "s")
    assert outcome.status == 2
    assert "--storage" in outcome.err


def test_without_optuna_it_says_what_to_install(timebox: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    for name in [name for name in sys.modules if name.startswith("timebox.tuning")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "optuna", None)
    outcome = timebox("tune", "photos", "--budget", "2m")
    assert outcome.status == 2
    assert "pip install 'timebox-vision[tune]'" in outcome.err
