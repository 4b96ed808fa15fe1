"""The convolution whose weight gradient is computed in chunks of the batch."""

import pytest
import torch
from torch import Tensor, nn

from timebox.models.airbench import Airbench, AirbenchConfig
from timebox.models.kernels.chunked_conv import CHUNK_IMAGES, ChunkedConv2d


class TimeIsUpError(Exception):
    pass


def layer_and_input(num_images: int) -> tuple[ChunkedConv2d, Tensor]:
    torch.manual_seed(0)
    layer = ChunkedConv2d(8, 32).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return layer, torch.randn(num_images, 8, 7, 7).to(memory_format=torch.channels_last)


def gradients(layer: nn.Module, x: Tensor, dtype: torch.dtype | None) -> tuple[Tensor, Tensor, Tensor]:
    """The output, and the gradients with respect to input and weights of a function of it."""
    x = x.clone().requires_grad_()
    with torch.autocast("cpu", dtype, enabled=dtype is not None):
        output = layer(x)
    layer.zero_grad()
    output.float().sin().sum().backward()
    assert x.grad is not None and isinstance(layer.weight, Tensor) and layer.weight.grad is not None
    return output.detach(), x.grad, layer.weight.grad


@pytest.mark.parametrize("num_images", [1, CHUNK_IMAGES, 2 * CHUNK_IMAGES + 1])
def test_output_and_gradients_are_those_of_a_convolution(num_images: int) -> None:
    layer, x = layer_and_input(num_images)
    plain = nn.Conv2d(8, 32, 3, padding=1, bias=False)
    plain.load_state_dict(layer.state_dict())
    exact = gradients(plain, x, None)
    for chunked, usual, expected in zip(
        gradients(layer, x, torch.bfloat16), gradients(plain, x, torch.bfloat16), exact, strict=True
    ):
        assert chunked.dtype == usual.dtype
        error = float((usual.float() - expected).norm())
        assert float((chunked.float() - expected).norm()) <= 2 * error + 1e-6


def test_an_exception_between_chunks_ends_the_backward_pass() -> None:
    layer, x = layer_and_input(3 * CHUNK_IMAGES)
    calls = 0

    def raise_in_the_second() -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise TimeIsUpError

    layer.between_chunks = raise_in_the_second
    with pytest.raises(TimeIsUpError):
        gradients(layer, x, torch.bfloat16)
    assert calls == 2
    assert layer.weight.grad is None


@pytest.mark.parametrize("dtype", [None, torch.float16])
def test_in_other_precisions_it_is_a_plain_convolution(dtype: torch.dtype | None) -> None:
    layer, x = layer_and_input(4)
    layer.between_chunks = lambda: pytest.fail("there are no chunks")
    gradients(layer, x, dtype)


def test_without_gradients_and_in_evaluation_it_is_a_plain_convolution() -> None:
    layer, x = layer_and_input(4)
    with torch.autocast("cpu", torch.bfloat16):
        with torch.no_grad():
            assert layer(x).grad_fn is None
        assert "Chunked" not in type(layer.eval()(x).grad_fn).__name__
        assert "Chunked" in type(layer.train()(x).grad_fn).__name__


def test_frozen_weights_and_inputs_have_no_gradient() -> None:
    layer, x = layer_and_input(4)
    layer.requires_grad_(False)
    x.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        layer(x).float().sum().backward()
    assert x.grad is not None and layer.weight.grad is None


def test_the_layer_that_widens_the_network_is_chunked() -> None:
    chunked = [m for m in Airbench(3, 10, AirbenchConfig(width=16)).modules() if isinstance(m, ChunkedConv2d)]
    assert [(m.in_channels, m.out_channels) for m in chunked] == [(16, 64)]
