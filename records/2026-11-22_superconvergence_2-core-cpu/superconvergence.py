"""Super-convergence: how many steps one large cycle needs for what a constant low rate reaches.

    python superconvergence.py DATA [--train-limit 5000] [--steps 500] [--width 16] [--out FILE.jsonl]

The same network, batch and data. First the constant rate is chosen, by validation accuracy at equal steps, from a grid;
then both policies run over three seeds, one_cycle also at a half and a quarter of the steps. As many
images again, cut from the training set too, are validated on. One JSON line a run, then a summary.
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import TextIO

import timebox

CONSTANT = ("policy=constant", "max_momentum=0.9", "min_momentum=0.9")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data")
    parser.add_argument("--train-limit", type=int, default=5000)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--rates", type=float, nargs="+", default=[0.01, 0.03, 0.1])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--out", type=Path, default=Path("superconvergence.jsonl"))
    arguments = parser.parse_args()
    with arguments.out.open("w", encoding="utf-8") as log:
        experiment(arguments, log)


def experiment(arguments: argparse.Namespace, log: TextIO) -> None:
    """The whole comparison; every run becomes a line of ``log``."""

    def accuracy_of(policy: str, rate: float | None, steps: int, seed: int) -> float:
        settings = [f"width={arguments.width}"]
        if rate is not None:
            settings += [*CONSTANT, f"max_lr={rate}"]
        accuracy = train(arguments, steps, seed, settings)
        entry = {"policy": policy, "max_lr": rate, "steps": steps, "seed": seed, "val_accuracy": accuracy}
        print(json.dumps(entry), file=log, flush=True)
        print(json.dumps(entry), flush=True)
        return accuracy

    first = {rate: accuracy_of("constant", rate, arguments.steps, 0) for rate in arguments.rates}
    best_rate = max(first, key=lambda rate: first[rate])
    seeds = range(arguments.seeds)
    constant = [first[best_rate], *(accuracy_of("constant", best_rate, arguments.steps, seed) for seed in seeds[1:])]
    cycles = {
        steps: [accuracy_of("one_cycle", None, steps, seed) for seed in seeds]
        for steps in (arguments.steps, arguments.steps // 2, arguments.steps // 4)
    }
    target = statistics.mean(constant)
    enough = [steps for steps, accuracies in cycles.items() if statistics.mean(accuracies) >= target]
    summary = {
        "constant_rate": best_rate,
        "constant_steps": arguments.steps,
        "constant_mean": target,
        "constant_sd": statistics.stdev(constant),
        "one_cycle_mean": {steps: statistics.mean(accuracies) for steps, accuracies in cycles.items()},
        "one_cycle_sd": {steps: statistics.stdev(accuracies) for steps, accuracies in cycles.items()},
        "fewest_one_cycle_steps_that_reach_it": min(enough, default=None),
    }
    print(json.dumps(summary), file=log, flush=True)
    print(json.dumps(summary, indent=2))


def train(arguments: argparse.Namespace, steps: int, seed: int, settings: list[str]) -> float:
    """Validation accuracy of one run."""
    with tempfile.TemporaryDirectory() as folder:
        run = timebox.train(
            arguments.data,
            recipe="superconvergence",
            settings=settings,
            steps=steps,
            seed=seed,
            train_limit=2 * arguments.train_limit,
            val=0.5,
            test="none",
            precision=arguments.precision,
            out=Path(folder) / "run",
        )
        assert run.val_accuracy is not None
        return run.val_accuracy


if __name__ == "__main__":
    main()
