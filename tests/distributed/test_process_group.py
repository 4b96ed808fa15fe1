"""A group of one sends nothing; what several are is tested with real processes in tests/jobs/test_torchrun.py."""

import pytest
import torch

from timebox.data.device.resident import DataShard
from timebox.distributed import process_group as groups
from timebox.distributed.process_group import SINGLE_PROCESS, join_process_group
from timebox.errors import UsageError


def test_alone_everything_is_as_it_was() -> None:
    assert SINGLE_PROCESS.share == DataShard(0, 1)
    assert SINGLE_PROCESS.broadcast("plan") == SINGLE_PROCESS.broadcast_timed("plan") == "plan"
    assert SINGLE_PROCESS.all_gather(3) == SINGLE_PROCESS.all_gather_timed(3) == [3]
    assert SINGLE_PROCESS.failed_ranks() == {}
    tensor = torch.arange(3.0)
    SINGLE_PROCESS.all_reduce_mean_([tensor])
    SINGLE_PROCESS.broadcast_parameters_([tensor])
    assert tensor.tolist() == [0.0, 1.0, 2.0]


def test_without_a_launcher_a_process_trains_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    assert join_process_group(torch.device("cpu"), 60.0) is SINGLE_PROCESS


def test_a_process_without_a_gpu_of_its_own_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(UsageError, match="process 2 of this host finds no GPU of its own: there are 2; start 2"):
        groups._own_device("cuda")
