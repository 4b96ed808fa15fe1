"""Max pooling, batch norm and GELU fused: compared with torch in Triton's interpreter, and compiled for a GPU."""

import importlib.util
import json
import os
import subprocess
import sys
from importlib.metadata import version

import pytest
import torch
from torch import nn

from timebox.models import Airbench, AirbenchConfig
from timebox.models.kernels import dispatch
from timebox.models.layers import GhostBatchNorm

CPU = torch.device("cpu")
needs_triton = pytest.mark.skipif(
    not importlib.util.find_spec("triton"), reason="needs Triton, which is for Linux alone"
)

needs_interpreter = pytest.mark.skipif(
    not importlib.util.find_spec("triton") or tuple(map(int, version("triton").split(".")[:2])) < (3, 9),
    reason="Triton's interpreter before 3.9 does not go with numpy 2.4",
)

# Triton reads TRITON_INTERPRET when it is imported, hence a process of its own.
INTERPRETED = """
import json
import sys
import torch
from torch.nn import functional as F
from timebox.models.kernels import dispatch, pool_norm_gelu_triton as kernels
from timebox.models.kernels.pool_norm_gelu_triton import BatchNormBuffers

SHAPES = json.loads(sys.argv[1])

def results(shape, dtype, pooled, by_kernels):
    generator = torch.Generator().manual_seed(1)
    x = (3 * torch.randn(shape, generator=generator) + 2).to(dtype).to(memory_format=torch.channels_last)
    x.requires_grad_()
    bias, mean, var, slope = (torch.randn(shape[1], generator=generator) for _ in range(4))
    bias.requires_grad_()
    var.abs_()
    if by_kernels:
        output = kernels.pool_norm_gelu(x, bias, BatchNormBuffers(mean, var, 0.4, 1e-5), pooled=pooled)
        assert output.dtype == dtype
        assert output.is_contiguous(memory_format=torch.channels_last)
    else:
        value = F.max_pool2d(x.float(), 2) if pooled else x.float()
        output = F.gelu(F.batch_norm(value, mean, var, torch.ones_like(bias), bias, True, 0.4, 1e-5))
    weights = torch.randn(output.shape, generator=generator)
    (output.float() * weights).sum().backward()
    assert x.grad.dtype == x.dtype
    return [t.detach().double() for t in (output, x.grad, bias.grad, mean, var)]

apart = []
for shape in SHAPES:
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        for pooled in (True, False):
            expected, got = (results(shape, dtype, pooled, by_kernels) for by_kernels in (False, True))
            shares = [float((a - b).norm() / a.norm().clamp_min(1e-9)) for a, b in zip(expected, got, strict=True)]
            apart.append([str((shape, dtype, pooled)), max(shares) / torch.finfo(dtype).eps])

for dtype in (torch.float32, torch.bfloat16):
    x = 3 * torch.randn(40, 20, 5, 7).to(dtype)
    grads, outputs = [], []
    for by_kernels in (False, True):
        bias = torch.linspace(-1, 1, 20, requires_grad=True)
        output = kernels.bias_gelu(x, bias) if by_kernels else F.gelu(x.float() + bias[:, None, None])
        (output.float() * torch.linspace(0, 1, output.numel()).view_as(output)).sum().backward()
        outputs.append(output.detach().double())
        grads.append(bias.grad.double())
    shares = [float((a - b).norm() / a.norm()) for a, b in (outputs, grads)]
    apart.append([f"bias {dtype}", max(shares) / torch.finfo(dtype).eps])

tie = torch.tensor([[1.0, 2.0], [2.0, 2.0]]).repeat(8, 1, 1, 1).requires_grad_()
noisy = torch.randn(8, 1, 2, 2)
tied = torch.cat((tie, noisy))
buffers = BatchNormBuffers(torch.zeros(1), torch.ones(1), 0.4, 1e-5)
kernels.pool_norm_gelu(tied, torch.zeros(1), buffers, pooled=True).sum().backward()
with_nan = torch.randn(8, 2, 4, 4)
with_nan[0, 0, 1, 1] = float("nan")
buffers = BatchNormBuffers(torch.zeros(2), torch.ones(2), 0.4, 1e-5)
output = kernels.pool_norm_gelu(with_nan, torch.zeros(2), buffers, pooled=True)
dtypes = (torch.float32, torch.bfloat16, torch.float16)
working = [dispatch.kernels_work(torch.device("cpu"), dtype) for dtype in dtypes]
print(json.dumps({
    "apart": apart,
    "tied": (tie.grad != 0).sum((0, 1)).tolist(),
    "with_nan": output.isnan().float().mean((0, 2, 3)).tolist(),
    "working": working,
}))
"""

# Compiling for a GPU needs no GPU.
COMPILED = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from timebox.models.kernels import pool_norm_gelu_triton as kernels

