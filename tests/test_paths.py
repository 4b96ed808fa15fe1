"""Paths of users, and how they are shown."""

import errno
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from small_runs import quick, save_npz
from timebox import files, paths
from timebox.configs.benchmark import BenchmarkConfig
from timebox.configs.train import TrainConfig
from timebox.configs.tune import TuneConfig
from timebox.configs.verbs import ExportConfig, PredictConfig, ReportConfig
from timebox.data import load_data
from timebox.errors import OutputError, UsageError
from timebox.paths import as_unicode, expand_user, one_line, shell_quote
from timebox.run import load


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_home_takes_the_place_of_a_tilde(home: Path) -> None:
    assert expand_user("~/a b") == f"{home}/a b"
    assert expand_user(Path("~/a")) == f"{home}/a"
    assert expand_user("~") == str(home)
    for unchanged in ("a/~/b", "a~", "~no-such-user/x", "./~/x", "", "auto"):
        assert expand_user(unchanged) == unchanged


def test_without_a_home_a_tilde_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths.os.path, "expanduser", lambda path: path)
    with pytest.raises(UsageError, match=r"^'~/x' cannot be found: this user has no home directory; write the path wi"):
        expand_user("~/x")


def test_every_option_that_is_a_path_is_expanded(home: Path) -> None:
    names = ("data", "recipe", "init", "val", "test", "out", "data_dir")
    config = TrainConfig(**{name: f"~/{name}" for name in names})  # type: ignore[arg-type]
    assert [getattr(config, name) for name in names] == [f"{home}/{name}" for name in names]
    for name in ("resume", "replay"):
        assert getattr(TrainConfig(**{name: "~/r"}), name) == f"{home}/r"  # type: ignore[arg-type]
    assert TrainConfig(data="x", val=0.5).val == 0.5
    assert PredictConfig(run="~/r", images=("~/a", "-")).images == (f"{home}/a", "-")
    export = ExportConfig(run="~/r", output="~/m", check=("~/a",))
    assert (export.run, export.output, export.check) == (f"{home}/r", f"{home}/m", (f"{home}/a",))
    assert ReportConfig(run="r", tensorboard="~/logs").tensorboard == f"{home}/logs"
    assert TuneConfig(data="d", space="~/s.toml").space == f"{home}/s.toml"
    assert BenchmarkConfig(recipes=("~/r.toml width=8",)).recipes == (f"{home}/r.toml width=8",)


def test_python_expands_texts_and_paths(home: Path) -> None:
    save_npz(home / "data.npz")
    for out, data in (("~/one", "~/data.npz"), (Path("~/two"), Path("~/data.npz"))):
        quick(data, out)  # type: ignore[arg-type]
        assert load(out).summary["steps"] == 6
    assert len(load_data("~/data.npz").splits.train) == 150
    assert not Path("~").exists()


def test_names_as_text() -> None:
    assert as_unicode("k\udcc3\udcb6ter") == "köter"
    assert as_unicode("köter") == "köter"
    assert as_unicode("caf\udce9") == "caf\udce9"
    assert one_line("a\nb\tc\x1b[0m caf\udce9 \u2028 köter") == r"a\nb\tc\x1b[0m caf\xe9 \u2028 köter"


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are bytes on Linux")
@pytest.mark.parametrize("name", ["a", "a b", "it's", "a\nb", "a\tb'", "back\\slash\n", "caf\udce9", "köter"])
def test_a_quoted_path_is_one_line_and_read_back_by_a_shell(name: str) -> None:
    quoted = shell_quote(name)
    assert "\n" not in quoted
    read = subprocess.run(
        ["bash", "-c", f"printf %s {quoted}"], capture_output=True, check=True, env={"LC_ALL": "C.UTF-8"}
    )
    assert read.stdout == os.fsencode(name)
    if name.isprintable():
        assert quoted == shlex.quote(name)


def test_training_works_on_a_file_system_without_locks_and_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*given: object, **more: object) -> None:
        raise OSError(errno.ENOTSUP, "Operation not supported")

    for name in ("link", "symlink"):
        monkeypatch.setattr(os, name, unsupported)
    monkeypatch.setattr(files.fcntl, "flock", unsupported)
    data = save_npz(tmp_path / "data.npz")
    quick(data, tmp_path / "run")
    quick(data, tmp_path / "run", overwrite=True)
    assert load(tmp_path / "run").summary["steps"] == 6


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EPERM, errno.ENOSYS, errno.EINVAL])
def test_a_lock_that_there_is_not_is_not_missed(number: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(*given: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(files.fcntl, "flock", fail)
    with (tmp_path / "file").open("w") as file:
        files.lock(file.fileno())
        with pytest.raises(OSError, match=os.strerror(number)):
            files.lock(file.fileno(), wait=True)


def test_no_directory_for_temporary_files(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*given: object, **more: object) -> None:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")

    words = r"^no directory for temporary files can be written to \(No usable .*\); set TMPDIR to one that can$"
    for name in ("TemporaryDirectory", "TemporaryFile"):
        monkeypatch.setattr(files.tempfile, name, fail)
    with pytest.raises(OutputError, match=words), files.temporary_directory("x"):
        pass
    with pytest.raises(OutputError, match=words):
        files.temporary_file()
