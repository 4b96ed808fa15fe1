"""Ranks that fail under torchrun: killed, stopped, or cut off from the others."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import NamedTuple

from scenarios.run_checks import finished_problem, is_finished, load_problem, says_nothing_saved, summary_of
from scenarios.table import Row, joined
from scenarios.training_process import SMALL, SOURCE, seeded, workplace

# A launcher waits up to half a minute for a process that does not heed it, and the processes up to ten for each other.
PATIENCE_SECONDS = 60.0
# A group that is started again needs this to start and to end its schedule, also where others compute beside it.
RESTART_SECONDS = 30.0
# Two hosts train by the time that one of them is cut off, on slow cores too.
CUT_BUDGET_SECONDS = 32.0
CHECKED = "ends by itself; loads or says nothing was saved; names who was lost"
CHECKED_AGAIN = "ends by itself, finished, under the first deadline; names who was lost"
_names = count()


class Fault(NamedTuple):
    """A signal to a rank, and how long the others may need to notice."""

    name: str
    number: signal.Signals
    notice_seconds: float


FAULTS = {"kill": Fault("kill -9", signal.SIGKILL, 0.0), "stop": Fault("SIGSTOP", signal.SIGSTOP, 13.0)}


@dataclass(frozen=True)
class Ended:
    """How a group ended: the status of its launcher, None where it had to be killed, and what it said."""

    status: int | None
    said: str


class Launched:
    """A group under ``torchrun``."""

    def __init__(self, run: Path, budget: float, launcher: Sequence[object], prefix: Sequence[str] = ()) -> None:
        self.run = run
        self._said = run.with_suffix(".log")
        words = ["-m", "timebox", "train", "digits", *SMALL, "--budget", f"{budget}s", "--out", run]
        command = [*prefix, sys.executable, "-m", "torch.distributed.run", *launcher, *words]
        environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
        environment["PYTHONPATH"] = str(SOURCE)
        if prefix:
            environment["GLOO_SOCKET_IFNAME"] = "veth"
        self.started = time.monotonic()
        with self._said.open("wb") as said:
            self.popen = subprocess.Popen(
                [str(word) for word in command], env=environment, stdout=said, stderr=said, cwd=run.parent
            )

    def pid_of(self, rank: int) -> int | None:
        """The process of that rank, once the run directory tells; None where the group has ended before."""
        while self.popen.poll() is None:
            record = self.run / "group.json"
            if record.is_file():
                members = json.loads(record.read_text())["ranks"]
                return next((int(member["pid"]) for member in members if member["rank"] == rank), None)
            time.sleep(0.02)
        return None

    def wait_until(self, seconds: float) -> None:
        """Sleep until so many seconds after the start."""
        time.sleep(max(0.0, self.started + seconds - time.monotonic()))

    def end(self, patience: float) -> Ended:
        """Wait for the end, for so long at most."""
        try:
            status: int | None = self.popen.wait(patience)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
            status = None
        return Ended(status, self._said.read_text(errors="replace"))


def rows(num_faults: int) -> Iterator[Row]:
    """Ranks that fail, without and with a restart; hosts cut off, where network namespaces can be made."""
    share = max(1, num_faults // 5)
    yield _failing("kill", 2 * share, again=False)
    yield _failing("stop", share // 2 or 1, again=False)
    yield _failing("kill", share, again=True)
    yield _failing("stop", share // 2 or 1, again=True)
    if can_make_hosts():
        row = Row("two hosts, one cut off", "both end by themselves; the first one's run loads and names the other")
        for number in range(share):
            row.count(cut_off(number))
        yield row


def _failing(how: str, num_faults: int, again: bool) -> Row:
    name = f"{FAULTS[how].name} of one of 2 processes{', restarted' if again else ''}"
    row = Row(name, CHECKED_AGAIN if again else CHECKED)
    for number in range(num_faults):
        row.count(rank_fails(how, number, again))
    return row


def rank_fails(how: str, number: int, again: bool) -> str:
    """Kill or stop one of two ranks at a random instant of its training; what was wrong, empty for nothing.

    Args:
        how: "kill" or "stop".
        number: decides rank and instant.
        again: whether the launcher may start the group again.
    """
    fault = FAULTS[how]
    chance = seeded(f"{fault.name} {again} {number}")
    rank, instant = chance.randrange(2), chance.uniform(4.0, 16.0)
    budget = 20.0 + (RESTART_SECONDS + fault.notice_seconds if again else 0.0)
    with workplace() as place:
        run = place / "run"
        group = Launched(run, budget, ["--standalone", "--nproc-per-node", 2, "--max-restarts", 1 if again else 0])
        pid = group.pid_of(rank)
        group.wait_until(instant)
        if pid is None or group.popen.poll() is not None:
            return f"{number}: it ended before {instant:.1f} s: {group.end(0).said[-300:]}"
        os.kill(pid, fault.number)
        problem = _problem(run, group.end(budget + PATIENCE_SECONDS), again)
        return problem and f"{number}: rank {rank} at {instant:.1f} s: {problem}"


def _problem(run: Path, ended: Ended, again: bool) -> str:
    """What is wrong with how a group ended; empty where nothing is."""
    if ended.status is None:
        return f"it hung: {ended.said[-300:]}"
    names_lost = bool(summary_of(run).get("rank_failures"))
    if again:
        late = summary_of(run).get("late")
        checks = {f"exit {ended.status}": ended.status == 0, "it was late": not late, "nobody is named": names_lost}
        problems = [text for text, right in checks.items() if not right]
        problem = joined(*problems, finished_problem(run))
        return problem and f"{problem}: {ended.said[-600:]}"
    problem = load_problem(run)
    if says_nothing_saved(problem, run) or is_finished(run):
        return ""
    return problem or ("" if names_lost else "nobody is named")


def can_make_hosts() -> bool:
    """Whether two network namespaces can be made here and joined."""
    try:
        with two_hosts():
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


@contextmanager
def two_hosts() -> Iterator[list[str]]:
    """The names of two network namespaces with a cable between them: 10.213.0.1 and 10.213.0.2."""
    names = [f"timebox-{os.getpid()}-{next(_names)}-{side}" for side in "ab"]
    try:
        for name in names:
            _ip("netns", "add", name)
        ends = [f"v{os.getpid() % 100000}{side}" for side in "ab"]
        _ip("link", "add", ends[0], "type", "veth", "peer", "name", ends[1])
        for number, (name, end) in enumerate(zip(names, ends, strict=True), 1):
            _ip("link", "set", end, "netns", name, "name", "veth")
            _ip("-n", name, "addr", "add", f"10.213.0.{number}/24", "dev", "veth")
            _ip("-n", name, "link", "set", "veth", "up")
            _ip("-n", name, "link", "set", "lo", "up")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def on_both(hosts: Sequence[str], place: Path, budget: float) -> list[Launched]:
    """A process on each host, training together; each writes below a folder of its own."""
    groups = []
    for number, host in enumerate(hosts):
        folder = place / f"host-{number}"
        folder.mkdir()
        launcher = ["--nnodes", 2, "--node-rank", number, "--nproc-per-node", 1]
        launcher += ["--master-addr", "10.213.0.1", "--master-port", 29511]
        groups.append(Launched(folder / "run", budget, launcher, ["ip", "netns", "exec", host]))
    return groups


def cut_off(number: int) -> str:
    """Pull the cable between two hosts at a random instant; what was wrong, empty for nothing."""
    instant = seeded(f"cut {number}").uniform(14.0, 26.0)
    with workplace() as place, two_hosts() as hosts:
        groups = on_both(hosts, place, CUT_BUDGET_SECONDS)
        groups[0].pid_of(0)
        groups[0].wait_until(instant)
        _ip("-n", hosts[1], "link", "set", "veth", "down")
        ends = [group.end(CUT_BUDGET_SECONDS + PATIENCE_SECONDS) for group in groups]
        hung = "the second one hung" if ends[1].status is None else ""
        problem = joined(_problem(groups[0].run, ends[0], again=False), hung)
        return problem and f"{number}, at {instant:.1f} s: {problem}"


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)
