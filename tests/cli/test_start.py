"""The command line starts at once, as `timebox` and as `python -m timebox`."""

import subprocess
import sys

from timebox.version import VERSION

# 132 at present, which take 0.1 s; numpy or rich alone would bring more than these. The promise is 0.3 s.
MOST_MODULES = 210


def test_help_imports_next_to_nothing() -> None:
    code = "import sys; from timebox.cli import main; main(['--help']); print(len(sys.modules), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stderr) < MOST_MODULES


def test_the_version() -> None:
    done = subprocess.run([sys.executable, "-m", "timebox", "--version"], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == (f"timebox {VERSION}\n", "")
