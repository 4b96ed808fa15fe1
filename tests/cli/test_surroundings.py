"""What a caller may take away: streams, a home, a name, a cache, UTF-8, plain file names."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from timebox.run import Run

QUICK = "--steps 2 --device cpu --recipe airbench94 --set width=8"
NOBODY = ("setpriv", "--reuid=54321", "--regid=54321", "--clear-groups")

pytestmark = pytest.mark.integration


def rarely(*values: object) -> list[object]:
    """Values that are tried by `make endurance` alone: each takes seconds."""
    return [pytest.param(value, marks=pytest.mark.endurance) for value in values]


ALL_CLOSED = "<&- >&- 2>&-"
as_root = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0 or not shutil.which("setpriv"), reason="only root can become nobody"
)
linux = pytest.mark.skipif(sys.platform != "linux", reason="names of files are bytes, and /dev/full is there, on Linux")


def fill(folder: Path, classes: tuple[str, ...] = ("cat", "dog"), side: int = 24) -> Path:
    rng = np.random.default_rng(0)
    for shade, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for number in range(12):
            pixels = rng.integers(100 * shade, 100 * shade + 150, (side, side, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder that anyone may write to, with photos/ in it."""
    fill(tmp_path / "photos")
    for folder in (tmp_path, *tmp_path.parents[:3]):
        folder.chmod(0o777)
    return tmp_path


def shell(command: str, place: Path, **env: str | None) -> subprocess.CompletedProcess[bytes]:
    """Run `timebox COMMAND` by a shell, which may redirect; a variable that is None is taken away."""
    return start(["bash", "-c", f"exec {shlex.quote(sys.executable)} -m timebox {command}"], place, env)


def nobody(command: str, place: Path, **env: str | None) -> subprocess.CompletedProcess[bytes]:
    """Run `timebox COMMAND` as a user without a name."""
    return start([*NOBODY, sys.executable, "-m", "timebox", *shlex.split(command)], place, env)


def start(words: list[str], place: Path, env: dict[str, str | None]) -> subprocess.CompletedProcess[bytes]:
    changed = {**os.environ, **env}
    kept = {name: value for name, value in changed.items() if value is not None}
    return subprocess.run(words, cwd=place, env=kept, capture_output=True, check=False, timeout=300)


def succeeds(done: subprocess.CompletedProcess[bytes]) -> subprocess.CompletedProcess[bytes]:
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    assert b"Traceback" not in done.stderr
    return done


# ---- streams


@pytest.mark.parametrize("closed", ["2>&-", ALL_CLOSED, *rarely("<&-", ">&-", "<&- >&-", "<&- 2>&-", ">&- 2>&-")])
@pytest.mark.parametrize("json_too", ["--json", *rarely("")])
def test_train_with_closed_streams(place: Path, closed: str, json_too: str) -> None:
    succeeds(shell(f"train photos {QUICK} --out run {json_too} {closed}", place))
    run = Run(place / "run", "cpu")
    assert run.summary["steps"] == 2
    assert len(run.predict([str(place / "photos/cat/0.png")])) == 1, "no stream was written into a file of the run"


@pytest.mark.parametrize("closed", [ALL_CLOSED, *rarely("<&-", ">&-", "2>&-")])
@pytest.mark.parametrize(
    "command",
    [
        "predict {run} photos",
        "evaluate {run} photos --split all",
        "inspect photos",
        "report {run} --output page.html",
        "compare {run} {run}",
        "export {run} --format torch --output model.pt2",
        "recipes",
        "--version",
        "--help",
        "lr-find photos --recipe haet2021 --set width=4 --precision fp32 --out lr",
        "train photos --budget 15s --recipe airbench94 --set width=8 --precision fp32 --out timed",
    ],
)
def test_other_verbs_with_closed_streams(place: Path, trained_photos: Path, command: str, closed: str) -> None:
    succeeds(shell(f"{command.format(run=shlex.quote(str(trained_photos)))} {closed}", place))


@pytest.mark.endurance
def test_a_benchmark_with_closed_streams(place: Path) -> None:
    options = "--seeds 1 --trial-budget 15s --recipe 'airbench94 width=8' --precision fp32 --device cpu"
    succeeds(shell(f"benchmark photos {options} --out b <&- >&- 2>&-", place))
    assert json.loads((place / "b" / "summary.json").read_text())


@pytest.fixture(scope="module")
def trained_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    fill(folder / "photos")
    succeeds(shell(f"train photos {QUICK} --test 0.2 --out run", folder))
    return folder / "run"


@linux
@pytest.mark.parametrize(
    ("command", "status"),
    [("inspect photos", 2), ("recipes", 2), ("--version", 2), ("--help", 2), (f"train photos {QUICK} --out run", 3)],
)
def test_a_full_disk_behind_stdout(place: Path, command: str, status: int) -> None:
    done = shell(f"{command} >/dev/full", place)
    assert done.returncode == status
    assert b"error: cannot write to standard output: No space left on device" in done.stderr


@linux
def test_a_full_disk_behind_stderr_stops_nothing(place: Path) -> None:
    succeeds(shell(f"train photos {QUICK} --out run 2>/dev/full", place))


@pytest.mark.parametrize("command", ["inspect photos", "recipes", f"train photos {QUICK} --out run"])
def test_a_pipe_that_closes_early(place: Path, command: str) -> None:
    words = f"{shlex.quote(sys.executable)} -m timebox {command} | head -c 1 >/dev/null; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", words], cwd=place, capture_output=True, check=False)
    succeeds(done)


