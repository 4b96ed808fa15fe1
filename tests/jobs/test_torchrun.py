"""Training in several ranks under torchrun: equal to one process, and safe from rank failures."""

import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from base64 import b64encode
from datetime import timedelta
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Any

import pytest
from torch.distributed import TCPStore

from budgets import run_within_budget
from timebox.clock import now
from timebox.pretrained.weights import EFFICIENTNET_LITE0
from timebox.run import load

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(sys.platform != "linux", reason="tested with gloo on Linux"),
]

DIGITS = ("digits", "--test", "0.2", "--device", "cpu", "--precision", "fp32")
SMALL = ("--recipe", "airbench94", "--set", "width=8")
# Few steps, at a low learning rate: max-pooling, and Muon's iterations in bf16, amplify rounding errors with each step.
SMOOTH = ("--recipe", "haet2021", "--set", "width=8", "--set", "max_lr=x0.3")
ENSEMBLE = ("--set", "flip=none", "--set", "ensemble_size=2")
TOLERANCE = 5e-5
MANY = 600


def command(processes: int, *launcher: object) -> list[str]:
    """The `timebox` command in this number of processes; for one, without torchrun."""
    if processes == 1:
        return [sys.executable, "-m", "timebox"]
    return [*torchrun(processes, *launcher), "-m", "timebox"]


def torchrun(processes: int, *launcher: object) -> list[str]:
    """The torchrun command; --standalone picks a free port."""
    words = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", processes, *launcher)
    return [sys.executable, *map(str, words)]


def timebox(processes: int, *words: object, launcher: tuple[object, ...] = ()) -> subprocess.CompletedProcess[str]:
    full = [*command(processes, *launcher), *map(str, words)]
    return subprocess.run(full, capture_output=True, text=True, check=False)


def losses(run: Path) -> list[float]:
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [line["loss"] for line in lines if "loss" in line]


def many_steps(run: Path) -> tuple[object, ...]:
    """Arguments of a training that runs long after its first checkpoint, which follows its first step."""
    return ("train", *DIGITS, *SMALL, "--set", "batch_size=64", "--steps", MANY, "--out", run)


def summary_of(run: Path) -> dict[str, object]:
    summary: dict[str, object] = json.loads((run / "summary.json").read_text())
    return summary


@pytest.mark.parametrize(
    ("processes", "steps", "settings"),
    [
        (3, 6, SMOOTH),
        pytest.param(2, 4, (*SMALL, *ENSEMBLE), marks=pytest.mark.endurance),
        pytest.param(4, 6, SMOOTH, marks=pytest.mark.endurance),
    ],
)
def test_losses_equal_those_of_one_process(
    tmp_path: Path, processes: int, steps: int, settings: tuple[str, ...]
) -> None:
    """Each rank has one whole ghost batch of every batch."""
    batches = ("--set", "ghost_size=16", "--set", f"batch_size={16 * processes}")
    words = ("train", *DIGITS, "--steps", steps, *settings, *batches)
    assert timebox(1, *words, "--out", tmp_path / "alone").returncode == 0
    expected = losses(tmp_path / "alone")
    assert len(expected) == steps
    assert max(expected) - min(expected) > 20 * TOLERANCE, "the losses of the steps differ"
    run = tmp_path / "together"
    ended = timebox(processes, *words, "--out", run)
    assert ended.returncode == 0, ended.stderr
    assert losses(run) == pytest.approx(expected, abs=TOLERANCE)
    one, shared = summary_of(tmp_path / "alone"), summary_of(run)
    assert shared["test_images"] == one["test_images"], "every image is scored once, whatever the remainder"
    # Running statistics see the ghost batches in another order.
    assert shared["test_accuracy"] == pytest.approx(one["test_accuracy"], abs=0.02)


@pytest.mark.skipif(EFFICIENTNET_LITE0.path() is None, reason="the extra `pretrained` is not installed")
def test_pretrained_features_join_the_network_of_all_ranks(tmp_path: Path) -> None:
    few = ("--train-limit", "60", "--test-limit", "40", "--init", "pretrained", "--steps", "4", *SMOOTH)
    for processes in (1, 2):
        ended = timebox(processes, "train", *DIGITS, *few, "--out", tmp_path / str(processes))
        assert ended.returncode == 0, ended.stderr
    one, shared = (load(tmp_path / name, "cpu").pretrained_classifier.state_dict() for name in ("1", "2"))
    assert one["head.weight"].numpy() == pytest.approx(shared["head.weight"].numpy(), abs=1e-3)
    assert summary_of(tmp_path / "2")["blend"]


