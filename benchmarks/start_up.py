"""Seconds from `import timebox` to the end of the first training step.

    python benchmarks/start_up.py DATA [--repeats 5] [--budget 60s] [--recipe airbench94]

Each repeat is a process of its own, begun with nothing imported, that trains under a budget: it reads the data, plans
by measuring, prepares, and ends right after its first step. Prints the seconds of each, and their median.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile

PROGRAM = """
import sys, time
began = time.perf_counter()
import timebox
from timebox.progress import SilentReporter

class UntilTheFirstStep(SilentReporter):
    def step(self, status):
        raise SystemExit(f"{time.perf_counter() - began:.2f}")

data, budget, recipe, out = sys.argv[1:]
timebox.train(data, budget=budget, recipe=recipe, test="none", out=out, reporter=UntilTheFirstStep())
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--budget", default="60s")
    parser.add_argument("--recipe", default="auto")
    arguments = parser.parse_args()
    seconds = [first_step(arguments) for _ in range(arguments.repeats)]
    print(f"{' '.join(f'{value:.2f}' for value in seconds)}: median {statistics.median(seconds):.2f} s")


def first_step(arguments: argparse.Namespace) -> float:
    """One repeat. A training that ends in another way than after its first step ends the measurement with its words."""
    with tempfile.TemporaryDirectory() as folder:
        words = [arguments.data, arguments.budget, arguments.recipe, f"{folder}/run"]
        done = subprocess.run([sys.executable, "-c", PROGRAM, *words], capture_output=True, text=True)
    try:
        return float(done.stderr)
    except ValueError:
        sys.exit(done.stderr or "the training ended before its first step")


if __name__ == "__main__":
    main()
