"""Mixed precision: autocast format of the training, loss scaling in fp16, and the choice of the fastest format."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import get_args

import torch
from torch import Tensor, nn

from timebox.configs import options
from timebox.errors import UsageError
from timebox.optim import Optimizer
from timebox.runtime.timing import fastest_seconds

PRECISIONS: tuple[str, ...] = get_args(options.Precision)[1:]  # fp32, bf16, fp16
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# A lower precision must be faster than fp32 by this factor, which is above the noise of the measurement.
MIN_SPEEDUP = 1.1
# A lower precision chosen on the first networks measured is kept on another network down to this speedup.
MIN_RATIO_KEPT = 0.9
# Further measurements of a format that seems too slow, in turn with fp32; the fastest readings count: other
# load at one moment would slow down the whole training. Readings on an idle virtual machine differ by a factor of two.
MAX_REPEATS = 3
# A format slower than fp32 by this factor on a small block, as emulated bf16 is (about 7 times), is not measured on a
# network: that could take most of a budget. A ratio within a factor of two of this limit is measured again. The
# block decides nothing else: format conversions take too much of its time, and it gains 1.1x where networks gain 1.4x
# to 2.2x.
MAX_SLOWDOWN = 3.0
# A GPU with units for bf16 is as fast in bf16 as in fp16; beyond this ratio it emulates bf16.
EMULATED_RATIO = 1.5


class Precision:
    """Forward and backward passes in fp32, bf16 or fp16, with float32 master weights.

    In fp16 the loss is multiplied by a loss scale before the backward pass, so that small gradients do not vanish.
    Where a gradient overflows, the step is skipped and the loss scale halved; after 200 good steps in a row it is
    doubled (Micikevicius et al., arXiv 1710.03740). This happens on the device, without waiting for it.
    """

    def __init__(self, name: str, device: torch.device, initial_scale: float = 2.0**14) -> None:
        self.name = name
        self.device = device
        self._scaler = torch.amp.GradScaler(
            device.type, init_scale=initial_scale, growth_interval=200, enabled=name == "fp16"
        )
        if name == "fp16":
            # By default the scaler creates its tensors in the first step, too late to restore a checkpoint into them.
            self._scaler._lazy_init_scale_growth_tracker(device)

    @property
    def dtype(self) -> torch.dtype:
        """The number format of convolutions and matrix products."""
        return dtype_of(self.name)

    def autocast(self) -> AbstractContextManager[object]:
        """The context for a forward pass. Normalisation statistics stay float32. Compute the loss outside."""
        if self.name == "fp32":
            return nullcontext()
        # Without a cache of converted weights: each is used once per pass, and a CUDA graph must convert them anew.
        return torch.autocast(self.device.type, dtype=self.dtype, cache_enabled=False)

    def backward(self, loss: Tensor) -> None:
        """Backward pass of a float32 loss, multiplied by the loss scale in fp16."""
        self._scaler.scale(loss).backward()

    def step(self, optimizer: Optimizer) -> None:
        """Update the parameters with unscaled gradients; skip the update where a gradient overflowed."""
        self._scaler.step(optimizer)  # type: ignore[arg-type]  # has all that the scaler uses
        self._scaler.update()

    def tensors(self) -> dict[str, Tensor]:
        """The tensors of the loss scaler, part of the state of a training; none in fp32 and bf16."""
        if self.name != "fp16":
            return {}
        scale, growth = self._scaler._scale, self._scaler._growth_tracker
        assert scale is not None and growth is not None
        return {"scale": scale, "growth": growth}

    @property
    def loss_scale(self) -> float:
        """The current loss scale; 1 in fp32 and bf16. Waits for the device."""
        return self._scaler.get_scale()


def dtype_of(precision: str) -> torch.dtype:
    """The number format of convolutions and matrix products in a precision."""
    return _DTYPES[precision]


def resolve_precision(
    name: str, device: torch.device, measure_seconds: Callable[[str], float] | None
) -> tuple[str, str]:
    """The precision to train in, and the reason in one line. Raises UsageError for an unknown name.

    ``auto`` selects the fastest of fp32, bf16 and, on a GPU, fp16. All are measured: a CPU without matrix instructions
    for bf16 emulates it at a tenth of the speed of fp32 or less.

    Args:
        measure_seconds: times training steps in a precision. None where nothing may be measured: ``auto`` is then fp32
            on a CPU and bf16 on a GPU, so that a run can be repeated exactly.
    """
    if name in PRECISIONS:
        return name, "as asked"
    if name != "auto":
        raise UsageError(f"precision {name!r} is unknown; use auto, {', '.join(PRECISIONS)}")
    if measure_seconds is None:
        return ("bf16" if device.type == "cuda" else "fp32"), "fixed, as no time is measured"
    if device.type == "cuda":
        return _select_gpu_precision({candidate: _probe_seconds(candidate, device) for candidate in PRECISIONS})
    block_seconds = _measure_block(["fp32", "bf16"], device)
    seconds = {candidate: measure_seconds(candidate) for candidate in _without_slow(block_seconds)}
    candidates, best = _without_slow(seconds), _fastest(seconds)
    for _ in range(MAX_REPEATS if len(candidates) > 1 else 0):
        if best != "fp32":
            break
        seconds = {candidate: min(seconds[candidate], measure_seconds(candidate)) for candidate in candidates}
        best = _fastest(seconds)
    return best, _describe_speedups({**_speedups(block_seconds), **_speedups(seconds)})


def _select_gpu_precision(seconds: Mapping[str, float]) -> tuple[str, str]:
    """The precision for a GPU, from the times of a block: loading the kernels of whole networks takes seconds.

    bf16 is preferred to fp16 where the GPU has units for it: it needs no loss scale, and its steps can be recorded as
    CUDA graphs. GPUs before 2020 emulate bf16.
    """
    excluded = "bf16" if seconds["bf16"] > EMULATED_RATIO * seconds["fp16"] else "fp16"
    best = _fastest({name: value for name, value in seconds.items() if name != excluded})
    return best, _describe_speedups(_speedups(seconds))


def _speedups(seconds: Mapping[str, float]) -> dict[str, float]:
    return {name: seconds["fp32"] / value for name, value in seconds.items()}


def _describe_speedups(speedups: Mapping[str, float]) -> str:
    return "measured against fp32: " + ", ".join(f"{c} {x:.1f}x" for c, x in speedups.items() if c != "fp32")


def _measure_block(candidates: Sequence[str], device: torch.device) -> dict[str, float]:
    """Seconds of a small block in each format, the least of several readings where a ratio is near ``MAX_SLOWDOWN``."""
    seconds = {candidate: _probe_seconds(candidate, device) for candidate in candidates}
    for _ in range(MAX_REPEATS):
        if not any(MAX_SLOWDOWN / 2 < value / seconds["fp32"] < 2 * MAX_SLOWDOWN for value in seconds.values()):
            break
        seconds = {candidate: min(seconds[candidate], _probe_seconds(candidate, device)) for candidate in candidates}
    return seconds


def _without_slow(seconds: Mapping[str, float]) -> list[str]:
    """The formats that are not ``MAX_SLOWDOWN`` times slower than fp32."""
    return [candidate for candidate in seconds if seconds[candidate] < MAX_SLOWDOWN * seconds["fp32"]]


def _fastest(seconds: Mapping[str, float]) -> str:
    """The fastest format; fp32 where the speedup is below ``MIN_SPEEDUP``."""
    best = min(seconds, key=lambda candidate: seconds[candidate])
    return best if seconds["fp32"] / seconds[best] >= MIN_SPEEDUP else "fp32"


def _probe_seconds(name: str, device: torch.device) -> float:
    """Seconds for a forward and backward pass of one block: under 0.1 s on a CPU, above launch times on a GPU."""
    channels, batch = (64, 4) if device.type == "cpu" else (512, 512)
    with torch.random.fork_rng(devices=[]):
        block = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.CELU(0.3)
        ).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        images = torch.randn(batch, channels, 16, 16, device=device).to(memory_format=torch.channels_last)
    images.requires_grad_()
    precision = Precision(name, device)

    def step() -> None:
        with precision.autocast():
            output = block(images)
        output.float().square().mean().backward()

    return fastest_seconds(step, device, limit_seconds=0.05 if device.type == "cpu" else 0.5)