def test_ranks_train_a_network_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker rank builds it by its name. Gradients of two ranks differ from those of one process by rounding."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    words = ("train", *DIGITS, "--steps", "6", "--recipe", "adamw", "--set", "batch_size=32", "--init", "scratch")
    code = ("--network", "own_networks:TinyVit", "--loss", "own_networks:focal", "--optimizer", "own_networks:adam")
    for processes in (1, 2):
        ended = timebox(processes, *words, *code, "--out", tmp_path / str(processes))
        assert ended.returncode == 0, ended.stderr
    assert losses(tmp_path / "2") == pytest.approx(losses(tmp_path / "1"), abs=TOLERANCE)
    ended, _ = run_within_budget([*command(2), "train", *DIGITS, *code, "--out", str(tmp_path / "timed")], 25.0)
    assert ended.returncode == 0, ended.stderr
    assert summary_of(tmp_path / "timed")["late"] is False


def test_a_budget_is_kept_and_reported_by_the_main_rank_only(tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ("train", *DIGITS, *SMALL, "--out", str(run), "--json")
    ended, budget = run_within_budget([*command(2), *words], 20.0)
    assert ended.returncode == 0, ended.stderr
    printed = json.loads(ended.stdout)
    assert printed["run"] == str(run)
    assert printed["late"] is False
    assert printed["elapsed_seconds"] <= printed["budget_seconds"] == budget
    assert printed["steps"] > 0
    assert [rank["rank"] for rank in printed["ranks"]] == [0, 1]
    assert all(rank["images_per_second"] > 0 and 0 <= rank["waiting_share"] < 1 for rank in printed["ranks"])
    assert printed["rank_failures"] == []
    lines = ended.stderr.splitlines()
    assert len([line for line in lines if line.endswith("planning")]) == 1, "only one process reports"
    assert len([line for line in lines if "2 processes share each batch of" in line]) == 1
    assert len([line for line in lines if "alone they train" in line and "sets the pace" in line]) == 1
    load(run, device="cpu")


@pytest.mark.endurance
def test_a_killed_rank_is_named_and_one_process_can_resume(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with subprocess.Popen(
        [*command(2), *map(str, many_steps(run))], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as group:
        kill_after_checkpoint(run, 1)
        _, err = group.communicate()
    assert group.returncode != 0
    assert "internal error" not in err
    assert (run / "summary.json").exists(), err
    summary = summary_of(run)
    assert summary["stopped"] is True
    (named,) = list(summary["rank_failures"])  # type: ignore[call-overload]
    assert named.startswith("rank 1 on ")
    assert "late" in summary
    load(run, device="cpu")
    resumed = timebox(1, "train", "--resume", run)
    assert resumed.returncode == 0, resumed.stderr
    assert summary_of(run)["steps"] == MANY


@pytest.mark.endurance
def test_a_restarted_group_keeps_the_first_clock(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with subprocess.Popen(
        [*command(2, "--max-restarts", 1), *map(str, many_steps(run))],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as group:
        kill_after_checkpoint(run, 0)
        began = min(member["started_at"] for member in members_of(run))
        killed_after = now() - began
        out, err = group.communicate()
    assert group.returncode == 0, err
    summary = summary_of(run)
    elapsed, resumed_at = summary["elapsed_seconds"], summary["resumed_at_step"]
    assert isinstance(elapsed, float)
    assert isinstance(resumed_at, int)
    assert killed_after < elapsed <= now() - began, "the time before the restart counts"
    assert resumed_at > 0
    assert "restarted after rank 0 on " in err
    assert out.count("test accuracy") == 1


def test_sigterm_is_no_rank_failure(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with subprocess.Popen([*command(2), *map(str, many_steps(run))], stderr=subprocess.PIPE, text=True) as group:
        kill_after_checkpoint(run, None)
        for member in members_of(run):
            addresses = listening_addresses(member["pid"])
            assert addresses
            assert all(address.is_loopback for address in addresses), "no other host reaches a rank"
        group.send_signal(signal.SIGTERM)
        _, err = group.communicate()
    assert "internal error" not in err
    summary = summary_of(run)
    assert summary["stopped"] is True
    assert "rank_failures" not in summary
    load(run, device="cpu")


def test_a_rank_that_ends_by_its_own_error_gives_the_reason(tmp_path: Path) -> None:
    """It runs out of memory in the middle of the training."""
    run = tmp_path / "run"
    script = tmp_path / "script.py"
    script.write_text(SHORT_OF_MEMORY)
    words = [*torchrun(3), str(script), *map(str, many_steps(run))]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert (run / "summary.json").is_file(), done.stderr
    (named,) = list(summary_of(run)["rank_failures"])  # type: ignore[call-overload]
    assert named.startswith("rank 1 on ")
    assert "memory ran out with" in named
    load(run, device="cpu")


SHORT_OF_MEMORY = """
import os
from timebox.cli import main
from timebox.training.state import TrainingState

real = TrainingState.advance

def advance(self, progress):
    real(self, progress)
    if self.step == 60 and os.environ["RANK"] == "1":
        raise MemoryError

TrainingState.advance = advance
main()
"""


def listening_addresses(pid: int) -> list[IPv4Address | IPv6Address]:
    """The addresses on which a process listens for TCP connections."""
    links = [str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir()]
    own = {link.removeprefix("socket:[").rstrip("]") for link in links if link.startswith("socket:")}
    addresses = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in own:
                words = bytes.fromhex(fields[1].partition(":")[0])
                ordered = b"".join(words[i : i + 4][::-1] for i in range(0, len(words), 4))
                addresses.append(ip_address(ordered))
    return addresses


def test_pickles_sent_to_the_launchers_port_are_refused_and_run_no_code(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = (
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "--master-addr",
        "127.0.0.1",
        "--master-port",
        port,
    )
    launcher = [sys.executable, *map(str, words), "-m", "timebox"]
    marker = tmp_path / "attacked"
    attack = b64encode(pickle.dumps(MakesFolder(str(marker)))).decode()
    arguments = map(str, many_steps(tmp_path / "run"))
    with subprocess.Popen([*launcher, *arguments], stderr=subprocess.PIPE, text=True) as group:
        store = TCPStore("127.0.0.1", port, is_master=False, timeout=timedelta(seconds=60), wait_for_workers=False)
        for number in range(1, 20):
            store.set(f"timebox/0/0/messages/broadcast/{number}", attack)
        _, err = group.communicate()
    assert group.returncode != 0
    assert "between the ranks is not signed with this run's key" in err
    assert not marker.exists()


class MakesFolder:
    """A pickle of it makes a folder when it is loaded."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (self.path,)


def kill_after_checkpoint(run: Path, rank: int | None) -> None:
    """Wait for the first checkpoint; then kill a rank, if one is given."""
    while not (run / "checkpoint" / "manifest.json").exists():
        time.sleep(0.05)
    if rank is not None:
        os.kill(members_of(run)[rank]["pid"], signal.SIGKILL)


def members_of(run: Path) -> list[dict[str, Any]]:
    members: list[dict[str, Any]] = json.loads((run / "group.json").read_text())["ranks"]
    return members


def test_verbs_and_batches_that_several_ranks_cannot_run_are_refused(tmp_path: Path) -> None:
    ended = timebox(2, "inspect", "digits")
    assert "timebox inspect runs in one process: start it without torchrun" in ended.stderr
    ended = timebox(2, "train", "nowhere", "--steps", 5, "--out", tmp_path / "run")
    assert ended.returncode != 0
    assert len([line for line in ended.stderr.splitlines() if line.startswith("timebox train: error:")]) == 1
    ended = timebox(2, "train", *DIGITS, "--steps", 5, "--set", "batch_size=3", "--out", tmp_path / "run")
    assert "2 processes cannot share batches of 3 images" in ended.stderr
    assert not (tmp_path / "run").exists()
