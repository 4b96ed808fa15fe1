"""How fast this device is, measured on the work itself."""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from timebox.clock import now


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished all its work, as one must before reading a clock."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def fastest_of(work: Callable[[], object], device: torch.device, limit_seconds: float, max_repeats: int = 8) -> float:
    """Seconds the work takes at its fastest, after one warm-up.

    Repeats until ``limit_seconds`` are used up, the warm-up included, or ``max_repeats`` are done; at least once. The
    minimum is taken, since whatever else the machine does can only add time.
    """
    started = now()
    work()
    synchronize(device)
    best = float("inf")
    for repeat in range(max_repeats):
        if repeat and now() - started > limit_seconds:
            break
        before = now()
        work()
        synchronize(device)
        best = min(best, now() - before)
    return max(best, 1e-6)


def training_seconds_per_image(
    model: nn.Module,
    image_shape: tuple[int, int, int],
    num_classes: int,
    autocast: Callable[[], object],
    device: torch.device,
    limit_seconds: float,
) -> float:
    """Seconds a forward and a backward pass take per image, on random images (C, H, W).

    Starts with a batch of four, so that a network far too large for this machine is known as such in time, and grows it
    while the limit allows, to at most 64.
    """
    started = now()
    batch, seconds = 4, float("inf")
    while True:
        images = torch.rand(batch, *image_shape, device=device).to(memory_format=torch.channels_last)
        labels = torch.arange(batch, device=device) % num_classes

        def step(images: torch.Tensor = images, labels: torch.Tensor = labels) -> None:
            with autocast():  # type: ignore[attr-defined]
                logits = model(images)
            F.cross_entropy(logits.float(), labels).backward()
            model.zero_grad(set_to_none=True)

        seconds = min(seconds, fastest_of(step, device, limit_seconds=limit_seconds / 4, max_repeats=3) / batch)
        spent = now() - started
        next_batch = batch * 4
        if next_batch > 64 or spent + 2 * next_batch * seconds > limit_seconds:
            return seconds
        batch = next_batch
