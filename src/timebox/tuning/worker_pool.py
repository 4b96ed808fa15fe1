"""The worker processes of one machine: started, replaced when they die, stopped together."""

import json
import os
import platform
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO

from timebox.configs.storage_url import hide_passwords
from timebox.errors import UsageError
from timebox.files import temporary_file
from timebox.processes import children
from timebox.tuning.worker import EXIT_USER_ERROR, WorkerConfig

# Workers in a row that may die without any trial measured meanwhile.
MAX_FAILED_STARTS = 3
TERMINATE_SECONDS = 1.0
_STDERR_BYTES = 4000


@dataclass(frozen=True)
class _WorkerProcess:
    name: str
    process: children.ByteProcess
    stderr: IO[bytes]
    num_measured_at_start: int


class WorkerPool:
    """Starts worker processes.

    Args:
        config: of all workers; their number, name and parent are filled in.
        temporary: directory for their temporary files.
        first_number: of the first worker.
    """

    def __init__(self, size: int, config: WorkerConfig, temporary: Path, first_number: int) -> None:
        self._config, self._temporary = config, temporary
        self._next_number, self._num_failed_starts = first_number, 0
        self._workers = [self._start(0) for _ in range(size)]

    @property
    def is_running(self) -> bool:
        """Whether any worker is left."""
        return bool(self._workers)

    def replace_dead(self, num_measured: int) -> list[str]:
        """Replace the workers that failed since the last call; returns the names of all that ended.

        Args:
            num_measured: trials measured so far.
        Raises:
            UsageError: with the last line a worker wrote, where it found an error that the user must fix, or where
                three workers in a row died without any trial measured meanwhile.
        """
        ended = [worker for worker in self._workers if worker.process.poll() is not None]
        for worker in ended:
            self._workers.remove(worker)
            message, status = _read_last_line(worker.stderr), worker.process.returncode
            if status == 0:
                continue
            is_progress = num_measured > worker.num_measured_at_start
            self._num_failed_starts = 0 if is_progress else self._num_failed_starts + 1
            if status == EXIT_USER_ERROR or self._num_failed_starts >= MAX_FAILED_STARTS:
                message = hide_passwords(message, self._config.storage)
                raise UsageError(message or f"a worker ended with status {status}")
            self._workers.append(self._start(num_measured))
        return [worker.name for worker in ended]

    def stop(self) -> list[str]:
        """Terminate all workers; returns their names."""
        stopped, self._workers = self._workers, []
        for worker in stopped:
            worker.process.terminate()
        for worker in stopped:
            try:
                worker.process.wait(TERMINATE_SECONDS)
            except children.TimeoutExpired:
                worker.process.kill()
                worker.process.wait()
            worker.stderr.close()
        return [worker.name for worker in stopped]

    def _start(self, num_measured: int) -> _WorkerProcess:
        number, self._next_number = self._next_number, self._next_number + 1
        name = f"{platform.node()}-{os.getpid()}-{number}"
        config = replace(self._config, number=number, name=name, parent=os.getpid())
        stderr = temporary_file()  # closed once the worker has ended
        spin_count = os.environ.get("GOMP_SPINCOUNT", "1000")  # see the command line
        process: children.ByteProcess = children.start_module(
            "timebox.tuning.worker",
            stdin=children.PIPE,
            stdout=children.DEVNULL,
            stderr=stderr,
            env={"GOMP_SPINCOUNT": spin_count, "TMPDIR": str(self._temporary)},
            start_new_session=True,  # Ctrl-C goes to the search alone
        )
        assert process.stdin is not None
        with suppress(BrokenPipeError), process.stdin as stdin:  # an argument would show the password to all users
            stdin.write(json.dumps(asdict(config)).encode())
        return _WorkerProcess(name, process, stderr, num_measured)


def _read_last_line(stderr: IO[bytes]) -> str:
    with stderr:
        stderr.seek(max(0, stderr.seek(0, os.SEEK_END) - _STDERR_BYTES))
        lines = stderr.read().decode("utf-8", "replace").strip().splitlines()
    return lines[-1] if lines else ""
