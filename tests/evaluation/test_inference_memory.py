"""The memory of inference: in proportion to the pixels, below its quick bound, and nothing is allocated."""

import pytest
import torch

from timebox.builders import build_model
from timebox.errors import UsageError
from timebox.evaluation.inference_memory import inference_bytes, inference_bytes_bound
from timebox.recipes import Recipe, get_recipe

NETWORKS = ("airbench94", "haet2021", "superconvergence")


def bytes_of(recipe: Recipe, side: int, num_classes: int = 10) -> int:
    with torch.device("meta"):
        model = build_model(recipe, 3, num_classes).eval()
    return inference_bytes(model, (side, side, 3))


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("changes", [{}, {"width": 4}, {"width": 512}], ids=str)
def test_the_bytes_of_an_image(name: str, changes: dict[str, int]) -> None:
    recipe = get_recipe(name).replace(**changes)
    for side, num_classes in ((16, 10), (64, 50_000), (256, 10)):
        bound = inference_bytes_bound(recipe, (side, side, 3), num_classes)
        assert 0 < bytes_of(recipe, side, num_classes) <= bound
    assert bytes_of(recipe, 2048) == pytest.approx(64 * bytes_of(recipe, 256), rel=0.1)
    # The first stage's channels, in and out of an operation.
    assert bytes_of(recipe, 256) >= 256 * 256 * recipe.width * 4 * 2 * (1 if name == "airbench94" else 2)


def test_a_network_that_cannot_be_trained_here_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("timebox.machine.available_memory", lambda: 10**9)
    recipe = get_recipe("haet2021").replace(width=512, ensemble_size=64)
    with pytest.raises(UsageError, match=r"^recipe 'haet2021' needs about [\d,.]+ GB of memory for training a network"):
        build_model(recipe, 3, 10)
    build_model(get_recipe("haet2021").replace(width=8), 3, 10)
