"""Benchmarks that become records, and the table that is made of records."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import record
import results_tables
from timebox.benchmarking.config import arguments_of, command
from timebox.benchmarking.directory import BenchmarkDirectory, BenchmarkFile
from timebox.benchmarking.summary import summarise
from timebox.benchmarking.trials import ScoredTrial
from timebox.clock import Deadline
from timebox.configs.benchmark import BenchmarkConfig
from timebox.recipes import RECIPES, get_recipe
from timebox.run.json_values import from_values, to_values

CONFIG = BenchmarkConfig(
    data="/home/me/photos", recipes=("haet2021", "haet2021 width=32"), seeds=5, trial_budget="60s", train_limit=500
)
ENVIRONMENT = {
    "processor": "Some CPU", "cores": 2, "threads": 2, "memory_bytes": 24 << 30, "system": "Linux", "device": "cpu",
    "versions": {"timebox": "0.1.0", "torch": "2.13.0"}, "commit": "abc1234",
}  # fmt: skip
ACCURACIES = {"haet2021": (0.80, 0.81, 0.79, 0.80, 0.82), "haet2021 width=32": (0.82, 0.82, 0.82, 0.83, 0.83)}
FOLDER = "2026-11-24_photos-500_60s_2-core-cpu"
Make = Callable[..., Path]


def trial(label: str, block: int, **changes: object) -> ScoredTrial:
    values = {
        "block": block, "position": 0, "label": label, "seed": block, "command": "timebox train photos --budget 60s",
        "commit": "abc1234", "wall_seconds": 58.5, "late": False, "accuracy": ACCURACIES[label][block],
        "num_images": 1200, "split": "val", "tta": "mirror", "num_seen_in_training": 0, "budget_seconds": 60.0,
        "images_per_second": 912.5, "train_images": 500, "precision": "fp32", "device": "cpu", "threads": 2,
        "versions": {"torch": "2.13.0"}, "recipe": RECIPES["haet2021"]().as_dict(), "correct": 960,
        "evaluation_seconds": 2.0, "elapsed_seconds": 58.0, "phases": {}, "steps": 100, "epochs": 9.5, "final_lr": 0.0,
        "plan": (), "events": (), **changes,
    }  # fmt: skip
    return from_values(values, ScoredTrial, "a trial of the tests")


@pytest.fixture
def finished(tmp_path: Path) -> Make:
    """finished(stopped=None, **changes of each trial): the directory of a benchmark."""

    def make(stopped: str | None = None, **changes: object) -> Path:
        about = {
            "started": "2026-11-24T06:12:11", "data_name": "photos-500", "environment": ENVIRONMENT,
            "command": command(CONFIG), "asked": to_values(arguments_of(CONFIG)),
        }  # fmt: skip
        directory = BenchmarkDirectory.new(tmp_path / "bench", from_values(about, BenchmarkFile, "the tests"))
        for block in range(5):
            for variant in CONFIG.variants:
                measured = trial(variant.label, block, **changes)
                directory.add(measured)
                directory.save_recipe(variant, measured)
        directory.save_summary(summarise(CONFIG, directory.trials, about["command"], Deadline(None), stopped))
        directory.close()
        return directory.path

    return make


def recorded(benchmark: Path, *words: str) -> int:
    return record.main([str(benchmark), "--name", "Width", "--records", str(benchmark.parent / "records"), *words])


def test_a_record_holds_all_that_a_claim_rests_on(finished: Make, tmp_path: Path) -> None:
    assert recorded(finished(), "--note", "Wider is better here.") == 0
    folder = tmp_path / "records" / FOLDER
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*.*")) == [
        "README.md", "environment.json", "recipes/haet2021-width=32.toml", "recipes/haet2021.toml", "trials.jsonl",
    ]  # fmt: skip
    assert len((folder / "trials.jsonl").read_text().splitlines()) == 10
    assert get_recipe(str(folder / "recipes" / "haet2021-width=32.toml")) == get_recipe("haet2021")
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["command"] == (
        'timebox benchmark photos --recipe haet2021 --recipe "haet2021 width=32" --seeds 5 --trial-budget 60s '
        "--score val --train-limit 500"
    )
    assert (environment["commit"], environment["processor"]) == ("abc1234", "Some CPU")
    assert "/home/me" not in "".join(path.read_text() for path in folder.rglob("*.*"))
    assert (folder / "README.md").read_text().splitlines() == [
        "# Width",
        "",
        "Wider is better here.",
        "",
        "```sh",
        environment["command"],
        "```",
        "",
        "| recipe | n | accuracy | SD | 95 % interval | time taken | images/s |",
        "|---|---|---|---|---|---|---|",
        "| `haet2021` | 5 | 80.40 % | 1.14 | 78.98 to 81.82 | 58.5 s | 912 |",
        "| `haet2021 width=32` | 5 | 82.40 % | 0.55 | 81.72 to 83.08 | 58.5 s | 912 |",
        "",
        "| against `haet2021` | pairs | points | 95 % interval | p | |",
        "|---|---|---|---|---|---|",
        "| `haet2021 width=32` | 5 | +2.00 | +0.76 to +3.24 | 0.011 | better |",
        "",
        "Fixed beforehand: a two-sided paired t-test, paired by seed and block, at 0.05.",
        "",
        "Trained on 500 images; scored afterwards, outside the trials' time, on the 1,200 images of val, each with its "
        "mirror image. The time taken is that of the whole training command, seen from outside.",
        "",
        "Some CPU, 2 cores, 24 GiB, no GPU; timebox 0.1.0, torch 2.13.0; commit `abc1234`.",
    ]


@pytest.mark.parametrize("commit", ["abc1234-dirty", None])
def test_what_nobody_could_repeat_is_refused(
    finished: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str], commit: str | None
) -> None:
    path = finished(commit=commit)
    assert recorded(path) == 2
    assert f"measured from {commit or 'unknown'}: not one clean commit" in capsys.readouterr().err
    assert not (tmp_path / "records").exists()
    assert recorded(path, "--allow-dirty") == 0


def test_more_than_one_commit_is_refused(finished: Make, capsys: pytest.CaptureFixture[str]) -> None:
    path = finished()
    with (path / "trials.jsonl").open("a") as file:
        file.write(json.dumps(to_values(trial("haet2021", 4, commit="def5678"))) + "\n")
    assert recorded(path) == 2
    assert "measured from abc1234, def5678: not one clean commit" in capsys.readouterr().err


def test_only_finished_benchmarks_make_records(
    finished: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = finished(stopped="signal")
    assert recorded(path) == 2
    assert f"was stopped: finish it first, timebox benchmark --resume {path}" in capsys.readouterr().err
    (path / "summary.json").unlink()
    assert recorded(path) == 2
    assert "has no summary.json" in capsys.readouterr().err


def test_a_record_is_never_written_over(finished: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = finished()
    assert recorded(path) == 0
    assert recorded(path) == 2
    assert "exists: give another name with --folder" in capsys.readouterr().err
    assert recorded(path, "--folder", "other") == 0
    assert (tmp_path / "records" / "other" / "README.md").is_file()


@pytest.mark.parametrize(
    ("device", "name"), [("cpu", "2-core-cpu"), ("NVIDIA H100 80GB HBM3", "nvidia-h100-80gb-hbm3")]
)
def test_hardware_in_a_word(device: str, name: str) -> None:
    assert record.hardware({**ENVIRONMENT, "device": device}) == name


@pytest.fixture
def root(finished: Make, tmp_path: Path) -> Path:
    """A place with a README and records of both kinds."""
    recorded(finished(late=True))
    old = tmp_path / "records" / "2026-11-22_photos_30s_1-core-cpu"
    old.mkdir()
    lines = [
        {"accuracy": 0.5, "train_images": 1234, "budget_seconds": 30.0, "wall_seconds": 29.6, "late": False,
         "commit": "b88467a", "recipe": {"name": "auto"}},
    ]  # fmt: skip
    (old / "some.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "docs").mkdir()
    for page in (results_tables.README, results_tables.RESULTS):
        (tmp_path / page).write_text("before\n\n<!-- results:begin -->\nold\n<!-- results:end -->\n\nafter\n")
    shown(tmp_path, old.name, FOLDER, recipe="haet2021 width=32")
    return tmp_path


def shown(root: Path, *folders: str, recipe: str = "") -> None:
    """Writes the list of rows; the recipe is that of the last."""
    rows = "".join(f'[[row]]\nrecord = "{folder}"\ndata = "Photos"\nreadme = true\n' for folder in folders[:1])
    rows += "".join(f'[[row]]\nrecord = "{folder}"\ndata = "Photos"\n' for folder in folders[1:])
    (root / "records" / "shown.toml").write_text(rows + (f'recipe = "{recipe}"\n' if recipe else ""))


def test_a_table_of_records_of_both_kinds(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert results_tables.main(["--root", str(root), "--check"]) == 1
    assert "README.md and docs/results.md and records/ disagree" in capsys.readouterr().err
    assert results_tables.main(["--root", str(root)]) == 0
    assert (root / "docs" / "results.md").read_text().splitlines() == [
        "before",
        "",
        "<!-- results:begin -->",
        "| data, training images | recipe | budget | accuracy | n, SD | time taken | hardware | commit |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
        "| Photos, 1,234 | `auto` | 30 s | 50.0 % | 1 | 30 s | "
        "[1-core-cpu](../records/2026-11-22_photos_30s_1-core-cpu) | `b88467a` |",
        "| Photos, 500 | `haet2021 width=32` | 1 min | 82.4 % | 5, 0.5 (5 late) | 58 s | "
        f"[2-core-cpu](../records/{FOLDER}) | `abc1234` |",
        "<!-- results:end -->",
        "",
        "after",
    ]
    assert (root / "README.md").read_text().splitlines()[3:6] == [
        "| data, training images | budget | test accuracy | hardware |",
        "| --- | --- | --- | --- |",
        "| Photos, 1,234 | 30 s | 50.0 % | [1-core-cpu](records/2026-11-22_photos_30s_1-core-cpu) |",
    ]
    assert results_tables.main(["--root", str(root), "--check"]) == 0


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        ("", f"the row of {FOLDER} must name its recipe, one of haet2021, haet2021 width=32"),
        ("auto", f"the row of {FOLDER} must name its recipe, one of haet2021, haet2021 width=32"),
    ],
)
def test_a_row_names_its_recipe(root: Path, capsys: pytest.CaptureFixture[str], recipe: str, words: str) -> None:
    shown(root, FOLDER, recipe=recipe)
    assert results_tables.main(["--root", str(root), "--check"]) == 2
    assert words in capsys.readouterr().err


def test_a_row_without_a_record(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown(root, "gone")
    assert results_tables.main(["--root", str(root)]) == 2
    assert "'gone' is no record" in capsys.readouterr().err


def test_the_place_of_the_table_is_marked(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "README.md").write_text("no place")
    assert results_tables.main(["--root", str(root)]) == 2
    assert "README.md must hold <!-- results:begin --> and, below it, <!-- results:end -->" in capsys.readouterr().err


def test_the_tables_are_those_of_the_records() -> None:
    rows = results_tables.read_rows(results_tables.ROOT / "records")
    assert len(rows) > 10
    assert sum(row.in_readme for row in rows) == 4
    assert results_tables.main(["--check"]) == 0, "run python benchmarks/results_tables.py"
