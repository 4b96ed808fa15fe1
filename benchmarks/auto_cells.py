"""Measure `auto`, what differs from it in a field or two, and other recipes on many tasks, at two speeds.

    python benchmarks/tasks.py DATA TASKS
    python benchmarks/auto_cells.py TASKS OUT --trial-budget 15s --seeds 5 --recipe auto --recipe airbench94
    python benchmarks/auto_cells.py TASKS OUT --trial-budget 60s --speed quarter ...
    python benchmarks/auto_cells.py TASKS RUNGS --trial-budget 15s --seeds 2 --around OUT/cells.jsonl

A cell is a task, a budget and a speed; in each, all recipes are trained for every seed, in turn, and scored on the
whole validation split by `timebox benchmark`. At quarter speed as many cells run at a time as leave each a quarter of
the machine, in one thread pinned to its core. `OUT/cells.jsonl` collects the trials of all cells, one line each. A cell
that is there is not measured again, and one that was cut off is taken up where it was. `--around` measures, in place of
recipes, the rungs of `auto`'s ladder below and above the one that it took in the same cell of an earlier file.
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
from functools import cache
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Barrier

import numpy as np

from timebox.planning.auto import candidate_scales
from timebox.planning.dataset_profile import DatasetProfile
from timebox.planning.model_scales import MODEL_SCALES
from timebox.recipe.recipe import current_field_name, upgrade_fields

CELLS = "cells.jsonl"
# At a quarter of the speed: each core is shared by so many.
SHARING = 2
# Computes until the process that started it is gone.
BUSY = "import os\nparent = os.getppid()\nwhile os.getppid() == parent:\n    sum(range(1_000_000))"
# Of a trial, what a fit needs, and what it takes to repeat it.
KEPT = (
    "label", "seed", "accuracy", "num_images", "train_images", "late", "elapsed_seconds", "steps", "epochs",
    "images_per_second", "precision", "tta", "commit",
)  # fmt: skip
SCALE_FIELDS = ("width", "ensemble_size", "input_scale")
FIELDS = (
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


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tasks", type=Path, help="the folder that tasks.py wrote")
    parser.add_argument("out", type=Path)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--recipe", action="append", help="as `timebox benchmark` takes it; repeatable")
    what.add_argument("--around", type=Path, metavar="CELLS", help="measure the neighbours of what auto took there")
    parser.add_argument("--trial-budget", required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--speed", choices=("full", "quarter"), default="full")
    parser.add_argument("--only", nargs="*", metavar="TASK", help="default: every task there is")
    given = parser.parse_args(argv)
    paths = sorted(path for path in given.tasks.glob("*.npz") if not given.only or path.stem in given.only)
    cores = sorted(os.sched_getaffinity(0))
    lanes = [{core} for core in cores] * SHARING if given.speed == "quarter" else [set(cores)]
    waiting: SimpleQueue[tuple[Path, Sequence[str]]] = SimpleQueue()
    for path in paths:
        waiting.put((path, given.recipe or neighbours(path, given.around, given.trial_budget, given.speed)))
    all_done = Barrier(len(lanes))

    def work_off(lane: set[int]) -> int:
        """Measure what is waiting. The last ones are to have no more of the machine than the others had."""
        status = 0
        try:
            with suppress(Empty):
                while True:
                    path, recipes = waiting.get_nowait()
                    status |= measure(path, given.out, given.speed, given.trial_budget, given.seeds, recipes, lane)
            return status
        finally:
            with kept_busy(lane):
                all_done.wait()

    with ThreadPoolExecutor(len(lanes)) as pool:
        statuses = list(pool.map(work_off, lanes))
    collect(given.out, given.tasks)
    return max(statuses, default=0)


@contextmanager
def kept_busy(cores: set[int]) -> Iterator[None]:
    """Inside, a process computes on these cores."""
    busy = subprocess.Popen([sys.executable, "-S", "-c", BUSY], preexec_fn=lambda: os.sched_setaffinity(0, cores))
    try:
        yield
    finally:
        busy.kill()
        busy.wait()


def measure(
    task: Path, out: Path, speed: str, budget: str, num_seeds: int, recipes: Sequence[str], cores: set[int]
) -> int:
    """Run the benchmark of one cell on some cores, or the rest of it; its exit status."""
    directory = out / f"{task.stem}_{budget}_{speed}"
    if (directory / "summary.json").exists():
        return 0
    command = [sys.executable, "-m", "timebox", "benchmark"]
    if (directory / "benchmark.json").exists():
        command += ["--resume", str(directory)]
    else:
        command += [str(task), "--trial-budget", budget, "--seeds", str(num_seeds), "--score", "val"]
        command += [word for recipe in recipes for word in ("--recipe", recipe)] + ["--out", str(directory)]
    out.mkdir(parents=True, exist_ok=True)
    with (out / f"{directory.name}.log").open("a") as log:
        return subprocess.run(
            command, stdout=log, stderr=log, preexec_fn=lambda: os.sched_setaffinity(0, cores), check=False
        ).returncode


def read_cell(text: str) -> dict[str, object]:
    """A line of cells.jsonl; recipe fields that were renamed since are under their present names."""
    return {current_field_name(name): value for name, value in json.loads(text).items()}


def neighbours(task: Path, cells: Path, budget: str, speed: str) -> list[str]:
    """The rungs below and above the one that `auto` took most often in a cell, as recipes."""
    lines = [read_cell(line) for line in cells.read_text(encoding="utf-8").splitlines()]
    cell = {"task": task.stem, "trial_budget": budget, "speed": speed, "label": "auto"}
    taken = Counter(tuple(line[name] for name in SCALE_FIELDS) for line in lines if cell.items() <= line.items())
    if not taken:
        raise SystemExit(f"auto_cells.py: error: no trial of auto in {cells} with {cell}")
    model_scales = list(places_at(side_of(task)))
    position = model_scales.index(taken.most_common(1)[0][0])
    around = [model_scales[i] for i in (position - 1, position + 1) if 0 <= i < len(model_scales)]
    return [
        "auto " + " ".join(f"{name}={value}" for name, value in zip(SCALE_FIELDS, scale, strict=True))
        for scale in around
    ]


@cache
def places_at(side: int) -> Mapping[tuple[object, ...], int]:
    """What is trained on the rungs of `auto` that differ on images of that size, and their places on its ladder."""
    task = DatasetProfile(num_images=1, side=side, num_classes=2, mirror_allowed=True)
    return {
        tuple(getattr(recipe, name) for name in SCALE_FIELDS): MODEL_SCALES.index(scale)
        for scale, recipe in candidate_scales(task, {})
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
        yield {**cell, **{name: trial.get(name) for name in KEPT}, **{name: recipe.get(name) for name in FIELDS}}


@cache
def side_of(task: Path) -> int:
    """The shorter side of a task's images, in pixels."""
    with np.load(task) as arrays:
        return int(min(arrays["train_images"].shape[1:3]))


if __name__ == "__main__":
    sys.exit(main())
