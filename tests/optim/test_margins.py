"""Margins of training images: sums of what a network says of their labels."""

import numpy as np
import pytest
import torch

from timebox.optim.margins import MarginRecorder

CPU = torch.device("cpu")


def test_the_mean_margin_and_the_last_rival() -> None:
    recorder = MarginRecorder(4, CPU)
    recorder.add(torch.tensor([[3.0, 1.0, 0.0], [0.0, 2.0, 5.0]]), torch.tensor([0, 1]), torch.tensor([2, 0]))
    recorder.add(torch.tensor([[1.0, 0.0, 4.0]]), torch.tensor([0]), torch.tensor([2]))
    means = recorder.means()
    np.testing.assert_allclose(means.margins, [-3.0, np.nan, (2.0 - 3.0) / 2, np.nan])
    assert means.rivals[[0, 2]].tolist() == [2, 2]


def test_mixed_images_are_left_out() -> None:
    recorder = MarginRecorder(2, CPU)
    labels = torch.tensor([[0.7, 0.3], [0.0, 1.0]])
    recorder.add(torch.tensor([[5.0, 1.0], [1.0, 2.0]]), labels, torch.tensor([0, 1]))
    np.testing.assert_allclose(recorder.means().margins, [np.nan, 1.0])


def test_an_image_twice_in_a_batch_counts_twice() -> None:
    recorder = MarginRecorder(1, CPU)
    recorder.add(torch.tensor([[5.0, 1.0], [1.0, 2.0]]), torch.tensor([0, 0]), torch.tensor([0, 0]))
    np.testing.assert_allclose(recorder.means().margins, [1.5])


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_failed_step_leaves_the_sums_finite(value: float) -> None:
    recorder = MarginRecorder(1, CPU)
    recorder.add(torch.tensor([[value, value]]), torch.tensor([0]), torch.tensor([0]))
    recorder.add(torch.tensor([[2.0, 0.0]]), torch.tensor([0]), torch.tensor([0]))
    np.testing.assert_allclose(recorder.means().margins, [1.0])


def test_sums_are_restored() -> None:
    recorder = MarginRecorder(1, CPU)
    before = recorder.state()
    recorder.add(torch.tensor([[2.0, 0.0]]), torch.tensor([0]), torch.tensor([0]))
    recorder.restore(before)
    assert np.isnan(recorder.means().margins).all()
