"""Mixed precision: which number format the multiplications use, and keeping small gradients alive in fp16."""

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
# A lower precision must be faster by more than the noise of the measurement to be worth taking.
MIN_SPEEDUP = 1.1
# One that is worth it on the networks measured first is left only where the one chosen is slower, noise aside.
MIN_RATIO_KEPT = 0.9
# What seems not to pay is measured so many times more, in turn with fp32, and the fastest readings count: a busy moment
# would cost the whole training its speed. Readings on an idle virtual machine differ by a factor of two.
MAX_REPEATS = 3
# One that is so many times slower than fp32 on a small block, as emulated bf16 is (about 7 times), is not tried on a
# network: that could take most of a budget. A ratio within a factor of two of this may be a disturbed one, and is
# measured again. The block decides no more than that: conversions weigh too much in it. It gains 1.1x where networks
# gain 1.4x to 2.2x.
MAX_SLOWDOWN = 3.0
# A GPU with units for bf16 runs it as fast as fp16.
EMULATED_RATIO = 1.5


class Precision:
    """Runs forward and backward passes in one number format; master weights stay float32.

    In fp16 the loss is multiplied by a factor before the backward pass, so that small gradients do not vanish. Where
    a gradient overflows, the step is skipped and the factor halved; after 200 good steps in a row it is doubled
    (Micikevicius et al., arXiv 1710.03740). The decision is taken on the device: no step waits for it.

    Args:
        name: ``fp32``, ``bf16`` or ``fp16``.
        initial_scale: first loss scale of fp16.
    """

    def __init__(self, name: str, device: torch.device, initial_scale: float = 2.0**14) -> None:
        self.name = name
        self.device = device
        self._scaler = torch.amp.GradScaler(
            device.type, init_scale=initial_scale, growth_interval=200, enabled=name == "fp16"
        )
        if name == "fp16":
            # Left to itself the scaler makes its tensors in the first step, too late to be restored into.
            self._scaler._lazy_init_scale_growth_tracker(device)

    @property
    def dtype(self) -> torch.dtype:
        """What the multiplications take."""
        return dtype_of(self.name)

    def autocast(self) -> AbstractContextManager[object]:
        """The context for a forward pass. Normalisation statistics stay float32; the loss belongs outside."""
        if self.name == "fp32":
            return nullcontext()
        # Converted weights are not kept: each is used once in a pass, and a recorded step must convert them anew.
        return torch.autocast(self.device.type, dtype=self.dtype, cache_enabled=False)

    def backward(self, loss: Tensor) -> None:
        """Backward pass of a float32 loss, scaled where the format needs it."""
        self._scaler.scale(loss).backward()

    def step(self, optimizer: Optimizer) -> None:
        """Step the optimizer with unscaled gradients, unless one of them overflowed."""
        self._scaler.step(optimizer)  # type: ignore[arg-type]  # all that it needs of one
        self._scaler.update()

    def tensors(self) -> dict[str, Tensor]:
        """What the loss scale is made of: it belongs to the state of a training."""
        if self.name != "fp16":
            return {}
        scale, growth = self._scaler._scale, self._scaler._growth_tracker
        assert scale is not None and growth is not None
        return {"scale": scale, "growth": growth}

    @property
    def loss_scale(self) -> float:
        """The current factor; 1 where none is used. Reading it waits for the device."""
        return self._scaler.get_scale()


def dtype_of(precision: str) -> torch.dtype:
    """What the multiplications take."""
    return _DTYPES[precision]


def resolve_precision(name: str, device: torch.device, seconds_of: Callable[[str], float] | None) -> tuple[str, str]:
    """The precision to train in, and why.

    ``auto`` takes what is measured fastest among the safe ones on this device: fp32, bf16 and, on a GPU, fp16. A CPU
    without matrix instructions for bf16 emulates it at a tenth of fp32's speed or less, so nothing is assumed.

    Args:
        seconds_of: measures a training in a precision, anew in each call. None where nothing may be measured: ``auto``
            then takes fp32 on a CPU and bf16 on a GPU, which is repeatable.
    Raises:
        UsageError: for an unknown name.
    """
    if name in PRECISIONS:
        return name, "as asked"
    if name != "auto":
        raise UsageError(f"precision {name!r} is unknown; use auto, {', '.join(PRECISIONS)}")
    if seconds_of is None:
        return ("bf16" if device.type == "cuda" else "fp32"), "fixed, as no time is measured"
    if device.type == "cuda":
        return _precision_of_a_gpu({candidate: _probe_seconds(candidate, device) for candidate in PRECISIONS})
    candidates = ["fp32", "bf16"]
    trial = _block_seconds(candidates, device)
    seconds = {candidate: seconds_of(candidate) for candidate in _worth_measuring(trial)}
    hopeful, best = _worth_measuring(seconds), _fastest(seconds)
    for _ in range(MAX_REPEATS if len(hopeful) > 1 else 0):
        if best != "fp32":
            break
        seconds = {candidate: min(seconds[candidate], seconds_of(candidate)) for candidate in hopeful}
        best = _fastest(seconds)
    speedups = {**{c: trial["fp32"] / trial[c] for c in trial}, **{c: seconds["fp32"] / seconds[c] for c in seconds}}
    return best, _measured(speedups)


def _precision_of_a_gpu(seconds: Mapping[str, float]) -> tuple[str, str]:
    """From the times of a block that fills the GPU: loading kernels for whole networks in three formats takes seconds.

    bf16 comes before fp16 where it is as fast: it needs no loss scale, and its steps can be recorded. GPUs before 2020
    emulate it.
    """
    emulated = seconds["bf16"] > EMULATED_RATIO * seconds["fp16"]
    best = _fastest({name: of_one for name, of_one in seconds.items() if name != ("bf16" if emulated else "fp16")})
    return best, _measured({name: seconds["fp32"] / of_one for name, of_one in seconds.items()})


def _measured(speedups: Mapping[str, float]) -> str:
    return "measured against fp32: " + ", ".join(f"{c} {x:.1f}x" for c, x in speedups.items() if c != "fp32")


def _block_seconds(candidates: Sequence[str], device: torch.device) -> dict[str, float]:
    """Of a small block in each format: the least of as many readings as it takes to tell which are hopeless."""
    seconds = {candidate: _probe_seconds(candidate, device) for candidate in candidates}
    for _ in range(MAX_REPEATS):
        if all(
            not MAX_SLOWDOWN / 2 < seconds[candidate] / seconds["fp32"] < 2 * MAX_SLOWDOWN for candidate in candidates
        ):
            break
        seconds = {candidate: min(seconds[candidate], _probe_seconds(candidate, device)) for candidate in candidates}
    return seconds


def _worth_measuring(seconds: Mapping[str, float]) -> list[str]:
    return [candidate for candidate in seconds if seconds[candidate] < MAX_SLOWDOWN * seconds["fp32"]]


def _fastest(seconds: Mapping[str, float]) -> str:
    """The fastest format, fp32 where the gain is within the noise."""
    best = min(seconds, key=lambda candidate: seconds[candidate])
    return best if seconds["fp32"] / seconds[best] >= MIN_SPEEDUP else "fp32"


def _probe_seconds(name: str, device: torch.device) -> float:
    """Seconds for a forward and backward pass of one block, so small that emulated bf16 takes under 0.1 s on a CPU, and
    so large that a GPU is not done before the next operation is issued."""
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
