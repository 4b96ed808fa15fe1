"""model.json as a typed structure: the plan is recorded and restored."""

from dataclasses import replace

import pytest
import torch

from small_runs import small_plan
from timebox.configs.train import TrainConfig
from timebox.errors import RunError
from timebox.planning.plan import Plan
from timebox.recipes import get_recipe
from timebox.run.json_values import from_values, to_values
from timebox.run.model_config import PlanRecord, Preprocessing, TrainingRequest

PLAN = small_plan(get_recipe("haet2021"))


@pytest.mark.parametrize(
    "plan", [PLAN, replace(PLAN, num_steps=5, scoring_seconds=float("inf"), device=torch.device("cuda"))]
)
def test_a_plan_is_restored_from_its_record(plan: Plan) -> None:
    record = from_values(to_values(PlanRecord.of(plan)), PlanRecord, "a plan")
    assert record.plan(plan.recipe) == plan


def test_a_plan_that_reads_no_clock_has_no_seconds_for_scoring() -> None:
    values = to_values(PlanRecord.of(replace(PLAN, scoring_seconds=float("inf"))))
    assert values["scoring_seconds"] is None
    assert "recipe" not in values


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("micro_batch", 0), ("threads", 0), ("step_seconds", -0.1), ("scoring_seconds", -1.0), ("finish_seconds", -1.0),
        ("num_val_images", -1), ("scoring_batch", 0), ("num_steps", 0), ("precision", "fp8"), ("device", "tpu"),
        ("lines", None),
    ],
)  # fmt: skip
def test_a_damaged_plan_is_refused(key: str, value: object) -> None:
    values = {**to_values(PlanRecord.of(PLAN)), key: value}
    with pytest.raises(RunError, match=f"^a plan is damaged: .* at {key}$"):
        from_values(values, PlanRecord, "a plan")


def test_preprocessing_has_a_working_size() -> None:
    square = Preprocessing(image_shape=(8, 8, 1), mean=(0.5,), std=(0.25,))
    assert (square.size, square.channels, square.square_side) == ((8, 8), 1, 8)
    assert Preprocessing(image_shape=(8, 16, 1), mean=(0.5,), std=(0.25,)).square_side is None
    assert [tensor.tolist() for tensor in square.tensors()] == [[0.5], [0.25]]


def test_the_options_of_a_training_read_back() -> None:
    config = TrainConfig(data="a", steps=3, val=0.5, settings=("width=4",), seed=7, init="b")
    values = to_values(TrainingRequest.of(config, data_sha256=""))
    recorded = from_values(values, TrainingRequest, "a training")
    assert recorded.train_config(config.source, 7) == config
    older = {name: value for name, value in values.items() if name not in ("scoring", "thumbnails")}
    assert from_values(older, TrainingRequest, "a training").train_config(config.source, 7) == config
    with pytest.raises(RunError, match="a training is damaged: object missing required field recipe"):
        from_values({name: value for name, value in older.items() if name != "recipe"}, TrainingRequest, "a training")