# ---- home and cache


@as_root
@pytest.mark.parametrize("home", [None, "/nonexistent", *rarely("/", "/proc", "")])
def test_a_user_without_a_name_or_a_home(place: Path, home: str | None) -> None:
    gone = {"XDG_CACHE_HOME": None, "USER": None, "LOGNAME": None, "TIMEBOX_CACHE": None}
    succeeds(nobody(f"train photos {QUICK} --out run", place, HOME=home, **gone))
    succeeds(nobody("predict run photos --top 2", place, HOME=home, **gone))
    assert sorted(path.name for path in place.iterdir()) == ["photos", "run"], "no folder named ~"


@as_root
def test_the_home_of_a_user_without_one(place: Path) -> None:
    gone = {"HOME": None, "XDG_CACHE_HOME": None, "USER": None, "LOGNAME": None}
    done = nobody(f"train photos {QUICK} --out='~/run'", place, **gone)
    assert done.returncode == 2
    assert done.stderr.decode() == (
        "timebox train: error: --out '~/run' cannot be found: this user has no home directory; "
        "write the path without ~\n"
    )


def test_a_named_data_set_without_a_home_says_where_to_put_it(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from timebox.data import named_datasets
    from timebox.errors import DataError

    monkeypatch.setattr(named_datasets, "user_cache", lambda: None)
    monkeypatch.delenv("TIMEBOX_DATA", raising=False)
    with pytest.raises(DataError, match="cifar10 is not on this machine, and this user has no home directory"):
        named_datasets.locate("cifar10", data_dir=None)


# ---- locales and names


ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii", "PYTHONCOERCECLOCALE": "0"}


def test_a_locale_without_utf_8(tmp_path: Path) -> None:
    fill(tmp_path / "köln", ("köter", "дом"))
    done = succeeds(shell(f"train köln {QUICK} --out rün", tmp_path, **ASCII))
    assert "time           " in done.stdout.decode("ascii")
    config = json.loads((tmp_path / "rün" / "model.json").read_text(encoding="utf-8"))
    assert (sorted(config["class_names"]), config["source"]["data"]) == (["köter", "дом"], "köln")
    rows = succeeds(shell("predict rün köln/köter/0.png", tmp_path, **ASCII)).stdout.decode("ascii").splitlines()
    assert rows[1].startswith(r"k\xf6ln/k\xf6ter/0.png,")
    lines = succeeds(shell("predict rün köln --json", tmp_path, **ASCII)).stdout.decode("ascii").splitlines()
    assert {json.loads(line)["path"].split("/")[1] for line in lines} == {"köter", "дом"}
    for command in ("evaluate rün köln --split all", "inspect köln", "report rün", "compare rün rün", "recipes auto"):
        succeeds(shell(command, tmp_path, **ASCII)).stdout.decode("ascii")
    succeeds(shell("train --replay rün --out again", tmp_path, **ASCII))
    assert "köter" in (tmp_path / "rün" / "report.html").read_text(encoding="utf-8")


def test_a_run_of_one_locale_is_used_in_another(tmp_path: Path) -> None:
    fill(tmp_path / "köln", ("köter", "дом"))
    succeeds(shell(f"train köln {QUICK} --out rün", tmp_path, LC_ALL="C.UTF-8"))
    succeeds(shell("train --replay rün --out again", tmp_path, **ASCII))


@linux
def test_file_names_that_are_not_utf_8(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"photos \xff")
    fill(folder, (os.fsdecode(b"caf\xe9"), "dog"))
    (folder / "dog" / "0.png").rename(folder / "dog" / os.fsdecode(b"\xfe.png"))
    data, out = "$'photos \\xff'", "$'run \\xff'"
    done = succeeds(shell(f"train {data} {QUICK} --out {out}", tmp_path))
    assert b"timebox evaluate $'run \\xff' $'photos \\xff'" in done.stdout
    run = Run(tmp_path / os.fsdecode(b"run \xff"), "cpu")
    assert set(run.class_names) == {"caf\\xe9", "dog"}
    for command in (f"evaluate {out} {data} --split all --json", f"predict {out} {data}", f"report {out}"):
        succeeds(shell(command, tmp_path))
    succeeds(shell(f"train --replay {out} --out again", tmp_path))


@linux
@pytest.mark.parametrize(
    "name", ["it's", "two\nlines", "-x", *rarely("a b", 'a"b', "50%", "a#b", "a?b", "a\tb", "{a}", "$HOME", "[b]")]
)
def test_paths_with_special_characters(tmp_path: Path, name: str) -> None:
    fill(tmp_path / name, (name, "dog"))
    data, out = (shlex.quote(f"./{part}") for part in (name, f"run {name}"))
    done = succeeds(shell(f"train {data} {QUICK} --out {out}", tmp_path))
    for line in done.stderr.decode().splitlines():
        assert line[:7].strip().replace(".", "").isdigit(), f"one note is one line: {line!r}"
    (suggested,) = (line for line in done.stdout.decode().splitlines() if "timebox evaluate" in line)
    succeeds(shell(suggested.partition("timebox ")[2] + " --split all", tmp_path))
    assert (tmp_path / f"run {name}" / "report.html").is_file()
    refused = shell(f"train {data}/none {QUICK}", tmp_path)
    *notes, error = refused.stderr.decode().splitlines()
    assert (refused.returncode, len(notes)) == (2, 1)
    assert error.startswith("timebox train: error: ")
