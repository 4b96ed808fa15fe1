"""Measure `auto`, variants of it, and other recipes on many tasks, at two speeds.

    python benchmarks/tasks.py DATA TASKS
    python benchmarks/auto_cells.py TASKS OUT --trial-budget 15s --seeds 5 --recipe auto --recipe airbench94
    python benchmarks/auto_cells.py TASKS OUT --trial-budget 60s --speed quarter ...
    python benchmarks/auto_cells.py TASKS SCALES --trial-budget 15s --seeds 2 --around OUT/cells.jsonl

A cell is a task, a budget and a speed. In each cell `timebox benchmark` trains all recipes for every seed, in turn, and
scores them on the whole validation split. At quarter speed two cells share each core, with one thread each.
`OUT/cells.jsonl` collects the trials of all cells, one line each. Finished cells are not measured again, and those that
were interrupted are resumed. `--around` measures, in place of recipes, the next smaller and the next larger model scale
than the one that `auto` selected in the same cell of an earlier file.
"""

import argparse
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Barrier

import numpy as np

from timebox.planning.auto import candidate_scales
from timebox.planning.dataset_profile import DatasetProfile
from timebox.planning.model_scales import MODEL_SCALES
from timebox.recipes.recipe import current_field_name, upgrade_fields

CELLS = "cells.jsonl"
# Cells per core at quarter speed.
CELLS_PER_CORE = 2
# A program that keeps a core busy until its parent process ends.
BUSY = "import os\nparent = os.getppid()\nwhile os.getppid() == parent:\n    sum(range(1_000_000))"
# Fields of a trial that are copied to cells.jsonl.
TRIAL_FIELDS = (
    "label", "seed", "accuracy", "num_images", "train_images", "late", "elapsed_seconds", "steps", "epochs",
    "images_per_second", "precision", "tta", "commit",
)  # fmt: skip
SCALE_FIELDS = ("width", "ensemble_size", "input_scale")
RECIPE_FIELDS = (
    *SCALE_FIELDS,
    "batch_size",
    "start_size",
    "full_size_at",
    "logit_scale",
    "flip",
    "mixup",
    "mixup_until",
    "blur_pool",
)


