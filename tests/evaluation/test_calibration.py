"""Temperature scaling and the expected calibration error."""

import numpy as np
import pytest

from timebox.evaluation.calibration import apply_temperature, expected_calibration_error, fit_temperature


def calibrated(num=4000, num_classes=5, seed=0):
    """Perfectly calibrated probabilities, with labels drawn from them."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.normal(size=(num, num_classes))
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = (probabilities.cumsum(1) > rng.random((num, 1))).argmax(1)
    return probabilities.astype(np.float32), labels.astype(np.int64)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_the_fit_recovers_a_temperature(temperature):
    probabilities, labels = calibrated()
    miscalibrated = apply_temperature(probabilities, 1 / temperature)
    assert fit_temperature(miscalibrated, labels) == pytest.approx(temperature, rel=0.08)
    assert np.allclose(apply_temperature(miscalibrated, temperature), probabilities, atol=1e-5)


def test_the_temperature_stays_within_bounds():
    sure = np.tile(np.array([[0.6, 0.4]], np.float32), (50, 1))
    assert fit_temperature(sure, np.zeros(50, np.int64)) == pytest.approx(0.25, abs=0.01)
    assert fit_temperature(sure, np.ones(50, np.int64)) == pytest.approx(4, abs=0.01)
    never = np.tile(np.array([[1.0, 0.0]], np.float32), (50, 1))
    assert np.isfinite(fit_temperature(never, np.ones(50, np.int64)))


def test_fewer_than_20_images_have_temperature_1():
    probabilities, labels = calibrated(19)
    assert fit_temperature(probabilities, labels) == 1.0


def test_temperature_1_changes_nothing_and_no_temperature_changes_the_order():
    probabilities, _ = calibrated(100)
    assert apply_temperature(probabilities, 1.0) is probabilities
    for temperature in (0.25, 3.0):
        changed = apply_temperature(probabilities, temperature)
        assert changed.dtype == np.float32
        assert np.allclose(changed.sum(1), 1, atol=1e-6)
        assert np.array_equal(changed.argsort(1), probabilities.argsort(1))


def test_the_error_is_the_gap_between_confidence_and_accuracy():
    probabilities = np.array([[0.9, 0.1]] * 10 + [[0.61, 0.39]] * 10, np.float32)
    labels = np.array([0] * 7 + [1] * 3 + [0] * 6 + [1] * 4)
    assert expected_calibration_error(probabilities, labels) == pytest.approx((0.2 + 0.01) / 2, abs=1e-6)
    probabilities, labels = calibrated(20000)
    assert expected_calibration_error(probabilities, labels) < 0.02


def test_fifty_images_without_an_error_do_not_give_certainty():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 50)
    probabilities = np.full((50, 10), 0.02) + 0.8 * np.eye(10)[labels]
    probabilities = (probabilities * rng.uniform(0.9, 1.1, (50, 10))).astype(np.float32)
    probabilities /= probabilities.sum(1, keepdims=True)
    sure = apply_temperature(probabilities, fit_temperature(probabilities, labels)).max(1)
    assert 0.95 < sure.mean() < 0.99


def test_with_many_classes_the_fit_uses_fewer_images(monkeypatch):
    probabilities, labels = calibrated()
    monkeypatch.setattr("timebox.evaluation.calibration.MAX_FITTED_PROBABILITIES", 500 * 5)
    assert fit_temperature(probabilities, labels) == fit_temperature(probabilities[:500], labels[:500])
    monkeypatch.setattr("timebox.evaluation.calibration.MAX_FITTED_PROBABILITIES", 1)
    assert fit_temperature(probabilities, labels) == fit_temperature(probabilities[:20], labels[:20])
