"""BlurPool kernels: compared with torch in Triton's interpreter, and compiled for a GPU."""

import json
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from timebox.models.kernels import dispatch
from timebox.models.layers import MaxBlurPool

from .test_pool_norm_gelu_triton import CPU, needs_interpreter, needs_triton, run

INTERPRETED = """
import json
import sys
import torch
from timebox.models.kernels import dispatch
from timebox.models.kernels.blurpool_triton import max_blur_pool
from timebox.models.layers import MaxBlurPool

SHAPES = json.loads(sys.argv[1])

def results(shape, dtype, pool):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(shape, generator=generator).to(dtype).to(memory_format=torch.channels_last).requires_grad_()
    output = pool(x if pool is max_blur_pool else x.float())
    if pool is max_blur_pool:
        assert output.dtype == dtype
        assert output.is_contiguous(memory_format=torch.channels_last)
    (output.float() * torch.randn(output.shape, generator=generator)).sum().backward()
    assert x.grad.dtype == dtype
    return [t.detach().double() for t in (output, x.grad)]

apart = []
for shape in SHAPES:
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        expected, got = (results(shape, dtype, pool) for pool in (MaxBlurPool(), max_blur_pool))
        shares = [float((a - b).norm() / a.norm()) for a, b in zip(expected, got, strict=True)]
        apart.append([str((shape, dtype)), max(shares) / torch.finfo(dtype).eps])

same = torch.ones(1, 1, 4, 4, requires_grad=True)
max_blur_pool(same).sum().backward()
with_nan = torch.zeros(1, 1, 6, 6)
with_nan[0, 0, 1, 1] = float("nan")
print(json.dumps({
    "apart": apart,
    "same": same.grad[0, 0].tolist(),
    "with_nan": max_blur_pool(with_nan)[0, 0].isnan().tolist(),
    "working": [
        dispatch.blurpool_kernels_work(torch.device("cpu"), dtype) for dtype in (torch.float32, torch.bfloat16)
    ],
}))
"""

COMPILED = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from timebox.models.kernels import blurpool_triton as blurpool

KINDS = {"indices_ptr": "*u8", "ROWS": "constexpr", "CHANNELS": "constexpr"}
for kernel in (blurpool._pool, blurpool._gradients):
    names = kernel.arg_names
    kinds = {name: KINDS.get(name, "*bf16" if name.endswith("_ptr") else "i32") for name in names}
    constants = {(names.index("ROWS"),): 32, (names.index("CHANNELS"),): 64}
    assert triton.compile(ASTSource(kernel, kinds, constants), target=GPUTarget("cuda", 90, 32)).asm["cubin"]
    print(kernel.__name__)
"""


@needs_triton
@needs_interpreter
@pytest.mark.parametrize(
    "shapes",
    [
        pytest.param([(3, 16, 3, 2), (2, 4, 2, 2), (6, 20, 7, 9)], marks=pytest.mark.integration),
        pytest.param([(6, 20, 8, 6), (5, 70, 5, 5), (40, 1, 2, 3)], marks=pytest.mark.endurance),
    ],
)
def test_the_kernels_agree_with_torch(shapes: list[tuple[int, ...]]) -> None:
    found = json.loads(run(INTERPRETED, json.dumps(shapes), TRITON_INTERPRET="1"))
    assert len(found["apart"]) == 3 * len(shapes)
    assert {name: times for name, times in found["apart"] if times > 2} == {}, "in roundings of the format"
    assert found["same"] == [[0.25, 0.25, 0.5, 0.0], [0.25, 0.25, 0.5, 0.0], [0.5, 0.5, 1.0, 0.0], [0.0] * 4]
    assert found["with_nan"] == [[True, False, False], [False] * 3, [False] * 3]
    assert found["working"] == [True, True]


@needs_triton
@pytest.mark.integration
def test_the_kernels_compile_for_a_gpu() -> None:
    assert run(COMPILED).split() == ["_pool", "_gradients"]


def wrong(x: Tensor) -> Tensor:
    return 2 * MaxBlurPool()(x)


@pytest.mark.parametrize("kernels", [SimpleNamespace(max_blur_pool=wrong), None, object()])
def test_kernels_that_disagree_with_torch_are_not_used(kernels: object, monkeypatch: pytest.MonkeyPatch) -> None:
    dispatch.blurpool_kernels_work.cache_clear()
    monkeypatch.setattr(dispatch, "_import_kernels", lambda module: kernels)
    x = torch.randn(2, 3, 5, 5)
    try:
        assert not dispatch.blurpool_kernels_work(CPU, torch.float32)
        assert torch.equal(dispatch.max_blur_pool(x), MaxBlurPool()(x))
    finally:
        dispatch.blurpool_kernels_work.cache_clear()


def test_kernels_that_agree_with_torch_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Tensor] = []

    def right(x: Tensor) -> Tensor:
        calls.append(x)
        return MaxBlurPool()(x)  # type: ignore[no-any-return]

    dispatch.blurpool_kernels_work.cache_clear()
    monkeypatch.setattr(dispatch, "_import_kernels", lambda module: SimpleNamespace(max_blur_pool=right))
    x = torch.randn(2, 3, 5, 5)
    try:
        assert torch.equal(dispatch.max_blur_pool(x), MaxBlurPool()(x))
        assert calls[-1] is x
    finally:
        dispatch.blurpool_kernels_work.cache_clear()
