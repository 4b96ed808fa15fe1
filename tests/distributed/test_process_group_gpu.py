"""A group of one rank on a real GPU, gradients by NCCL: `pytest -m gpu tests/distributed/test_process_group_gpu.py`."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

STEPS = 20
# At small learning rates rounding does not grow from step to step.
SMALL_LR = ("--set", "max_lr=1", "--set", "filter_lr=0.005", "--set", "batch_size=64", "--precision", "fp32")


def test_a_group_of_one_rank_has_the_losses_of_a_single_process(tmp_path: Path) -> None:
    random, labels = np.random.default_rng(0), np.arange(512) % 4
    images = (random.integers(0, 100, (512, 32, 32, 3)) + 30 * labels[:, None, None, None]).astype(np.uint8)
    np.savez(tmp_path / "bands.npz", x=images, y=labels)
    losses = {}
    for name, launcher in {"alone": (), "group": ("torch.distributed.run", "--nproc-per-node", "1", "-m")}.items():
        words = ("timebox", "train", tmp_path / "bands.npz", "--steps", STEPS, *SMALL_LR, "--out", tmp_path / name)
        done = subprocess.run(
            [sys.executable, "-m", *launcher, *map(str, words)],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        lines = map(json.loads, (tmp_path / name / "metrics.jsonl").read_text().splitlines())
        losses[name] = [line["loss"] for line in lines if "loss" in line]
    assert len(losses["group"]) == STEPS
    assert losses["group"] == pytest.approx(losses["alone"], abs=1e-3)
