"""The fit of the forecast: it finds what trainings were drawn from, and what lies in the records is what was fitted."""

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

import fit_forecast
from fit_forecast import Trained, Trainings
from timebox.planning.forecast.accuracy_model import TrainingFeatures, to_accuracy
from timebox.planning.forecast.patch_classifier import PatchAccuracy

TRUE = (0.8, 0.8, 0.3, 0.1, 0.0, -0.4, -0.2, -0.1)
DATA_SD, TRAINING_SD = 0.14, 0.07


def drawn(num_data_sets: int, seed: int, trainings_of_each: int = 6) -> list[Trained]:
    rng = np.random.default_rng(seed)
    trained = []
    for number in range(num_data_sets):
        effect = rng.normal(0, DATA_SD)
        num_classes = int(rng.integers(2, 60))
        easy = rng.uniform(0.1, 0.9)
        patches = PatchAccuracy(easy, easy * rng.uniform(0.6, 1))
        data = TrainingFeatures(int(rng.integers(800, 40_000)), num_classes, patches, 1.0)
        for _ in range(trainings_of_each):
            features = replace(data, work=float(10 ** rng.uniform(2.5, 5.5)))
            angle = np.dot(TRUE, features.vector()) + effect + rng.normal(0, TRAINING_SD)
            trained.append(Trained(f"set {number}", "task", features, to_accuracy(angle, num_classes), 5000))
    return trained


def test_the_intervals_hold_their_share_of_new_data_sets() -> None:
    inside = []
    for seed in range(8):
        trainings = Trainings(drawn(16, seed, 3))
        distances = {
            name: fit_forecast.distances_to(fit_forecast.fit(trainings.of(name, False)), trainings.of(name))
            for name in trainings.data_sets
        }
        model = msgspec.structs.replace(fit_forecast.fit(trainings), quantile=fit_forecast.quantile(distances))
        for one in drawn(40, 100 + seed, 1):
            low, _, high = model.interval(one.features, one.num_scored)
            inside.append(low <= one.accuracy <= high)
    assert 0.72 < np.mean(inside) < 0.9


def test_the_coefficients_and_variances_are_found() -> None:
    trainings = Trainings(drawn(60, 0))
    model = fit_forecast.fit(trainings)
    sds = np.sqrt(np.diag(model.covariance))
    assert np.abs((np.array(model.coefficients) - TRUE) / sds).max() < 3.5
    assert model.data_sd == pytest.approx(DATA_SD, abs=0.05)
    assert model.training_sd == pytest.approx(TRAINING_SD, abs=0.03)


def test_what_is_installed_was_fitted_to_the_records(capsys: pytest.CaptureFixture[str]) -> None:
    assert fit_forecast.main(["--check"]) == 0, capsys.readouterr().err


def test_another_record_is_noticed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("docs", "records", "src"):
        (tmp_path / name).symlink_to(fit_forecast.ROOT / name)
    (tmp_path / "records").unlink()
    (tmp_path / "records").mkdir()
    for record in (fit_forecast.ROOT / "records").iterdir():
        if record.name.endswith("auto-cells-15s_2-core-zen5-cpu"):
            continue
        (tmp_path / "records" / record.name).symlink_to(record)
    assert fit_forecast.main(["--check", "--root", str(tmp_path)]) == 1
    assert "records/ disagree" in capsys.readouterr().err
