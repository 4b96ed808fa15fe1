"""No module but `processes/children.py` starts a process, and none changes what is searched for code."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "src" / "timebox"
MODULES = sorted(PACKAGE.rglob("*.py"))
MIN_MODULES = 150
STARTS_PROCESSES, CHANGES_PATH = "processes/children.py", "processes/import_path.py"
# Modules of the standard library and of torch that start processes.
STARTERS = {
    "subprocess", "multiprocessing", "torch.multiprocessing", "pty", "asyncio.subprocess", "runpy", "posix", "nt",
    "concurrent.futures.process", "_posixsubprocess", "torch.distributed.run", "torch.distributed.launcher", "popen2",
    "commands",
}  # fmt: skip
FUNCTIONS = ("system", "popen", "startfile", "exec", "spawn", "posix_spawn", "fork")  # of os, or how they begin
NAMES = {"ProcessPoolExecutor", "create_subprocess_exec", "create_subprocess_shell"}


def starts(source: str) -> Iterator[str]:
    """Every place of a source that could start a process, as text."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if _is_starter(alias.name))
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (
                f"{node.module}.{alias.name}"
                for alias in node.names
                if _is_starter(node.module)
                or _is_starter(f"{node.module}.{alias.name}")
                or (node.module == "os" and alias.name.startswith(FUNCTIONS))
                or (node.module == "sys" and alias.name == "executable")
                or alias.name in NAMES
            )
        elif isinstance(node, ast.Attribute):
            of = node.value.id if isinstance(node.value, ast.Name) else ""
            is_start = of == "os" and node.attr.startswith(FUNCTIONS)
            if is_start or node.attr in NAMES or (of == "sys" and node.attr == "executable"):
                yield f"{of}.{node.attr}"
        elif isinstance(node, ast.keyword) and node.arg == "num_workers":
            yield "num_workers"


def path_changes(source: str) -> Iterator[str]:
    """Every mention of what Python searches for modules."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "sys":
            if node.attr in ("path", "path_hooks", "meta_path"):
                yield f"sys.{node.attr}"
        elif isinstance(node, ast.ImportFrom) and node.module == "sys":
            yield from (f"sys.{alias.name}" for alias in node.names if "path" in alias.name)
        elif isinstance(node, ast.Attribute) and node.attr == "addsitedir":
            yield "site.addsitedir"


def _is_starter(module: str) -> bool:
    return module in STARTERS or any(module.startswith(f"{starter}.") for starter in STARTERS)


def relative(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def test_processes_are_started_in_one_place() -> None:
    assert len(MODULES) >= MIN_MODULES
    found = {relative(path): list(starts(path.read_text(encoding="utf-8"))) for path in MODULES}
    assert found.pop(STARTS_PROCESSES), "the module that starts them"
    assert {name: places for name, places in found.items() if places} == {}


def test_the_search_path_is_changed_in_one_place() -> None:
    found = {relative(path): list(path_changes(path.read_text(encoding="utf-8"))) for path in MODULES}
    assert found.pop(CHANGES_PATH), "the module that changes it"
    assert {name: places for name, places in found.items() if places} == {}


@pytest.mark.parametrize(
    "source",
    [
        "import subprocess",
        "import os, subprocess as sp",
        "from subprocess import run",
        "import multiprocessing.pool",
        "from multiprocessing import Process",
        "from torch import multiprocessing",
        "import torch.multiprocessing as mp",
        "from concurrent.futures import ProcessPoolExecutor",
        "import concurrent.futures\nconcurrent.futures.ProcessPoolExecutor(2)",
        "import asyncio\nasyncio.create_subprocess_exec('timebox')",
        "import asyncio.subprocess",
        "import os\nos.system('timebox')",
        "import os\nos.popen('timebox')",
        "import os\nos.execv('x', [])",
        "import os\nos.spawnlp(0, 'x')",
        "import os\nos.posix_spawn('x', [], {})",
        "def f():\n    import os\n    os.fork()",
        "from os import execvp",
        "import pty",
        "import runpy",
        "import sys\ncommand = [sys.executable, '-m', 'timebox']",
        "from sys import executable",
        "loader = DataLoader(data, num_workers=4)",
    ],
)
def test_the_check_sees_a_start(source: str) -> None:
    assert list(starts(source))


@pytest.mark.parametrize(
    "source",
    [
        "from timebox.processes import children",
        "import os\nos.path.exists('x')",
        "from concurrent.futures import Future",
    ],
)
def test_the_check_lets_other_code_pass(source: str) -> None:
    assert not list(starts(source))


@pytest.mark.parametrize(
    "source", ["import sys\nsys.path.insert(0, 'x')", "from sys import path", "import site\nsite.addsitedir('x')"]
)
def test_the_check_sees_a_change_of_the_path(source: str) -> None:
    assert list(path_changes(source))
