"""A way to run commands inside the test's own process, and stand-ins for what lies below the command line."""

import json
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import NamedTuple

import pytest

from timebox.cli import main


class ReadResult(NamedTuple):
    """How a command ended."""

    status: int
    out: str
    err: str

    def json(self) -> dict[str, object]:
        """What stdout holds, which must be one JSON object and nothing else, without NaN."""
        loaded = json.loads(self.out, parse_constant=lambda constant: pytest.fail(f"{constant} is not JSON"))
        assert isinstance(loaded, dict)
        return loaded


Command = Callable[..., ReadResult]
Replace = Callable[..., None]


@pytest.fixture
def timebox(capsys: pytest.CaptureFixture[str]) -> Command:
    """`timebox("train", "digits", …)` runs the command line in this process."""

    def run(*argv: object) -> ReadResult:
        capsys.readouterr()
        status = main([str(word) for word in argv])
        return ReadResult(status, *capsys.readouterr())

    return run


@pytest.fixture
def replace(monkeypatch: pytest.MonkeyPatch) -> Replace:
    """`replace("timebox.pipelines.train", train=…)` puts functions in place of a module that a verb imports."""

    def put(module: str, **functions: object) -> None:
        monkeypatch.setitem(sys.modules, module, SimpleNamespace(**functions))

    return put
