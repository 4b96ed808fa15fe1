"""Checkpoints during a training on a real GPU: `pytest -m gpu tests/training/test_checkpointer_gpu.py`."""

import time

import pytest
import torch

from timebox.clock import Deadline
from timebox.training.checkpointer import AsyncCheckpointer
from timebox.training.state import Snapshot

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

CUDA = torch.device("cuda")
# About half a second on a GPU of 2 GHz.
CYCLES = 10**9


def test_a_checkpoint_has_its_moment_s_weights_and_waits_for_no_later_step() -> None:
    written: list[tuple[torch.Tensor, float]] = []

    def write(snapshot: Snapshot) -> None:
        written.append((snapshot.tensors["weight"].cpu(), time.monotonic()))

    weight = torch.zeros(1 << 20, device=CUDA)
    checkpointer = AsyncCheckpointer(write, Deadline(None), lambda: float("inf"), lambda text: None)
    torch.cuda._sleep(CYCLES)
    weight.add_(1)
    checkpointer.save(Snapshot(1, 0.1, {"weight": weight.clone()}, {}))
    for _ in range(4):
        torch.cuda._sleep(CYCLES)
        weight.add_(1)
    assert checkpointer.wait(10)
    torch.cuda.synchronize()
    (copy, moment), ended = written[0], time.monotonic()
    assert torch.equal(copy, torch.ones(1 << 20))
    assert weight[0] == 5
    assert ended - moment > 1.0, "the copy arrives long before the end of the later steps"