KERNELS = [value for value in vars(kernels).values() if isinstance(value, triton.JITFunction)]
ACTIVATIONS = {"x_ptr", "pooled_ptr", "value_ptr", "output_ptr", "grad_ptr"}

def kind(name):
    if name.isupper():
        return "constexpr"
    if name in ACTIVATIONS:
        return "*bf16"
    if name == "index_ptr":
        return "*i8"
    return "*fp32" if name.endswith("_ptr") else "fp32" if name in ("momentum", "epsilon") else "i32"

for kernel in KERNELS:
    names = kernel.arg_names
    if not names[0].endswith("_ptr"):
        continue
    for pooled in (True, False) if "POOLED" in names else (None,):
        constants = {"ROWS": 32, "CHANNELS": 64, "PROGRAMS": 512, "POOLED": pooled}
        source = ASTSource(
            kernel,
            {name: kind(name) for name in names},
            {(names.index(name),): value for name, value in constants.items() if name in names},
        )
        assert triton.compile(source, target=GPUTarget("cuda", 90, 32)).asm["cubin"]
        print(kernel.__name__)
"""


def run(source: str, *arguments: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", source, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# The interpreter takes a second for each shape, dtype and kind of pooling.
@needs_triton
@needs_interpreter
@pytest.mark.parametrize(
    "shapes",
    [
        pytest.param([(6, 20, 7, 9)], marks=pytest.mark.integration),
        pytest.param([(6, 20, 8, 6), (5, 70, 5, 5), (3, 16, 3, 2), (700, 4, 4, 4), (9, 1, 2, 3)],
                     marks=[pytest.mark.endurance, pytest.mark.timeout(1200)]),
    ],
)  # fmt: skip
def test_the_kernels_agree_with_torch(shapes: list[tuple[int, ...]]) -> None:
    found = json.loads(run(INTERPRETED, json.dumps(shapes), TRITON_INTERPRET="1"))
    assert len(found["apart"]) == 6 * len(shapes) + 2
    assert {name: times for name, times in found["apart"] if times > 30} == {}, "in roundings of the format"
    assert found["tied"] == [[0, 8], [0, 0]], "the first of equals has the gradient"
    assert found["with_nan"] == [1.0, 0.0], "NaN makes its channel NaN, as in torch"
    assert found["working"] == [True, True, True]


@needs_triton
@pytest.mark.integration
def test_the_kernels_compile_for_a_gpu() -> None:
    assert len(run(COMPILED).split()) == 8


@pytest.mark.parametrize("pooled", [True, False])
def test_kernels_that_disagree_with_torch_are_not_used(pooled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    class Wrong:
        @staticmethod
        def BatchNormBuffers(*buffers: object) -> None:  # noqa: N802
            pass

        @staticmethod
        def pool_norm_gelu(x: torch.Tensor, bias: torch.Tensor, buffers: object, *, pooled: bool) -> torch.Tensor:
            if pooled:
                x = nn.functional.max_pool2d(x, 2)
            return x * bias[:, None, None]

    assert not dispatch._pool_norm_gelu_matches_torch(Wrong, CPU, torch.float32, pooled)  # type: ignore[arg-type]
    for kernels in (Wrong, None, object()):
        dispatch.kernels_work.cache_clear()
        monkeypatch.setattr(dispatch, "_import_kernels", lambda module, kernels=kernels: kernels)
        assert not dispatch.kernels_work(CPU, torch.float32)
    dispatch.kernels_work.cache_clear()


@pytest.mark.parametrize("blur_pool", [False, True])
def test_a_network_computes_the_same_with_and_without_fusing(blur_pool: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU, with torch's own operations where the kernels would be called."""

    def by_torch(x: torch.Tensor, norm: GhostBatchNorm, pooled: bool) -> torch.Tensor:
        calls.append(pooled)
        return nn.functional.gelu(norm(nn.functional.max_pool2d(x, 2) if pooled else x))

    calls: list[bool] = []
    torch.manual_seed(0)
    network, images = Airbench(3, 5, AirbenchConfig(width=8, blur_pool=blur_pool)).train(), torch.randn(6, 3, 16, 16)
    expected = network(images)
    monkeypatch.setattr("timebox.models.airbench.can_fuse", lambda x, norm: norm.training)
    monkeypatch.setattr("timebox.models.airbench.pool_norm_gelu", by_torch)
    torch.testing.assert_close(network(images), expected)
    assert calls == [not blur_pool, False] * 3
    network.eval()
    network(images)
    assert len(calls) == 6


def test_a_cpu_does_not_fuse() -> None:
    images = torch.randn(8, 4, 4, 4)
    assert not dispatch.can_fuse(images, GhostBatchNorm(4).train())
