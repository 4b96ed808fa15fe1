"""A group of one sends nothing; what several are is tested with real processes in tests/jobs/test_torchrun.py."""

import pytest
import torch

from timebox.data.device.loader import Share
from timebox.distributed import process_group as groups
from timebox.distributed.process_group import ALONE, join_group
from timebox.errors import UsageError


def test_alone_everything_is_as_it_was() -> None:
    assert ALONE.share == Share(0, 1)
    assert ALONE.told("plan") == ALONE.in_step("plan") == "plan"
    assert ALONE.gathered(3) == ALONE.collected(3) == [3]
    assert ALONE.lost() == {}
    tensor = torch.arange(3.0)
    ALONE.average_([tensor])
    ALONE.copy_from_leader_([tensor])
    assert tensor.tolist() == [0.0, 1.0, 2.0]


def test_without_a_launcher_a_process_trains_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    assert join_group(torch.device("cpu"), 60.0) is ALONE


def test_a_process_without_a_gpu_of_its_own_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(UsageError, match="process 2 of this host finds no GPU of its own: there are 2; start 2"):
        groups._own_device("cuda")
