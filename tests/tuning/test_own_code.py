"""A whole search for the recipe of a network of the user's."""

from pathlib import Path

import pytest

import own_networks
from timebox.tuning import tune

from .conftest import arguments, trial_seconds
from .pace import end_early, num_measured


@pytest.mark.integration
def test_a_search_with_a_network_and_a_loss_of_ones_own(
    data: Path, space: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker imports them by their names."""
    monkeypatch.setenv("PYTHONPATH", str(Path(own_networks.__file__).parent))
    end_early(monkeypatch, lambda lines: num_measured(lines) >= 2, trial_seconds())
    settings = ("model=own_networks:ConvNet", "loss=own_networks:focal", "batch_size=32")
    options = arguments(space, tmp_path / "tune", recipe="adamw", settings=settings)
    tuned = tune(data, **options)
    assert isinstance(tuned.run.model, own_networks.ConvNet)
    assert tuned.run.recipe.loss == "own_networks:focal"
    assert tuned.summary["num_complete"] >= 1
    assert 'model = "own_networks:ConvNet"' in (tuned.path / "best.toml").read_text()
