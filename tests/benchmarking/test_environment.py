"""What is known of the machine, and which source is measured."""

import subprocess
from pathlib import Path

import pytest
import torch

from timebox.benchmarking import environment as module
from timebox.benchmarking.environment import commit, device_name, environment

CPU = torch.device("cpu")


@pytest.fixture
def git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package in a repository, committed."""
    for name in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{name}_NAME", "me")
        monkeypatch.setenv(f"GIT_{name}_EMAIL", "me@example.org")
    package = tmp_path / "src" / "package"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (tmp_path / "README.md").touch()
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "all"]):
        subprocess.run(["git", "-C", tmp_path, *words], check=True)
    return package


def test_the_machine_is_read_from_proc(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text("vendor_id\t: X\nmodel name\t: Some: CPU @ 3 GHz\nmodel name\t: other\n")
    (tmp_path / "proc/meminfo").write_text("MemTotal:       1024 kB\nMemFree:  1 kB\n")
    found = environment(CPU, tmp_path)
    assert (found.processor, found.memory_bytes, found.device) == ("Some: CPU @ 3 GHz", 1 << 20, "cpu")
    assert set(found.versions) == {"timebox", "torch", "numpy", "python"}


def test_processors_of_one_name_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text("cpu family\t: 25\nmodel\t\t: 17\nmodel name\t: AMD EPYC\n")
    assert environment(CPU, tmp_path).processor == "AMD EPYC (family 25, model 17)"


def test_what_nothing_tells_is_none(tmp_path: Path) -> None:
    found = environment(CPU, tmp_path)
    assert found.memory_bytes is None
    assert found.processor


def test_a_gpu_that_does_not_answer_is_called_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "output_of_code", lambda code, max_seconds: "")
    assert device_name(torch.device("cuda")) == "cuda"


def test_a_commit_is_clean_while_the_package_is(git: Path) -> None:
    clean = commit(git)
    assert clean is not None
    assert clean.isalnum()
    (git.parents[1] / "README.md").write_text("changed")
    assert commit(git) == clean, "what lies beside the package is not measured"
    (git / "new.py").touch()
    assert commit(git) == f"{clean}-dirty"


def test_a_package_that_merely_lies_in_a_repository_is_no_checkout(git: Path, tmp_path: Path) -> None:
    installed = git.parents[1] / ".venv" / "package"
    installed.mkdir(parents=True)
    (installed / "__init__.py").touch()
    assert commit(installed) is None
    assert commit(tmp_path.parent) is None
