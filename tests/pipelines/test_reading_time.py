"""timebox.train under budgets that reading does not fit, and clocks that begin with the call."""

import os
import socket
import subprocess
import sys
import time
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from budgets import within_budget
from small_runs import SMALL, quick, save_npz, save_photos, slow_down
from timebox.cli.exit_status import DONE, REFUSED
from timebox.data.reading import encoded_images
from timebox.errors import BudgetError, DataError, RunError, TimeboxError, UsageError, flags_in_messages
from timebox.pipelines import train
from timebox.progress import SilentReporter, StepStatus
from timebox.run import load

QUICK = ("--recipe", "haet2021", "--set", "width=4", "--device", "cpu", "--precision", "fp32")


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A zip archive of 60,000 images of 64x64, cats before dogs."""
    path, rng, blobs = tmp_path_factory.mktemp("archive") / "z.zip", np.random.default_rng(0), []
    for shade in (40, 160):
        buffer = BytesIO()
        Image.fromarray(rng.integers(shade, shade + 90, (64, 64, 3), dtype=np.uint8)).save(buffer, "PNG")
        blobs.append(buffer.getvalue())
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(60_000):
            archive.writestr(f"{'cat' if number < 30_000 else 'dog'}/{number}.png", blobs[number // 30_000])
    return path


def command(*words: str) -> tuple[subprocess.CompletedProcess[str], float]:
    """A command, and the seconds it took."""
    begin = time.monotonic()
    done = subprocess.run([sys.executable, "-m", "timebox", *words], capture_output=True, text=True, check=False)
    return done, time.monotonic() - begin


@pytest.mark.integration
def test_an_archive_too_large_for_the_budget_is_refused_before_the_deadline(archive: Path, tmp_path: Path) -> None:
    done, seconds = command("train", str(archive), "--budget", "15s", "--out", str(tmp_path / "run"), *QUICK)
    assert done.returncode == REFUSED, done.stderr
    assert seconds < 15.5
    assert f"budget 15s is too short: reading '{archive}' " in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.integration
def test_a_part_of_it_is_trained_on_and_that_is_said(archive: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = ("--budget", "30s", "--allow-partial", "--test", "none", "--no-cache", "--out", str(out), *QUICK)
    done, seconds = command("train", str(archive), *words)
    assert done.returncode == DONE, done.stderr
    assert seconds < 30.5
    assert "allow_partial: " in done.stderr
    run = load(out)
    config = run.config
    training = config["training"]
    assert isinstance(training, dict)
    part = training["part_read"]
    assert training["allow_partial"] is True
    assert part["of"] == 60_000
    sentence = (
        f"allow_partial: {part['images']:,} of 60,000 images are read, the same share of each class; there was no time "
        "to read the others"
    )
    plan = config["plan"]
    assert isinstance(plan, dict)
    assert plan["lines"][0] == sentence
    assert run.summary["part_read"] == part
    notes = run.summary["notes"]
    assert isinstance(notes, list)
    assert notes[0] == sentence
    assert "--allow-partial" in str(run.summary["command"])


class Stop(SilentReporter):
    """Ctrl-C in the fifth step."""

    def step(self, status: StepStatus) -> None:
        if status.step == 5:
            raise KeyboardInterrupt


@pytest.mark.integration
def test_a_run_on_a_part_is_resumed_on_the_same_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    for shade, name in enumerate(("cat", "dog")):
        (tmp_path / "ds" / name).mkdir(parents=True)
        for number in range(700):
            side = 8 + 8 * (number % 3)  # the working size follows the images that are read
            pixels = rng.integers(100 * shade, 100 * shade + 150, (side, side, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "ds" / name / f"{number}.png")
    monkeypatch.setattr("timebox.jobs.fit.SNAPSHOT_STEPS", 2)
    options = {"settings": SMALL, "recipe": "haet2021", "device": "cpu", "precision": "fp32", "cache": False}
    with monkeypatch.context() as patch:
        slow_down(patch, encoded_images, "decode_image", 0.05)
        out, data = tmp_path / "run", tmp_path / "ds"
        stopped = train(data, budget="16s", allow_partial=True, out=out, reporter=Stop(), **options)
    training = stopped.config["training"]
    assert isinstance(training, dict)
    assert 2 <= training["part_read"]["images"] < 1400  # how many depends on the machine
    resumed, _ = within_budget(lambda budget: train(resume=out, budget=budget, cache=False), 8.0)
    assert resumed.summary["part_read"] == training["part_read"]
    assert resumed.summary["late"] is False


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"steps": 5, "allow_partial": True},
            "allow_partial=True needs a budget: with steps no clock is read, and all",
        ),
        ({"budget": "20s", "allow_partial": 3}, "allow_partial 3 must be True or False"),
    ],
)
def test_a_part_needs_a_budget(options: dict[str, object], words: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=words):
        train(tmp_path, **options)  # type: ignore[arg-type]


def test_a_part_is_for_one_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("timebox.configs.train.is_torchrun", lambda: True)
    with flags_in_messages(), pytest.raises(UsageError, match="--allow-partial works in one process: each rank of"):
        train(tmp_path, budget="20s", allow_partial=True)


@pytest.mark.parametrize("path", ["val", "data"])
def test_a_pattern_without_end_is_refused(path: str, tmp_path: Path) -> None:
    save_photos(tmp_path / "ds", 4, name="a" * 40 + "{}")
    options = {"budget": "60s"} if path == "data" else {"steps": 2}
    begin = time.monotonic()
    with pytest.raises(UsageError, match=r"group_by '\(a\+\)\+\$' takes too long: it is not done with 'cat/a+0\.png'"):
        train(tmp_path / "ds", group_by="(a+)+$", out=tmp_path / "run", settings=SMALL, **options)  # type: ignore[arg-type]
    assert time.monotonic() - begin < 25


# ---- from Python, measured from outside

CALL = """
import sys, time
begin = time.monotonic()
import timebox
assert "torch" not in sys.modules
{prepare}
call = time.monotonic()
try:
    result = {call}
    print("done", time.monotonic() - call)
