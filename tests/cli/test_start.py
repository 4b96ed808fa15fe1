"""The command line starts at once, as `timebox` and as `python -m timebox`."""

import statistics
import subprocess
import sys
from resource import RUSAGE_CHILDREN, getrusage

from timebox.version import VERSION

# 132 at present; numpy or rich alone would bring more than these.
MOST_MODULES = 200
# The promise of 0.3 s, in interpreters that start and end, of some 0.015 to 0.03 s each.
MOST_STARTS = 10


def processor_seconds(*argv: str) -> float:
    """What the processor spends on a Python process, the median of three."""
    spent = []
    for _ in range(3):
        before = getrusage(RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *argv], stdout=subprocess.DEVNULL, check=True)
        after = getrusage(RUSAGE_CHILDREN)
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return statistics.median(spent)


def test_help_answers_at_once() -> None:
    assert processor_seconds("-m", "timebox", "--help") < MOST_STARTS * processor_seconds("-c", "pass")
    code = "import sys; from timebox.cli import main; main(['--help']); print(len(sys.modules), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stderr) < MOST_MODULES


def test_the_version() -> None:
    done = subprocess.run([sys.executable, "-m", "timebox", "--version"], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == (f"timebox {VERSION}\n", "")
