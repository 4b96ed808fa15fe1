"""Is timebox ever late? Runs of several budgets, undisturbed and disturbed, their time taken from outside.

    python tests/endurance/deadline.py --data DATA --out results.jsonl [--budgets 10 30 120] [-- TRAIN OPTIONS]

The data are cut to 5,000 training images, and nothing is validated or tested, but in `large-val`. Scenarios:

    idle        nothing else runs
    busy        four processes compute from a random moment to the end of the run
    stopped     SIGSTOP, and SIGCONT 5 s later, at a random moment of the training that leaves 5 s and the reserve that
                the plan printed; where a budget has no such moment, a shorter stop that ends before the reserve
    first-run   the first command after `pip install .` into a fresh environment; later ones after the files of
                environment and data were dropped from the page cache and timebox's byte code was deleted
    large-val   --val rest and 10/11 of the cut: what is left out of CIFAR-10 is ten times as much; tested too
    slow-disk   each fsync takes half a second, and what is written goes at 20 MB/s (deadlines/slow_disk.py)
    slowing-disk
                the disk becomes so from a random moment in the last 70 % of the budget on
    slow-save   the disk becomes so with the final weights

The wall time counts from just before the process is made to its exit. Each run is appended to the results as a JSON
line; runs the file holds already are not repeated, so that a benchmark broken off goes on. The order is random, seeded,
one repeat of everything after the other. At the end, or at once with --only-table, a table is printed. Exit status 1
where a run was late, was refused (but a first run with 10 s), failed or did not anneal to the end. Where the benchmark
itself was kept from running meanwhile, as on a machine that stands still, the table says so; the run counts as it is.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

from deadlines.disturbances import Installation, keep_busy, leave_alone, stop_and_continue
from deadlines.process_timing import observe
from deadlines.report import Record, misses, read_figures, read_records, table, tail

SCENARIOS = ("idle", "busy", "stopped", "first-run", "large-val", "slow-disk", "slowing-disk", "slow-save")
# Share of the budget after which a disk becomes slow at the earliest.
EARLIEST_SLOWING = 0.3
DISTURBANCES = {"busy": keep_busy, "stopped": stop_and_continue}
HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Cell:
    """One run to be made."""

    scenario: str
    budget_seconds: float
    repeat: int


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="CIFAR-10, or whatever `timebox train` takes")
    parser.add_argument("--out", type=Path, required=True, help="results, a JSON line a run")
    parser.add_argument("--budgets", type=float, nargs="+", default=[10.0, 30.0, 120.0], metavar="SECONDS")
    parser.add_argument("--scenarios", nargs="+", choices=SCENARIOS, default=list(SCENARIOS))
    parser.add_argument("--repeats", type=int, default=4, help="runs of each scenario and budget (default: 4)")
    parser.add_argument("--seed", type=int, default=0, help="seed of order, moments and trainings")
    parser.add_argument("--train-limit", type=int, default=5000)
    parser.add_argument("--test", default=None, help="what large-val is tested on (default: the data's own test split)")
    parser.add_argument(
        "--environment", type=Path, help="virtual environment of first-run, made there if it is missing"
    )
    parser.add_argument("--only-table", action="store_true", help="print the table of the results there are")
    split = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    arguments = parser.parse_args(sys.argv[1:split])
    arguments.options = sys.argv[split + 1 :]
    if not arguments.only_table:
        if arguments.data is None:
            parser.error("--data is needed, unless --only-table")
        run_all(arguments)
    records = read_records(arguments.out)
    if not records:
        parser.error(f"{arguments.out} holds no runs")
    print(table(records, SCENARIOS))
    return 1 if any(misses(record) for record in records) else 0


def run_all(arguments: argparse.Namespace) -> None:
    """Make every run that the results do not hold yet."""
    done = {Cell(record.scenario, record.budget_seconds, record.repeat) for record in read_records(arguments.out)}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    installation = Installation(arguments.environment)
    try:
        for cell in order(arguments.scenarios, arguments.budgets, arguments.repeats, arguments.seed):
            if cell not in done:
                record = run(cell, arguments, installation)
                with arguments.out.open("a", encoding="utf-8") as log:
                    log.write(json.dumps(asdict(record)) + "\n")
                print(describe(record), file=sys.stderr, flush=True)
    finally:
        installation.remove()


def order(scenarios: Sequence[str], budgets: Sequence[float], repeats: int, seed: int) -> list[Cell]:
    """Every cell, interleaved: each repeat holds all scenarios and budgets once, in an order of its own."""
    cells = []
    for repeat in range(repeats):
        block = [Cell(scenario, budget, repeat) for scenario in scenarios for budget in budgets]
        Random(f"{seed} {repeat}").shuffle(block)
        cells += block
    return cells


def run(cell: Cell, arguments: argparse.Namespace, installation: Installation) -> Record:
    """One run, in a directory that is thrown away."""
    first = installation.prepare(Path(arguments.data)) if cell.scenario == "first-run" else {}
    environment = {name: value for name, value in os.environ.items() if not (first and name == "PYTHONPATH")}
    seed = arguments.seed + cell.repeat
    random = Random(f"{arguments.seed} {cell.scenario} {cell.budget_seconds:g} {cell.repeat}")
    load_before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="timebox-deadline-") as folder:
        out = Path(folder) / "run"
        words = train_words(cell, arguments, seed)
        slowing_at = round(random.uniform(EARLIEST_SLOWING, 1.0) * cell.budget_seconds, 3)
        slowing = {"moment": slowing_at} if cell.scenario == "slowing-disk" else {}
        command = [*program(cell.scenario, installation, slowing_at), *words, "--out", str(out), "--json"]
        disturb = DISTURBANCES.get(cell.scenario, leave_alone)
        outcome = observe(command, cell.budget_seconds, disturb, random, environment)
        figures = read_figures(out, outcome.stdout, cell.budget_seconds)
    return Record(
        **asdict(cell),
        seed=seed,
        command=shlex.join(["timebox", *(Path(word).name if "/" in word else word for word in words)]),
        commit=commit(),
        load_before=round(load_before, 2),
        wall_seconds=round(outcome.wall_seconds, 3),
        late=outcome.wall_seconds > cell.budget_seconds,
        stalled_seconds=round(outcome.stalled_seconds, 3),
        status=outcome.status,
        disturbance={**first, **slowing, **outcome.disturbance},
        stderr=tail(outcome.stderr),
        figures=figures,
    )


def program(scenario: str, installation: Installation, slowing_at: float) -> list[str]:
    """The words before `train` on the command line. A disk that becomes slow does so after ``slowing_at`` seconds."""
    if scenario == "first-run":
        return [str(installation.timebox)]
    options = {
        "slow-disk": [],
        "slowing-disk": ["--from-seconds", str(slowing_at)],
        "slow-save": ["--from-file", "model.safetensors"],
    }
    if scenario in options:
        return [sys.executable, str(HERE / "deadlines" / "slow_disk.py"), *options[scenario], "--"]
    return [sys.executable, "-m", "timebox"]


def train_words(cell: Cell, arguments: argparse.Namespace, seed: int) -> list[str]:
    """`train` and its options."""
    limit, splits = arguments.train_limit, ["--val", "none", "--test", "none"]
    if cell.scenario == "large-val":
        limit, splits = 10 * limit // 11, ["--val", "rest", *(["--test", arguments.test] if arguments.test else [])]
    budget = ["--budget", f"{cell.budget_seconds:g}s", "--seed", str(seed)]
    return ["train", arguments.data, *budget, "--train-limit", str(limit), *splits, *arguments.options]


def describe(record: Record) -> str:
    """One line for whoever waits."""
    found = "; ".join(misses(record)) or "as promised"
    took = f"{record.wall_seconds:.2f}s of {record.budget_seconds:g}s"
    return f"{record.scenario} {record.repeat}: {took}, {found} {dict(record.disturbance) or ''}".rstrip()


def commit() -> str:
    """The commit measured, marked where the tree holds changes."""
    command = ["git", "-C", str(HERE), "describe", "--always", "--dirty"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    raise SystemExit(main())
