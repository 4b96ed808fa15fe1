"""`timebox completion`: the scripts, bash completing by one, and TAB in real shells, which starts no program."""

import os
import select
import shutil
import subprocess
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import get_args

import pytest

from timebox.cli.completion import completion_script
from timebox.configs.verbs import Shell

from .conftest import Command

SHELLS = ("bash", "zsh", "fish")
TAB_SECONDS, END_SECONDS = 1.0, 20.0
# A shell without the user's own settings, and the lines with which it takes the script `{script}` in `{folder}`.
START = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], "source {script}", 'timebox() {{ printf "<%s>" "$@"; echo; }}'),
    "zsh": (
        ["zsh", "-f", "-i"],
        "fpath=({folder} $fpath); autoload -Uz compinit; compinit -u -D",
        'timebox() {{ printf "<%s>" "$@"; echo; }}',
    ),
    "fish": (["fish", "--no-config", "-i"], "source {script}", 'function timebox; printf "<%s>" $argv; echo; end'),
}
# Words with a TAB after each ~, and the arguments that they become.
TYPED = {
    "trai~ dig~ --recipe airb~ --device cu~": ("train", "digits", "--recipe", "airbench94", "--device", "cuda"),
    "predict runs re~ --format j~": ("predict", "runs", "red.png", "--format", "jsonl"),
    "recipes hae~": ("recipes", "haet2021"),
}
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
        (("train", "dig"), {"digits"}),
        (("train", "photos", "--recipe", "hae"), {"haet2021"}),
        (("train", "photos", "--recipe", "my"), {"my-run", "my-photos.zip"}),
        (("recipes", "hae"), {"haet2021"}),
        (("train", "photos", "--init", "pre"), {"pretrained"}),
        (("train", "photos", "--val", ""), {"rest", "none", "my-run", "my-photos.zip"}),
        (("tune", "photos", "--val", ""), {"rest", "my-run", "my-photos.zip"}),
        (("serve", "my-run", "--feedback", "n"), {"none"}),
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


@pytest.mark.parametrize("shell", SHELLS)
def test_the_shell_finds_no_error_in_the_script(shell: str, tmp_path: Path) -> None:
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")
    script = tmp_path / "script"
    script.write_text(completion_script(shell))
    done = subprocess.run([shell, "-n", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.integration
@pytest.mark.parametrize("typed", TYPED)
@pytest.mark.parametrize("shell", SHELLS)
def test_tab_in_a_real_shell(shell: str, typed: str, tmp_path: Path) -> None:
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")
    (tmp_path / "runs").mkdir()
    (tmp_path / "red.png").touch()
    shown = type_into(shell, typed, tmp_path)
    expected = "".join(f"<{word}>" for word in TYPED[typed])
    assert expected in shown, shown
    assert not (tmp_path / "started").exists(), "TAB has started the program"


def type_into(shell: str, typed: str, place: Path) -> str:
    """All that a shell on a terminal shows, into which a command was typed. A real `timebox` would leave a file."""
    folder = place / ".scripts"
    folder.mkdir()
    script = folder / "_timebox"
    script.write_text(completion_script(shell))
    (folder / "timebox").write_text(f"#!/bin/sh\ntouch {place}/started\n")
    (folder / "timebox").chmod(0o755)
    command, *lines = START[shell]
    ours, theirs = os.openpty()
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, "TERM": "xterm", "PATH": path, "HOME": str(place / ".scripts"), "PS1": "$ "}
    # fish wants a terminal that controls its session.
    take = partial(os.login_tty, theirs)
    process = subprocess.Popen(command, cwd=place, env=env, pass_fds=[theirs], preexec_fn=take)
    os.close(theirs)
    try:
        shown = _read(ours, TAB_SECONDS)
        for line in lines:
            os.write(ours, line.format(script=script, folder=folder).encode() + b"\n")
            shown += _read(ours, TAB_SECONDS)
        parts = f"timebox {typed}".split("~")
        for number, part in enumerate(parts):
            # What TAB completes, it ends with a space.
            os.write(ours, part.lstrip(" ").encode() if number else part.encode())
            if number < len(parts) - 1:
                os.write(ours, b"\t")
                shown += _read(ours, TAB_SECONDS)
        os.write(ours, b"\n")
        shown += _read(ours, TAB_SECONDS)
        return shown
    finally:
        process.kill()
        process.wait(END_SECONDS)
        os.close(ours)


def _read(terminal: int, seconds: float) -> str:
    """What is written on a terminal until nothing more comes for so long."""
    written, last = b"", time.monotonic()
    with suppress(OSError):
        while time.monotonic() - last < seconds:
            if select.select([terminal], [], [], 0.1)[0]:
                written, last = written + os.read(terminal, 1 << 16), time.monotonic()
    return written.decode(errors="replace")
