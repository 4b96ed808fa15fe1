"""One process with all threads against several that share them: speed, what exchanging gradients takes, and accuracy.

    python benchmarks/scaling.py DATA [--processes 2] [--rounds 5] [--steps 40] [--budget 60s --seeds 3] [--out FILE]

Speed: the same steps of one network in one global batch, by one process with all threads and by several that share
them evenly, in turn. What starting takes is left out: the time of many steps less that of a quarter of them. A rank
waits for gradients from the moment it has computed its last one. Accuracy: `auto` under one budget, in one process and
in several, in turn, scored by `timebox evaluate` on what was held out.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

# Small networks take so many times the steps of large ones, so that there is something to measure.
WIDTHS = {16: 8, 64: 1}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", help="a folder, a file or a name")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5, help="of each row, in turn")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    parser.add_argument("--budget", help="of the trainings whose accuracy is compared; none are made without it")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="a JSON line for each measurement")
    given = parser.parse_args()
    for line in measured(given):
        text = json.dumps(line)
        print(text, flush=True)
        if given.out:
            with given.out.open("a", encoding="utf-8") as log:
                print(text, file=log)


def measured(given: argparse.Namespace) -> Iterator[dict[str, object]]:
    """A line for each training, and one for each comparison."""
    for width, times in WIDTHS.items():
        recipe = ("--recipe", "airbench94", "--set", f"width={width}", "--set", f"batch_size={given.batch_size}")
        words = (*recipe, "--val", "none", "--no-scoring", "--precision", given.precision)
        few, many = times * given.steps // 4, times * given.steps
        speeds: dict[int, list[float]] = {1: [], given.processes: []}
        waits: list[float] = []
        for number in range(given.rounds):
            for processes, row in speeds.items():
                short, whole = (trained(given.data, processes, ("--steps", steps, *words)) for steps in (few, many))
                images = (many - few) * given.batch_size
                row.append(images / (training_seconds(whole) - training_seconds(short)))
                waits += [share for share in [waiting_share(whole)] if share is not None]
                yield {
                    "row": "speed", "width": width, "round": number, "processes": processes,
                    "images_per_second": round(row[-1], 1), "waiting_share": waiting_share(whole),
                }  # fmt: skip
        alone, shared = speeds[1], speeds[given.processes]
        ratios = [b / a for a, b in zip(alone, shared, strict=True)]
        yield {
            "row": "speed, median of the rounds", "width": width, "alone": round(statistics.median(alone), 1),
            "shared": round(statistics.median(shared), 1), "ratio": round(statistics.median(ratios), 3),
            "ratios": [round(ratio, 3) for ratio in sorted(ratios)],
            "waiting_share": round(statistics.median(waits), 3),
        }  # fmt: skip
    if given.budget:
        yield from accuracies(given)


def accuracies(given: argparse.Namespace) -> Iterator[dict[str, object]]:
    """`auto` under a budget, with several seeds."""
    for seed in range(given.seeds):
        for processes in (1, given.processes):
            with tempfile.TemporaryDirectory() as folder:
                words = ("--budget", given.budget, "--seed", seed, "--no-scoring")
                summary = trained(given.data, processes, words, Path(folder) / "run")
                scored = run("evaluate", Path(folder) / "run", given.data, "--split", "val", "--json")
                yield {
                    "row": "accuracy", "seed": seed, "processes": processes, "budget": given.budget,
                    "accuracy": json.loads(scored)["accuracy"], "epochs": summary["epochs"],
                    "elapsed_seconds": summary["elapsed_seconds"], "late": summary["late"],
                }  # fmt: skip


def trained(data: str, processes: int, words: tuple[object, ...], out: Path | None = None) -> dict[str, object]:
    """The summary of a training."""
    with tempfile.TemporaryDirectory() as folder:
        place = out or Path(folder) / "run"
        printed = run("train", data, *words, "--out", place, "--json", processes=processes)
        summary: dict[str, object] = json.loads(printed)
        return summary


def run(*words: object, processes: int = 1) -> str:
    """What a command prints."""
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", processes] if processes > 1 else []
    command = [sys.executable, *launcher, "-m", "timebox", *words]
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        sys.exit(re.sub(r"\n+", "\n", done.stderr[-2000:]))
    return done.stdout


def training_seconds(summary: dict[str, object]) -> float:
    """What the training took."""
    phases = summary["phases"]
    assert isinstance(phases, dict)
    return float(phases["training"])


def waiting_share(summary: dict[str, object]) -> float | None:
    """Of the rank that waits least: what it waits for is the exchange itself, not a slower rank."""
    ranks = summary.get("ranks")
    return min(rank["waiting_share"] for rank in ranks) if isinstance(ranks, list) else None


if __name__ == "__main__":
    main()
