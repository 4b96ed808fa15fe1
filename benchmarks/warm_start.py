"""Does it pay to begin with another run's weights? Paired trainings on a few images, each from scratch and warm.

    python benchmarks/warm_start.py CIFAR100 CIFAR10 --train-limit 500 --budget 15s --seeds 5

First a run on CIFAR100, under `--first-budget`; then, for each seed, `timebox train CIFAR10` under equal budgets,
without and with `--init`, in turn, each in a process of its own. All are scored afterwards, untimed, on images of the
training set that were left out.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from timebox.benchmarking.statistics import describe

TIMEBOX = (sys.executable, "-m", "timebox")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("first", help="the data of the run to begin with")
    parser.add_argument("data", help="the data trained on")
    parser.add_argument("--first-budget", default="60s")
    parser.add_argument("--train-limit", type=int, default=500)
    parser.add_argument("--budget", default="15s")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--score", type=int, default=5000, help="images to score")
    parser.add_argument("--set", action="append", default=[], help="of the warm trainings, as `timebox train` takes it")
    given = parser.parse_args(argv)
    settings = [word for setting in given.set for word in ("--set", setting)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        first = folder / "first"
        call("train", given.first, "--budget", given.first_budget, "--val", "none", "--no-scoring", "--out", first)
        accuracies: dict[str, list[float]] = {"scratch": [], "warm": []}
        for seed in range(given.seeds):
            for label, more in (("scratch", []), ("warm", ["--init", first, *settings])):
                run = folder / f"{label}-{seed}"
                asked = ["--train-limit", given.train_limit, "--val", "rest", "--no-scoring", "--seed", seed]
                call("train", given.data, "--budget", given.budget, *asked, *more, "--out", run)
                scored = call("evaluate", run, given.data, "--split", "val", "--test-limit", given.score)
                accuracies[label].append(100 * scored["accuracy"])
                print(f"seed {seed} {label:8} {accuracies[label][-1]:.2f} %", flush=True)
    for label, values in accuracies.items():
        print(f"{label:8} mean {describe(values).mean:.2f} %, SD {describe(values).sd or 0:.2f}, n = {len(values)}")
    paired = describe([warm - scratch for warm, scratch in zip(accuracies["warm"], accuracies["scratch"], strict=True)])
    low, high = paired.interval or (float("nan"), float("nan"))
    print(f"difference {paired.mean:+.2f} points, 95 % interval {low:+.2f} to {high:+.2f}")


def call(*words: object) -> dict[str, float]:
    """What a command of timebox prints as JSON."""
    command = [*TIMEBOX, *map(str, words), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stderr.splitlines()[-1]}")
    answer: dict[str, float] = json.loads(done.stdout)
    return answer


if __name__ == "__main__":
    main()
