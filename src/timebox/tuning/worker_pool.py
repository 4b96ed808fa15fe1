"""The workers of one machine, each a process of its own, and whoever watches them."""

import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from timebox.errors import UsageError
from timebox.tuning.worker import REFUSED

# A worker that ends so many times without a trial done is not started again.
MOST_STARTS_IN_VAIN = 3
_LAST_WORDS_BYTES = 4000
# What a process is given to end by itself.
LEAVING_SECONDS = 1.0


@dataclass
class _Member:
    name: str
    process: subprocess.Popen[bytes]
    words: IO[bytes]
    num_done_at_start: int


class Crew:
    """Starts workers, starts another for one that died, stops them all.

    Args:
        arguments: of :func:`timebox.tuning.worker.work`, the same for all.
        temporary: where workers put what they need for a while.
        first: number of the first worker.
    """

    def __init__(self, size: int, arguments: Mapping[str, object], temporary: Path, first: int = 0) -> None:
        self._arguments, self._temporary = dict(arguments), temporary
        self._num_started = first
        self._num_in_vain = 0
        self._members = [self._start(0) for _ in range(size)]

    def dead(self, num_done: int) -> list[str]:
        """Names of the workers that ended since the last call, each of which is replaced if it failed.

        Args:
            num_done: trials that came to something so far, by which a worker that does nothing but die is told.
        Raises:
            UsageError: with what it said, where a worker found that nothing can be done, or none gets anything done.
        """
        gone = [member for member in self._members if member.process.poll() is not None]
        for member in gone:
            self._members.remove(member)
            if member.process.returncode == 0:
                member.words.close()
                continue
            said = _last_of(member.words)
            self._num_in_vain = 0 if num_done > member.num_done_at_start else self._num_in_vain + 1
            if member.process.returncode == REFUSED or self._num_in_vain >= MOST_STARTS_IN_VAIN:
                raise UsageError(said or f"a worker ended with status {member.process.returncode}")
            self._members.append(self._start(num_done))
        return [member.name for member in gone]

    @property
    def is_at_work(self) -> bool:
        """Whether any worker is left."""
        return bool(self._members)

    def stop(self) -> list[str]:
        """End all at once; their names."""
        for member in self._members:
            member.process.terminate()
        for member in self._members:
            try:
                member.process.wait(LEAVING_SECONDS)
            except subprocess.TimeoutExpired:
                member.process.kill()
                member.process.wait()
        stopped, self._members = self._members, []
        for member in stopped:
            member.words.close()
        return [member.name for member in stopped]

    def _start(self, num_done: int) -> _Member:
        number, self._num_started = self._num_started, self._num_started + 1
        name = f"{platform.node()}-{os.getpid()}-{number}"
        arguments = {**self._arguments, "number": number, "name": name, "parent": os.getpid()}
        words = tempfile.TemporaryFile()  # noqa: SIM115  # closed once the worker is gone
        process = subprocess.Popen(
            [sys.executable, "-m", "timebox.tuning.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=words,
            env={
                "GOMP_SPINCOUNT": "1000",
                **os.environ,
                "TMPDIR": str(self._temporary),
            },  # as the command line, which says why
            start_new_session=True,  # Ctrl-C is for the one that started it
        )
        assert process.stdin is not None
        with suppress(BrokenPipeError), process.stdin as told:  # not as an argument, which everybody can read
            told.write(json.dumps(arguments).encode())
        return _Member(name, process, words, num_done)


def _last_of(words: IO[bytes]) -> str:
    """The last line that a worker wrote."""
    with words:
        words.seek(max(0, words.seek(0, os.SEEK_END) - _LAST_WORDS_BYTES))
        lines = words.read().decode("utf-8", "replace").strip().splitlines()
    return lines[-1] if lines else ""