except timebox.BudgetError as error:
    print("refused", time.monotonic() - call, error)
"""


def measured(call: str, folder: Path, prepare: str = "") -> tuple[str, float]:
    """How a call ended, and its seconds, measured around it in a fresh interpreter."""
    code = CALL.format(call=call, prepare=prepare)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=folder)
    assert done.returncode == 0, done.stderr
    word, seconds = done.stdout.splitlines()[-1].split()[:2]
    return word, float(seconds)


@pytest.mark.integration
@pytest.mark.parametrize("seconds", [14, pytest.param(20, marks=pytest.mark.endurance)])
def test_the_budget_of_a_call_includes_its_imports(seconds: int, tmp_path: Path) -> None:
    save_npz(tmp_path / "data.npz")
    word, taken = measured(f"timebox.train('data.npz', budget={seconds}, device='cpu', out='run')", tmp_path)
    assert taken < seconds, word


@pytest.mark.integration
@pytest.mark.endurance  # on a machine with two busy cores it may be late
def test_the_budget_of_a_range_test_includes_its_imports(tmp_path: Path) -> None:
    save_npz(tmp_path / "data.npz")
    call = "timebox.lr_find('data.npz', budget=25, train_budget=30, recipe='haet2021', device='cpu', out='lr')"
    assert measured(call, tmp_path)[1] < 25


@pytest.mark.integration
@pytest.mark.endurance
def test_the_budget_of_the_classifier_begins_with_fit(tmp_path: Path) -> None:
    prepare = (
        "import numpy as np; y = np.arange(200) % 2; "
        "X = np.random.default_rng(0).integers(0, 90, (200, 8, 8, 3)).astype('uint8') + (100 * y[:, None, None, None])"
        ".astype('uint8'); fit = timebox.TimeboxClassifier(budget=15, device='cpu').fit"
    )
    assert measured("fit(X, y)", tmp_path, prepare)[1] < 15


def test_the_classifier_reads_files_within_its_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from timebox.estimator import classifier

    def slowly(file: object) -> tuple[int, int]:
        time.sleep(0.05)
        return 8, 8

    monkeypatch.setattr(classifier, "size_of", slowly)
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "a.png")
    files, begin = [tmp_path / "a.png"] * 400, time.monotonic()
    with pytest.raises(BudgetError, match=r"reading 'X' takes about \d+s here \(looked at \d+ of 400 images"):
        classifier.TimeboxClassifier(budget=5).fit(files, np.arange(400) % 2)
    assert time.monotonic() - begin < 5


# ---- what is no file


@pytest.fixture
def odd(tmp_path: Path) -> dict[str, str]:
    """A named pipe, a socket and a device, by kind."""
    os.mkfifo(tmp_path / "pipe.zip")
    server = socket.socket(socket.AF_UNIX)
    os.chdir(tmp_path)  # the paths of sockets are short
    server.bind("socket.npz")
    server.close()
    return {
        "named pipe": str(tmp_path / "pipe.zip"), "socket": str(tmp_path / "socket.npz"), "device": "/dev/zero"
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["named pipe", "socket", "device"])
def test_what_is_no_file_is_named(
    kind: str, odd: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path, data = odd[kind], save_npz(tmp_path / "data.npz")
    with pytest.raises(DataError, match=f"^{path} is a {kind}: give a folder or a file of images$"):
        quick(path, tmp_path / "run")
    for split in ("val", "test"):
        with pytest.raises(DataError, match=f"^{path} is a {kind}: give a folder or a file of images$"):
            quick(data, tmp_path / "run", **{split: path})
    with pytest.raises(RunError, match=f"^'{path}' cannot be read: a {kind}, not a file$"):
        quick(data, tmp_path / "run", init=path)
    for verb in ("resume", "replay"):
        with pytest.raises(RunError, match=f"^run '{path}' is no directory$"):
            train(**{verb: path})  # type: ignore[arg-type]
    os.mkfifo(tmp_path / "recipe.toml")
    with pytest.raises(TimeboxError, match=r"recipe file '.*recipe\.toml' cannot be read: a named pipe, not a file"):
        train(data, steps=1, recipe=str(tmp_path / "recipe.toml"))


def test_pipes_among_the_images_and_tables_are_left_out(tmp_path: Path) -> None:
    save_photos(tmp_path / "ds", 12)
    for name in ("cat/z.png", "dog/other", "labels.csv"):
        os.mkfifo(tmp_path / "ds" / name)
    run = quick(tmp_path / "ds", tmp_path / "run", steps=1)
    assert run.summary["bad_files"] == [{"path": "cat/z.png", "reason": "a named pipe, not a file"}]
    notes = run.summary["notes"]
    assert isinstance(notes, list)
    table = f"{tmp_path / 'ds' / 'labels.csv'}: a named pipe, not a file"
    assert any(table in note for note in notes), notes
