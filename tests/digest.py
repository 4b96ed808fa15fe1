"""Sums over what fixed trainings come to: a change of form must leave them equal, a change of numerics must not.

    python tests/digest.py [--out FILE.json] [--against FILE.json]      # or make digest DIGEST_OPTIONS="…"

Trains four recipes, one of each network and `auto`, for 50 steps on each of three data sets, on one and on two threads.
Prints a sha256 of the weights of each, of its losses and learning rates, and of its predictions, and at last one of all
of them. They hold for one machine with one set of versions: write them to a file before a change, and compare with that
afterwards. The exit status is 1 where any differs. Two minutes on two cores.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

STEPS = 50
THREADS = (1, 2)
# Each network at a width that takes seconds; `auto` at what it plans, but for its width.
RECIPES = {
    "auto": ("width=16",),
    "haet2021": ("width=8", "batch_size=32"),
    "airbench94": ("width=8", "batch_size=32"),
    "superconvergence": ("width=8", "batch_size=32"),  # ResNet-18
}
# Name -> images of a split, height and width in pixels; the digits are scikit-learn's.
DRAWN = {"drawn-32x32": (600, 32, 32), "drawn-96x64": (300, 96, 64)}
DATA = ("digits", *DRAWN)
PARTS = ("model", "metrics", "predictions")
# Of the lines of metrics.jsonl; what else they hold may change its name.
METRICS = ("step", "progress", "lr", "momentum", "loss", "val_accuracy")

Digest = dict[str, str]


def draw(folder: Path) -> None:
    """Write the drawn data sets: noise, with a patch at a place and of a colour that are the class's."""
    import numpy as np

    for name, (num, height, width) in DRAWN.items():
        rng = np.random.default_rng(height)
        labels = np.arange(num) % 5
        images = rng.integers(0, 160, (num, height, width, 3), dtype=np.uint8)
        for image, label in zip(images, labels, strict=True):
            row, column = rng.integers(0, height // 2), label * width // 6
            image[row : row + height // 3, column : column + width // 4, label % 3] += 90
        np.savez(folder / f"{name}.npz", images=images, labels=labels)


def train_all(folder: Path, recipes: Mapping[str, tuple[str, ...]], data: tuple[str, ...], steps: int) -> Digest:
    """The sums of all trainings in this process, by recipe, data and what they are of."""
    import timebox

    found: Digest = {}
    for name, settings in recipes.items():
        for source in data:
            path = folder / f"{source}.npz"
            run = timebox.train(
                path if path.exists() else source,
                recipe=name,
                settings=settings,
                steps=steps,
                test=0.2,
                device="cpu",
                out=folder / f"{name}-{source}",
            )
            found |= {f"{name} {source} {part}": value for part, value in zip(PARTS, sums(run.path), strict=True)}
    return found


def sums(run: Path) -> Iterator[str]:
    """A sha256 of the weights of a run, of its losses and rates, and of its predictions."""
    import numpy as np
    from safetensors.numpy import load_file

    yield sum_of({name: array.tobytes() for name, array in load_file(run / "model.safetensors").items()})
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    kept = [[repr(line.get(name)) for name in METRICS] for line in lines if "step" in line]
    yield sum_of({str(number): json.dumps(line).encode() for number, line in enumerate(kept)})
    with np.load(run / "predictions.npz") as arrays:
        yield sum_of({name: arrays[name].tobytes() for name in arrays.files if name != "format"})


def sum_of(parts: Mapping[str, bytes]) -> str:
    """A sha256 of named parts, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(parts):
        digest.update(f"{name} {len(parts[name])}\n".encode() + parts[name])
    return digest.hexdigest()


def digest_of(threads: int, folder: Path) -> Digest:
    """The sums of all trainings, in a process of its own with so many threads."""
    command = [sys.executable, __file__, "--train-in", str(folder)]
    threading = {"OMP_NUM_THREADS": str(threads), "GOMP_SPINCOUNT": "1000"}  # as the command line, beside other work
    environment = {**os.environ, **threading, "TIMEBOX_CACHE": str(folder / "cache")}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return {f"{threads} {name}": value for name, value in json.loads(done.stdout).items()}


def compare(found: Digest, before: Digest) -> list[str]:
    """What differs, is new or is missing."""
    return sorted(name for name in found.keys() | before.keys() if found.get(name) != before.get(name))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, help="write the sums to this file")
    parser.add_argument("--against", type=Path, help="compare them with this file")
    parser.add_argument("--train-in", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.train_in:
        print(json.dumps(train_all(given.train_in, RECIPES, DATA, STEPS)))
        return 0
    before = json.loads(given.against.read_text()) if given.against else None
    found: Digest = {}
    for threads in THREADS:
        with tempfile.TemporaryDirectory() as folder:
            draw(Path(folder))
            found |= digest_of(threads, Path(folder))
    for name, value in found.items():
        print(value, name)
    print(sum_of({name: value.encode() for name, value in found.items()}), "all")
    if given.out:
        given.out.write_text(json.dumps(found, indent=2) + "\n")
    differing = [] if before is None else compare(found, before)
    for name in differing:
        print(f"DIFFERS: threads, recipe, data, part: {name}", file=sys.stderr)
    return int(bool(differing))


if __name__ == "__main__":
    sys.exit(main())
