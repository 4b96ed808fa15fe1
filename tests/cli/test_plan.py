"""`timebox plan`: what is asked for, and what is printed."""

import dataclasses

import pytest

from timebox.pipelines.plan import PlannedTraining
from timebox.planning.forecast import Forecast
from timebox.recipes import get_recipe

from .conftest import Command, Replace

ASKED: list[dict[str, object]] = []
PLANNED = PlannedTraining(
    data_name="photos",
    num_images={"train": 900, "val": 100},
    num_classes=2,
    image_shape=(64, 48, 3),
    recipe=get_recipe("airbench94").replace(width=32, batch_size=100),
    device="cpu",
    precision="bf16",
    threads=2,
    budget_seconds=120.0,
    seconds={"start-up": 2.0, "reading": 1.0, "planning": 3.0, "training": 106.0, "scoring": 5.0, "reserve": 3.0},
    steps=180,
    epochs=20.0,
    step_seconds=0.5,
    forecasts=(Forecast(60.0, 0.7812, 0.70, 0.845), Forecast(120.0, 0.80, 0.72, 0.86)),
    lines=("CPU, 2 threads, bf16 (asked for)",),
)


@pytest.fixture(autouse=True)
def plans(replace: Replace) -> None:
    ASKED.clear()

    def plan(data: str, **given: object) -> PlannedTraining:
        ASKED.append({"data": data, **given})
        return PLANNED

    replace("timebox.pipelines.plan", plan=plan)


def test_a_plan_and_the_command_that_trains(timebox: Command) -> None:
    outcome = timebox("plan", "my photos", "--budget", "2m", "--set", "width=32", "--val", "0.1")
    assert (outcome.status, ASKED[0]["budget"], ASKED[0]["settings"], ASKED[0]["val"]) == (0, 120.0, ("width=32",), 0.1)
    assert outcome.out == (
        "  data           photos: train 900, val 100; 2 classes\n"
        "  images         48x64 px\n"
        "  device         cpu, bf16, 2 threads\n"
        "  network        airbench, width 32\n"
        "  training       20.0 epochs: 180 steps of 100 images\n"
        "  time             2.0s  start-up\n"
        "                   1.0s  reading\n"
        "                   3.0s  planning\n"
        "                  1m46s  training\n"
        "                   5.0s  scoring\n"
        "                   3.0s  reserve\n"
        "  accuracy           1m  78 % (80 % interval: 70 % to 84 %)\n"
        "                     2m  80 % (80 % interval: 72 % to 86 %)\n"
        "\n"
        "  next           timebox train 'my photos' --budget 120s --set width=32 --val 0.1\n"
    )


def test_the_command_names_the_budget_also_where_it_is_the_default(timebox: Command) -> None:
    assert timebox("plan", "photos").out.splitlines()[-1].endswith("timebox train photos --budget 600s")


def test_without_a_forecast_the_reason_is_printed(timebox: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = (*PLANNED.lines, "no forecast of the accuracy: 40 images, where it was fitted to 500 to 50,000")
    monkeypatch.setattr(f"{__name__}.PLANNED", dataclasses.replace(PLANNED, forecasts=(), lines=lines))
    assert f"  accuracy       {lines[-1]}\n" in timebox("plan", "photos").out


def test_json_holds_it_all(timebox: Command) -> None:
    told = timebox("plan", "photos", "--json").json()
    assert (told["num_images"], told["recipe"]["width"], told["seconds"]["reserve"]) == (
        {"train": 900, "val": 100},
        32,
        3.0,
    )
    assert told["lines"] == ["CPU, 2 threads, bf16 (asked for)"]
    assert told["forecasts"][0] == {"budget_seconds": 60.0, "expected": 0.7812, "low": 0.7, "high": 0.845}
