"""Train under a deadline, then evaluate in full: the figures of a record.

    python benchmarks/measure.py DATA --budget 4m --seeds 0 1 2 --out records/NAME/results.jsonl [-- TRAIN OPTIONS]

Each seed is one `timebox train` from a process of its own, so that its clock counts everything, followed by one untimed
`timebox evaluate` on the test split. What follows `--` goes to `timebox train` as it is; `--no-evaluate` takes the
accuracy from the run's own summary instead. One JSON line a seed is appended to the output; a line with mean and
standard deviation is printed at the end.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

KEPT = (
    "late",
    "budget_seconds",
    "elapsed_seconds",
    "phases",
    "steps",
    "epochs",
    "images_per_second",
    "final_lr",
    "train_images",
    "val_accuracy",
    "test_accuracy",
    "test_images",
    "device",
    "threads",
    "precision",
    "seed",
    "plan",
    "versions",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data")
    parser.add_argument("--budget", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--no-evaluate", action="store_true")
    parser.add_argument("--out", type=Path, required=True)
    split = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    arguments = parser.parse_args(sys.argv[1:split])
    arguments.options = sys.argv[split + 1 :]
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    accuracies = []
    for seed in arguments.seeds:
        entry = measure(arguments, seed)
        accuracies.append(entry["accuracy"])
        with arguments.out.open("a", encoding="utf-8") as log:
            log.write(json.dumps(entry) + "\n")
        print(json.dumps({k: entry[k] for k in ("seed", "accuracy", "wall_seconds", "late")}), flush=True)
    spread = statistics.stdev(accuracies) if len(accuracies) > 1 else None
    print(json.dumps({"n": len(accuracies), "mean": statistics.mean(accuracies), "sd": spread}))


def measure(arguments: argparse.Namespace, seed: int) -> dict[str, object]:
    """One seed: train, evaluate, and what there is to say of it."""
    with tempfile.TemporaryDirectory() as folder:
        run = str(Path(folder) / "run")
        train = ["train", arguments.data, "--budget", arguments.budget, "--seed", str(seed), "--out", run]
        before = time.monotonic()
        summary = timebox([*train, *arguments.options])
        wall_seconds = time.monotonic() - before
        evaluation = {} if arguments.no_evaluate else timebox(["evaluate", run, arguments.data, "--split", "test"])
    recipe = summary["recipe"]
    assert isinstance(recipe, dict)
    return {
        "command": shorten([*train[:6], *arguments.options]),
        "accuracy": evaluation.get("accuracy", summary["test_accuracy"]),
        "evaluated_images": evaluation.get("num_images", summary["test_images"]),
        "num_seen_in_training": evaluation.get("num_seen_in_training"),
        "tta": evaluation.get("tta", summary["tta"]),
        "wall_seconds": round(wall_seconds, 2),
        **{name: summary[name] for name in KEPT},
        "recipe": recipe,
        "commit": commit(),
    }


def timebox(arguments: list[str]) -> dict[str, object]:
    """The JSON a timebox command prints. A failing command ends the measurement with its message."""
    done = subprocess.run([sys.executable, "-m", "timebox", *arguments, "--json"], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"timebox {' '.join(arguments)} failed with status {done.returncode}: {done.stderr.strip()}")
    result: dict[str, object] = json.loads(done.stdout)
    return result


def shorten(words: list[str]) -> str:
    """A command as one would type it, paths cut to their last part."""
    return " ".join(["timebox", *(Path(word).name if "/" in word else word for word in words)])


def commit() -> str:
    """The commit measured, marked where the tree holds changes."""
    done = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True)
    return done.stdout.strip()


if __name__ == "__main__":
    main()