@dataclass(frozen=True)
class Settings:
    """Settings of all cells of a run: output directory, speed ("full" or "quarter"), budget of a trial and seeds."""

    out: Path
    speed: str
    budget: str
    num_seeds: int


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tasks", type=Path, help="the folder that tasks.py wrote")
    parser.add_argument("out", type=Path)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--recipe", action="append", help="as `timebox benchmark` takes it; repeatable")
    what.add_argument("--around", type=Path, metavar="CELLS", help="measure the scales next to the one auto selected")
    parser.add_argument("--trial-budget", required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--speed", choices=("full", "quarter"), default="full")
    parser.add_argument("--only", nargs="*", metavar="TASK", help="default: every task there is")
    arguments = parser.parse_args(argv)
    paths = sorted(path for path in arguments.tasks.glob("*.npz") if not arguments.only or path.stem in arguments.only)
    cores = sorted(os.sched_getaffinity(0))
    lanes = [{core} for core in cores] * CELLS_PER_CORE if arguments.speed == "quarter" else [set(cores)]
    settings = Settings(arguments.out, arguments.speed, arguments.trial_budget, arguments.seeds)
    waiting: SimpleQueue[tuple[Path, Sequence[str]]] = SimpleQueue()
    for path in paths:
        waiting.put((path, arguments.recipe or neighbours(path, arguments.around, settings.budget, settings.speed)))
    all_done = Barrier(len(lanes))

    def measure_waiting(lane: set[int]) -> int:
        """Measure tasks until none is waiting, then keep the cores busy, so that no cell has a faster machine."""
        status = 0
        try:
            with suppress(Empty):
                while True:
                    path, recipes = waiting.get_nowait()
                    status |= measure(path, recipes, lane, settings)
            return status
        finally:
            with kept_busy(lane):
                all_done.wait()

    with ThreadPoolExecutor(len(lanes)) as pool:
        statuses = list(pool.map(measure_waiting, lanes))
    collect(arguments.out, arguments.tasks)
    return max(statuses, default=0)


@contextmanager
def kept_busy(cores: set[int]) -> Iterator[None]:
    """Keep these cores busy with a process of their own."""
    busy = subprocess.Popen([sys.executable, "-S", "-c", BUSY], preexec_fn=lambda: os.sched_setaffinity(0, cores))
    try:
        yield
    finally:
        busy.kill()
        busy.wait()


def measure(task: Path, recipes: Sequence[str], cores: set[int], settings: Settings) -> int:
    """Run or resume the benchmark of one cell on some cores; returns its exit status."""
    out, budget = settings.out, settings.budget
    directory = out / f"{task.stem}_{budget}_{settings.speed}"
    if (directory / "summary.json").exists():
        return 0
    command = [sys.executable, "-m", "timebox", "benchmark"]
    if (directory / "benchmark.json").exists():
        command += ["--resume", str(directory)]
    else:
        command += [str(task), "--trial-budget", budget, "--seeds", str(settings.num_seeds), "--score", "val"]
        command += [word for recipe in recipes for word in ("--recipe", recipe)] + ["--out", str(directory)]
    out.mkdir(parents=True, exist_ok=True)
    with (out / f"{directory.name}.log").open("a") as log:
        return subprocess.run(
            command, stdout=log, stderr=log, preexec_fn=lambda: os.sched_setaffinity(0, cores), check=False
        ).returncode


def read_cell(text: str) -> dict[str, object]:
    """Parse a line of cells.jsonl, with the current names of recipe fields."""
    return {current_field_name(name): value for name, value in json.loads(text).items()}


def neighbours(task: Path, cells: Path, budget: str, speed: str) -> list[str]:
    """The model scales next to the one that `auto` selected most often in a cell, as recipes."""
    lines = [read_cell(line) for line in cells.read_text(encoding="utf-8").splitlines()]
    cell = {"task": task.stem, "trial_budget": budget, "speed": speed, "label": "auto"}
    selected = Counter(tuple(line[name] for name in SCALE_FIELDS) for line in lines if cell.items() <= line.items())
    if not selected:
        raise SystemExit(f"auto_cells.py: error: no trial of auto in {cells} with {cell}")
    model_scales = list(scale_positions(side_of(task)))
    position = model_scales.index(selected.most_common(1)[0][0])
    around = [model_scales[i] for i in (position - 1, position + 1) if 0 <= i < len(model_scales)]
    return [
        "auto " + " ".join(f"{name}={value}" for name, value in zip(SCALE_FIELDS, scale, strict=True))
        for scale in around
    ]


@cache
def scale_positions(side: int) -> Mapping[tuple[object, ...], int]:
    """Positions in MODEL_SCALES of the scales that differ on images of this side, by their SCALE_FIELDS."""
    profile = DatasetProfile(num_images=1, side=side, num_classes=2, mirror_allowed=True)
    return {
        tuple(getattr(recipe, name) for name in SCALE_FIELDS): MODEL_SCALES.index(scale)
        for scale, recipe in candidate_scales(profile, {})
    }


def collect(out: Path, tasks: Path) -> None:
    """Write the trials of all cells to one file."""
    with (out / CELLS).open("w", encoding="utf-8") as file:
        for directory in sorted(path.parent for path in out.glob("*/trials.jsonl")):
            for line in trials_of(directory, tasks):
                file.write(json.dumps(line) + "\n")


def trials_of(directory: Path, tasks: Path) -> Iterator[Mapping[str, object]]:
    """The trials of one cell."""
    task, budget, speed = directory.name.rsplit("_", 2)
    cell = {"task": task, "trial_budget": budget, "speed": speed, "side": side_of(tasks / f"{task}.npz")}
    for text in (directory / "trials.jsonl").read_text(encoding="utf-8").splitlines():
        trial = json.loads(text)
        recipe = upgrade_fields(trial.get("recipe") or {})
        yield {
            **cell,
            **{name: trial.get(name) for name in TRIAL_FIELDS},
            **{name: recipe.get(name) for name in RECIPE_FIELDS},
        }


@cache
def side_of(task: Path) -> int:
    """The shorter side of a task's images, in pixels."""
    with np.load(task) as arrays:
        return int(min(arrays["train_images"].shape[1:3]))


if __name__ == "__main__":
    sys.exit(main())
