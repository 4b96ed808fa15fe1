import numpy as np
import pytest
import torch
from torch import nn

from timebox.pretrained.interpolation import DEFAULT_SHARE, SHARES, best_share, interpolate

LABELS = np.arange(40) % 2


def one_weight(value: float) -> nn.Linear:
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, value)
    return model


def test_a_share_of_the_way() -> None:
    model = one_weight(0.0)
    interpolate(model, one_weight(2.0).state_dict(), one_weight(4.0).state_dict(), 0.25)
    assert model.weight.item() == 2.5


@pytest.mark.parametrize("best", SHARES)
def test_the_share_with_the_largest_likelihood(best: float) -> None:
    model, asked = one_weight(1.0), set[int]()

    def predict(number: int) -> np.ndarray:
        """More images are right, the closer the weight is to the best one."""
        asked.add(number)
        num_right = round(number * (1 - 0.5 * abs(model.weight.item() - best)))
        is_first = (LABELS[:number] == 0) == (np.arange(number) < num_right)
        return np.where(is_first[:, None], [0.9, 0.1], [0.1, 0.9]).astype(np.float32)

    assert best_share(model, one_weight(0.0).state_dict(), predict, LABELS) == best
    assert model.weight.item() == best
    assert asked == {40}


def test_few_images_tell_nothing() -> None:
    model = one_weight(1.0)
    share = best_share(model, one_weight(0.0).state_dict(), lambda number: pytest.fail("asked"), LABELS[:19])
    assert share == DEFAULT_SHARE == model.weight.item()
    assert torch.equal(model.weight.detach(), torch.tensor([[DEFAULT_SHARE]]))
