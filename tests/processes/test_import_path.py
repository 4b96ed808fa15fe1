"""Files of the working directory and of the data are not imported, however timebox is started."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from small_runs import save_npz
from timebox.processes import import_path
from timebox.processes.import_path import ROOT, drop_working_directory, has_empty_entry, is_run_as_module

# Modules that the command line, torch or Python's start import. `site` and `os` are built into Python.
PLANTED = (
    "numpy", "torch", "json", "typing", "argparse", "subprocess", "PIL", "optuna", "rich", "msgspec", "random", "csv",
    "sitecustomize", "usercustomize", "secrets", "timebox_vision", "__main__", "__init__", "safetensors", "sqlalchemy",
)  # fmt: skip
# The script that an installation writes.
SCRIPT = "import sys\nfrom timebox.cli import main\nif __name__ == '__main__':\n    sys.exit(main())\n"
# In the journal of a search, once a worker has trained and scored a trial.
MEASURED = '"op_code":7'
QUICK = ("--recipe", "airbench94 width=8", "--precision", "fp32", "--device", "cpu")


def plant(folder: Path) -> None:
    """Put a file beside the images for each module, which leaves a mark where it is run."""
    mark = str(folder / "RUN-")
    for name in PLANTED:
        (folder / f"{name}.py").write_text(f"open({mark + name!r}, 'w')\nraise ImportError('planted')\n")


def planted_files_run(*folders: Path) -> list[str]:
    return sorted(str(file) for folder in folders for file in folder.glob("RUN-*"))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: planted files, and a folder of data with planted files."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "timebox").write_text(SCRIPT)
    for folder in (tmp_path / "work", tmp_path / "work" / "data"):
        folder.mkdir()
        plant(folder)
    save_npz(tmp_path / "work" / "data" / "images.npz", 150)
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("PYTHONPATH", ROOT)
    return tmp_path / "work"


def start(place: Path, words: list[str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *words, *arguments]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False, timeout=300)
    assert planted_files_run(place, place / "data") == []
    return done


def program(place: Path) -> list[str]:
    return [str(place.parent / "bin" / "timebox")]


@pytest.mark.parametrize(
    "words", [["-m", "timebox"], ["-mtimebox"], ["-Bm", "timebox"], ["-Bmtimebox"], ["-P", "-m", "timebox"], "script"]
)
def test_the_start_imports_nothing_of_the_working_directory(place: Path, words: list[str] | str) -> None:
    done = start(place, program(place) if isinstance(words, str) else words, "recipes")
    assert (done.returncode, done.stderr) == (0, "")
    assert "airbench94" in done.stdout


@pytest.mark.parametrize("python_path", [f":{ROOT}", f"{ROOT}:", f"{ROOT}::"])
def test_an_empty_entry_of_pythonpath_is_left_out(
    place: Path, python_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python itself imports what it starts with from there; all that timebox imports comes from elsewhere."""
    monkeypatch.setenv("PYTHONPATH", python_path)
    for name in PLANTED:
        if name in ("sitecustomize", "usercustomize"):
            (place / f"{name}.py").unlink()
    for words in (["-m", "timebox"], program(place)):
        assert start(place, words, "inspect", "data/images.npz").returncode == 0


@pytest.mark.integration
@pytest.mark.parametrize("words", [["-m", "timebox"], "script"])
def test_train_imports_nothing_of_the_working_directory_and_the_data(place: Path, words: list[str] | str) -> None:
    words = program(place) if isinstance(words, str) else words
    options = [*("--steps", "2", "--out", "run", "--device", "cpu", "--recipe", "airbench94", "--set", "width=8")]
    assert start(place, words, "train", "data/images.npz", *options).returncode == 0
    for verb in (
        ["evaluate", "run", "data/images.npz", "--split", "all"],
        ["report", "run"],
        ["compare", "run", "run"],
    ):
        assert start(place, words, *verb).returncode == 0, verb


@pytest.mark.integration
@pytest.mark.parametrize("words", [["-m", "timebox"], pytest.param("script", marks=pytest.mark.endurance)])
def test_the_trials_of_a_benchmark_import_nothing_of_the_working_directory(place: Path, words: list[str] | str) -> None:
    words = program(place) if isinstance(words, str) else words
    options = ["--seeds", "1", "--trial-budget", "15s", "--out", "b", *QUICK]
    done = start(place, words, "benchmark", "data/images.npz", *options)
    assert done.returncode == 0, done.stderr
    assert "1 of 1 done" in done.stdout


@pytest.mark.integration
def test_the_workers_of_a_search_import_nothing_of_the_working_directory(place: Path) -> None:
    save_npz(place / "data" / "images.npz", 300)
    options = ["--budget", "200s", "--trial-budget", "5s", "--out", "t", "--recipe", "airbench94", "--set", "width=8"]
    words = [*program(place), "tune", "data/images.npz", *options, "--precision", "fp32", "--device", "cpu"]
    journal = place / "t" / "journal.log"
    with subprocess.Popen([sys.executable, *words], cwd=place, stderr=subprocess.PIPE, text=True) as search:
        while search.poll() is None and not (journal.exists() and MEASURED in journal.read_text()):
            time.sleep(0.1)
        search.send_signal(signal.SIGINT)
        _, printed = search.communicate()
    assert MEASURED in journal.read_text(), printed
    assert "planted" not in printed
    assert planted_files_run(place, place / "data") == []


def test_how_a_program_was_started_is_told_from_its_words() -> None:
    def as_module(*words: str, arguments: int = 0) -> bool:
        return is_run_as_module(["python", *words], ["-m", *words[len(words) - arguments :]])

    assert as_module("-m", "timebox")
    assert as_module("-m", "timebox", "train", "-m", arguments=2)
    assert as_module("-u", "-m", "timebox.tuning.worker")
    assert as_module("-Wignore", "-Bmtimebox", "train", arguments=1)
    assert not as_module("-m", "timeboxes")
    assert not as_module("-m", "mine.train", "timebox", arguments=1)
    assert not is_run_as_module(["python", "train.py"], ["train.py"])
    assert not is_run_as_module([], [])


def test_empty_entries() -> None:
    assert [has_empty_entry(path) for path in ("", ":", "/a", "/a:/b", ":/a", "/a:", "/a::/b")] == [
        False, True, False, False, True, True, True,
    ]  # fmt: skip


def test_a_program_that_imports_timebox_keeps_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = [str(tmp_path), "/usr/lib/python3"]
    monkeypatch.setattr(sys, "path", path)
    monkeypatch.setattr(sys, "argv", ["mine.py"])
    drop_working_directory()
    assert path == [str(tmp_path), "/usr/lib/python3"]
    monkeypatch.setattr(sys, "argv", ["-m"])
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "timebox"])
    monkeypatch.setattr(import_path, "ROOT", str(tmp_path))
    drop_working_directory()
    assert path[0] == str(tmp_path), "timebox itself lies there"
    monkeypatch.setattr(import_path, "ROOT", "/elsewhere")
    drop_working_directory()
    assert path == ["/usr/lib/python3"]


@pytest.mark.integration
def test_the_ranks_that_torchrun_starts_import_nothing_of_the_working_directory(place: Path) -> None:
    launcher = ["-P", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1", "-m", "timebox"]
    options = ("--steps", "2", "--out", "run", "--device", "cpu", "--recipe", "airbench94", "--set", "width=8")
    done = start(place, launcher, "train", "data/images.npz", *options)
    assert done.returncode == 0, done.stderr
    assert (place / "run" / "model.safetensors").exists()
