import pytest
import torch

from timebox.pretrained import feature_plan
from timebox.pretrained.feature_plan import (
    BACKBONE_SIDES,
    MARGIN,
    MAX_BYTES,
    MAX_VAL_IMAGES,
    MIN_EPOCHS,
    MIN_HELD_OUT,
    NUM_EPOCHS,
    SMALLEST_SIDE,
    FeatureCosts,
    FeaturePlan,
    NotAffordableError,
    largest_side_for_features,
    plan_features,
)

WANTED = {"train": 1000, "val": 200, "test": 300}
COSTS = FeatureCosts(features=0.002, epoch={15: 0.001, 13: 0.003, 11: 0.005})
DEEP, MIDDLE, SHALLOW = MIN_EPOCHS


def planned(seconds: float, is_tuned: bool = True) -> FeaturePlan:
    return plan_features(WANTED, 40, COSTS, seconds, is_tuned)


def seconds_of(num_frozen: int, epochs: int = NUM_EPOCHS, side: int = SMALLEST_SIDE) -> float:
    """Seconds of all images."""
    return MARGIN * (side / SMALLEST_SIDE) ** 2 * (1500 * 0.002 + 1000 * COSTS.epoch[num_frozen] * epochs)


def test_the_best_classifier_that_there_is_time_for() -> None:
    plans = [
        *(FeaturePlan(WANTED, side, DEEP, NUM_EPOCHS) for side in BACKBONE_SIDES),
        FeaturePlan(WANTED, SMALLEST_SIDE, DEEP, MIN_EPOCHS[DEEP]),
        FeaturePlan(WANTED, SMALLEST_SIDE, MIDDLE, NUM_EPOCHS),
        FeaturePlan(WANTED, SMALLEST_SIDE, MIDDLE, MIN_EPOCHS[MIDDLE]),
        FeaturePlan(WANTED, SMALLEST_SIDE, SHALLOW, NUM_EPOCHS),
        FeaturePlan(WANTED, SMALLEST_SIDE, SHALLOW, MIN_EPOCHS[SHALLOW]),
    ]
    for plan in plans:
        assert planned(1.01 * seconds_of(plan.num_frozen, plan.epochs, plan.side)) == plan


def test_fewer_images_within_the_time() -> None:
    seconds = 0.5 * seconds_of(SHALLOW, MIN_EPOCHS[SHALLOW])
    plan = planned(seconds)
    assert (plan.num_frozen, plan.epochs) == (SHALLOW, MIN_EPOCHS[SHALLOW])
    assert 40 <= plan.num_images["train"] < 1000
    assert all(plan.num_images[name] >= MIN_HELD_OUT for name in ("val", "test"))
    assert 0.95 * seconds < plan.seconds(COSTS) <= seconds


def test_few_images_are_seen_more_often() -> None:
    epochs = [plan_features({"train": number}, 8, COSTS, 1e6, is_tuned=True).epochs for number in (20, 300, 1000)]
    assert epochs == sorted(epochs, reverse=True)
    assert epochs[0] > epochs[1] > epochs[2] == NUM_EPOCHS


def test_without_fine_tuning() -> None:
    assert planned(1e6, is_tuned=False) == FeaturePlan(WANTED, max(BACKBONE_SIDES))
    assert planned(MARGIN * 1500 * 0.0021, is_tuned=False) == FeaturePlan(WANTED, SMALLEST_SIDE)


def test_without_a_clock() -> None:
    plan = plan_features({"train": 50, "val": 5000}, 40, FeatureCosts(0, {}), None, is_tuned=True)
    assert (plan.side, plan.num_frozen) == (SMALLEST_SIDE, SHALLOW)
    assert plan.num_images == {"train": 50, "val": MAX_VAL_IMAGES}


@pytest.mark.parametrize("available", [None, 1 << 40, 400 << 20])
def test_many_images_take_a_part_of_the_memory(available: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_plan, "available_memory", lambda: available)
    plan = plan_features({"train": 80_000, "test": 120_000}, 40, COSTS, 1e9, is_tuned=True)
    assert (plan.side, plan.num_frozen) == (SMALLEST_SIDE, MIDDLE)
    room = MAX_BYTES if available in (None, 1 << 40) else 100 << 20
    assert 0.9 * room < plan.num_bytes <= room


def test_no_time() -> None:
    with pytest.raises(NotAffordableError, match=r"features of 240 images would take .*, and they may take 0\.1s"):
        planned(0.1)


def test_images_are_read_as_large_as_there_is_time_for_their_features(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_plan, "available_threads", lambda: 2)
    monkeypatch.setattr(feature_plan, "available_memory", lambda: 1 << 40)
    on_cpu, on_gpu = torch.device("cpu"), torch.device("cuda")
    assert [largest_side_for_features(60.0, on_cpu)(number) for number in (100, 1500, 2500, 10_000, 11_000)] == [
        224, 192, 160, 128, 0,
    ]  # fmt: skip
    assert largest_side_for_features(300.0, on_cpu)(5000) == 224
    assert largest_side_for_features(60.0, on_gpu)(7000) == 224
    assert largest_side_for_features(None, on_cpu)(5000) == SMALLEST_SIDE  # no clock is read


def test_images_are_read_smaller_where_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    largest_side = largest_side_for_features(3600.0, torch.device("cuda"))
    assert [largest_side(number) for number in (7000, 10_000, 20_000, 30_000)] == [224, 160, 128, 0]
    monkeypatch.setattr(feature_plan, "available_memory", lambda: 1 << 30)
    assert largest_side_for_features(3600.0, torch.device("cuda"))(1000) == 160
