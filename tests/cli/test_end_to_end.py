"""The whole way through the real engine: train, evaluate, predict, inspect, and the refusals of each."""

import csv
import io
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from budgets import run_within_budget
from timebox.cli import main
from timebox.clock import now

from .conftest import Command

FIELDS = ("width=8", "batch_size=64", "ghost_size=0", "max_lr=0.3", "flip=none", "cutout_size=0", "crop_padding=1")
SMALL = ("--recipe", "haet2021", "--device", "cpu", *(word for field in FIELDS for word in ("--set", field)))


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Path:
    """A small network, trained on the digits for 40 steps."""
    out = tmp_path_factory.mktemp("runs") / "digits"
    assert main(["train", "digits", "--test", "0.2", "--steps", "40", *SMALL, "--out", str(out)]) == 0
    return out


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes of ten images, light and dark, of mixed size and mode."""
    generator = np.random.default_rng(0)
    for name, level in (("dark", 40), ("light", 200)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for index in range(10):
            side = 16 + index
            pixels = np.clip(generator.normal(level, 20, (side, side + 3, 3)), 0, 255).astype(np.uint8)
            image = Image.fromarray(pixels).convert("L" if index == 3 else "RGB")
            image.save(tmp_path / "photos" / name / f"{index}.png")
    return tmp_path / "photos"


def test_the_summary_of_a_run(run_dir: Path) -> None:
    summary = json.loads((run_dir / "summary.json").read_text())
    assert summary["steps"] == 40
    assert summary["late"] is False
    assert summary["test_accuracy"] > 0.5


def test_evaluate_reproduces_the_accuracy_of_the_part_held_out(timebox: Command, run_dir: Path) -> None:
    outcome = timebox("evaluate", run_dir, "digits", "--device", "cpu", "--json")
    assert outcome.status == 0
    found = outcome.json()
    assert found["split"] == "test"
    assert found["num_seen_in_training"] == 0
    summary = json.loads((run_dir / "summary.json").read_text())
    assert found["accuracy"] == pytest.approx(summary["test_accuracy"], abs=1e-9)


def test_evaluate_prints_figures_and_warns_of_images_trained_on(timebox: Command, run_dir: Path) -> None:
    outcome = timebox("evaluate", run_dir, "digits", "--split", "train", "--test-limit", 100, "--device", "cpu")
    assert outcome.status == 0
    for words in ("accuracy", "of 100 images", "95 % interval", "precision", "true, by predicted", "WARNING"):
        assert words in outcome.out
    assert "\x1b" not in outcome.out + outcome.err


def test_predict_takes_any_size_and_mode_and_reports_what_is_no_image(
    timebox: Command, run_dir: Path, photos: Path
) -> None:
    (photos / "dark" / "zero.png").touch()
    outcome = timebox("predict", run_dir, photos, "--device", "cpu")
    assert outcome.status == 0
    rows = list(csv.DictReader(io.StringIO(outcome.out)))
    assert len(rows) == 21
    assert [row["path"] for row in rows if row["error"]] == [str(photos / "dark" / "zero.png")]
    assert {row["label"] for row in rows} <= {*"0123456789", ""}


def test_photos_train_into_a_directory_named_after_them(
    timebox: Command, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (photos / "dark" / "zero.png").touch()
    outcome = timebox("train", "photos", "--steps", 4, *SMALL, "--json")
    assert outcome.status == 0
    summary = outcome.json()
    run = Path(str(summary["run"]))
    assert (run.parent.name, run.name[:7]) == ("runs", "photos-")
    assert summary["bad_files"]
    assert json.loads((run / "summary.json").read_text()) == {key: summary[key] for key in summary if key != "run"}


def test_inspect_counts_and_lists(timebox: Command, photos: Path) -> None:
    (photos / "dark" / "zero.png").touch()
    (photos / "light" / "again.png").write_bytes((photos / "light" / "0.png").read_bytes())
    outcome = timebox("inspect", photos)
    assert outcome.status == 0
    for words in ("21 in 2 classes", "RGB (19), L (2)", "1 of 22 files, 4.5 %", "zero.png", "1 image within train"):
        assert words in outcome.out
    found = timebox("inspect", photos, "--json").json()
    assert found["num_images"] == {"train": 21}


def test_inspect_shows_bad_files_even_where_training_would_refuse(timebox: Command, photos: Path) -> None:
    for index in range(25):
        (photos / "dark" / f"zero{index}.png").touch()
    outcome = timebox("inspect", photos)
    assert outcome.status == 0
    assert "25 of 45 files, 55.6 %" in outcome.out
    assert outcome.out.count("unreadable") == 1
    refused = timebox("train", photos, "--steps", 2)
    assert refused.status == 2
    assert "25 of 45" in refused.err


def test_recipes_read_back(timebox: Command, tmp_path: Path) -> None:
    listed = timebox("recipes")
    names = [line.split()[0] for line in listed.out.splitlines()]
    assert names == ["auto", "haet2021", "dawnbench", "airbench94", "superconvergence", "adamw"]
    for name in names[1:]:
        printed = timebox("recipes", name)
        (tmp_path / "mine.toml").write_text(printed.out)
        again = timebox("recipes", tmp_path / "mine.toml")
        assert again.status == 0
        assert again.out == "".join(line for line in printed.out.splitlines(keepends=True) if line[0] != "#")
    assert timebox("recipes", "auto").out.startswith("# ")


REFUSALS = [
    ("train {tmp}/nowhere --steps 2", "no such path or data set: '{tmp}/nowhere'"),
    ("train {tmp}/empty --steps 2", "{tmp}/empty is an empty folder"),
    ("train cifar11 --steps 2", "Did you mean 'cifar10'?"),
    ("train {tmp}/one --steps 2", "has 1 class ('class') with images: a classifier needs at least two"),
    ("train digits --budget 2s", "budget 2.0s is too short"),
    ("train digits --steps 2 --recipe haet", "recipe 'haet' is unknown; did you mean 'haet2021'?"),
    ("train digits --steps 2 --set max_lrr=1", "unknown field 'max_lrr', did you mean 'max_lr'?"),
    ("train digits --steps 2 --set width=wide", "width 'wide' must be a whole number"),
    ("train digits --steps 2 --set width", "'width' is not FIELD=VALUE"),
    ("train digits --steps 2 --test 1.5", "--test '1.5' must be a fraction"),
    ("train digits --steps 2 --train-limit 5000", "train_limit 5,000 is not possible"),
    ("train digits --steps 2 --out {tmp}/taken", "output directory '{tmp}/taken' is not empty"),
    ("train digits --steps 2 --out {tmp}/taken --overwrite", "holds something that is no timebox run"),
    ("train digits --steps 2 --out {tmp}/taken/file", "output '{tmp}/taken/file' is a file"),
    ("train digits --steps 2 --out {tmp}/taken/file/deeper", "cannot be written to"),
    ("train digits --steps 2 --out /proc/timebox/run", "cannot be written to"),
    ("evaluate {tmp}/nowhere digits", "run '{tmp}/nowhere' does not exist"),
    ("evaluate {tmp}/taken digits", "'{tmp}/taken' is no run directory: it has no model.json"),
    ("predict {tmp}/taken {tmp}/image.png", "'{tmp}/taken' is no run directory: it has no model.json"),
    ("predict {tmp}/nowhere {tmp}/nothing.png", "no such file or folder: '{tmp}/nothing.png'"),
    ("predict {tmp}/nowhere {tmp}/empty", "'{tmp}/empty' holds no images"),
    ("inspect {tmp}/nowhere", "no such path or data set: '{tmp}/nowhere'"),
    ("recipes haet", "recipe 'haet' is unknown; did you mean 'haet2021'?"),
]


@pytest.mark.parametrize(("command", "words"), REFUSALS, ids=[command for command, _ in REFUSALS])
def test_refused_in_one_line_with_nothing_half_written(
    timebox: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, words: str
) -> None:
    for folder in ("empty", "taken", "one/class"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "taken" / "file").write_text("precious")
    for path in (tmp_path / "image.png", tmp_path / "one" / "class" / "1.png", tmp_path / "one" / "class" / "2.png"):
        Image.new("RGB", (16, 16)).save(path)
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TIMEBOX_DATA", str(tmp_path / "empty"))
    outcome = timebox(*(word.format(tmp=tmp_path) for word in command.split()))
    assert (outcome.status, outcome.out) == (2, "")
    verb = command.split()[0]
    errors = [line for line in outcome.err.splitlines() if line.startswith(f"timebox {verb}: error: ")]
    assert len(errors) == 1
    assert errors[0] == outcome.err.splitlines()[-1]
    assert words.format(tmp=tmp_path) in errors[0]
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.integration
def test_a_budget_is_kept_from_process_start_to_exit(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "timebox", "train", "digits", "--test", "0.2", *SMALL, "--json"]
    began = now()
    done, budget = run_within_budget(
        [*command, "--out", str(tmp_path / "run")], 20.0, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["late"] is False
    assert summary["elapsed_seconds"] <= budget == summary["budget_seconds"]
    assert summary["elapsed_seconds"] <= now() - began
    assert summary["final_lr"] == 0.0
