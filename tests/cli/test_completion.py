"""`timebox completion`: the scripts, and bash completing by one."""

import shutil
import subprocess
from pathlib import Path
from typing import get_args

import pytest

from timebox.cli.completion import completion_script
from timebox.configs.verbs import Shell

from .conftest import Command

COMPLETE = """
source "$1"; cd "$2"; shift 2
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"
_shtab_timebox
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.mark.parametrize("shell", get_args(Shell))
def test_every_shell_has_a_script(timebox: Command, shell: str) -> None:
    outcome = timebox("completion", shell)
    assert outcome.status == 0
    for word in ("train", "lr-find", "budget"):
        assert word in outcome.out


def test_another_shell_is_refused(timebox: Command) -> None:
    outcome = timebox("completion", "csh")
    assert outcome.status == 2
    assert "SHELL 'csh' must be one of bash, zsh, fish, tcsh, powershell" in outcome.err


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
@pytest.mark.parametrize(
    ("words", "completed"),
    [
        (("tr",), {"train"}),
        (("train", "--budg"), {"--budget"}),
        (("train", "--device", ""), {"auto", "cpu", "cuda"}),
        (("export", "--format", "o"), {"onnx"}),
        (("predict", "my-r"), {"my-run"}),
        (("train", "my"), {"my-run", "my-photos.zip"}),
    ],
)
def test_bash_completes(words: tuple[str, ...], completed: set[str], tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text(completion_script("bash"))
    folder = tmp_path / "folder"
    (folder / "my-run").mkdir(parents=True)
    (folder / "my-photos.zip").touch()
    command = ["bash", "-c", COMPLETE, "bash", str(script), str(folder), "timebox", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == completed
