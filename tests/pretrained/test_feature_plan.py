import pytest

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
    plan_features,
)

WANTED = {"train": 1000, "val": 200, "test": 300}
COSTS = FeatureCosts(features=0.002, epoch={15: 0.001, 11: 0.005})
DEEP, SHALLOW = MIN_EPOCHS


def planned(seconds: float, is_tuned: bool = True) -> FeaturePlan:
    return plan_features(WANTED, 40, COSTS, seconds, is_tuned)


def seconds_of(num_frozen: int, epochs: int = NUM_EPOCHS, side: int = SMALLEST_SIDE) -> float:
    """Seconds of all images."""
    return MARGIN * (side / SMALLEST_SIDE) ** 2 * (1500 * 0.002 + 1000 * COSTS.epoch[num_frozen] * epochs)


def test_the_best_classifier_that_there_is_time_for() -> None:
    plans = [
        *(FeaturePlan(WANTED, side, DEEP, NUM_EPOCHS) for side in BACKBONE_SIDES),
        FeaturePlan(WANTED, SMALLEST_SIDE, DEEP, MIN_EPOCHS[DEEP]),
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
    assert (plan.side, plan.num_frozen) == (SMALLEST_SIDE, SHALLOW)
    room = MAX_BYTES if available in (None, 1 << 40) else 100 << 20
    assert 0.9 * room < plan.num_bytes <= room


def test_no_time() -> None:
    with pytest.raises(NotAffordableError, match=r"features of 240 images would take .*, and they may take 0\.1s"):
        planned(0.1)
