"""How large images are worth reading."""

import pytest
import torch

from timebox.planning import image_size as sizing
from timebox.planning.image_size import largest_side_for

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(autouse=True)
def two_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sizing, "available_threads", lambda: 2)


def test_never_below_what_is_usual_nor_above_what_a_network_takes() -> None:
    for budget in (4.0, 60.0, 600.0, 1e6):
        sides = [largest_side_for(budget, CPU)(num_images) for num_images in (10, 1000, 50_000, 10**7)]
        assert sides == sorted(sides, reverse=True)
        assert {64, 96, 128} >= set(sides)


def test_time_threads_and_a_gpu_allow_for_more(monkeypatch: pytest.MonkeyPatch) -> None:
    assert largest_side_for(20, CPU)(1000) == 64
    assert largest_side_for(3600, CPU)(1000) == 128
    assert largest_side_for(20, GPU)(1000) == 128
    monkeypatch.setattr(sizing, "available_threads", lambda: 256)
    assert largest_side_for(20, CPU)(1000) > 64


def test_counting_steps_does_not_depend_on_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    before = largest_side_for(None, CPU)(500)
    monkeypatch.setattr(sizing, "available_threads", lambda: 256)
    assert largest_side_for(None, CPU)(500) == largest_side_for(None, GPU)(500) == before
