"""The group of a single process. Groups of several are tested with real processes in tests/jobs/test_torchrun.py."""

import pytest
import torch

from timebox.clock import Deadline
from timebox.data.device.resident import DataShard
from timebox.distributed import process_group as groups
from timebox.distributed.process_group import SINGLE_PROCESS, join_process_group
from timebox.errors import UsageError


def test_collectives_of_a_single_process_return_their_input() -> None:
    assert SINGLE_PROCESS.share == DataShard(0, 1)
    SINGLE_PROCESS.broadcast("plan")
    assert SINGLE_PROCESS.broadcast_timed(3.5) == 3.5
    assert SINGLE_PROCESS.all_gather("plan") == ["plan"]
    assert SINGLE_PROCESS.all_gather_timed(3) == [3]
    assert SINGLE_PROCESS.failed_ranks() == {}
    tensor = torch.arange(3.0)
    SINGLE_PROCESS.all_reduce_mean_([tensor])
    SINGLE_PROCESS.broadcast_parameters_([tensor])
    SINGLE_PROCESS.all_reduce_sum_timed_(tensor)
    assert tensor.tolist() == [0.0, 1.0, 2.0]


def test_without_torchrun_the_group_is_a_single_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    with join_process_group(torch.device("cpu"), Deadline(60.0)) as group:
        assert group is SINGLE_PROCESS


def test_a_rank_without_its_own_gpu_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(UsageError, match="process 2 of this host finds no GPU of its own: there are 2; start 2"):
        groups._local_device("cuda")
