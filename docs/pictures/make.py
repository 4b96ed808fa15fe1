"""Makes the pictures of the README from a training: python docs/pictures/make.py photos --budget 2m --test 0.2

Runs `timebox train` with these arguments in a terminal of 100 columns, and writes what it shows in the end as
terminal.svg. Then opens the report in Chromium, and writes the top of it as report.png. Needs tmux, and Chromium with
its driver.
"""

import io
import re
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1] / "tests"))
from browsers import chromium  # noqa: E402

COLUMNS, ROWS = 100, 60
REPORT_SIZE = {"width": 1280, "height": 740, "deviceScaleFactor": 1, "mobile": False}
TMUX = ("tmux", "-L", "timebox-pictures")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "runs" / "photos"
        arguments = shlex.join(sys.argv[1:])
        shown = screen_after(f"timebox train {arguments} --out {run}", folder)
        picture_of_terminal(shown.replace(f"{folder}/", ""), f"timebox train {arguments} --out runs/photos")
        picture_of_page(run / "report.html")


def screen_after(command: str, folder: str) -> str:
    """The screen of a terminal, with its colours, once the command has ended."""
    done = Path(folder) / "done"
    terminal = [*TMUX, "new-session", "-d", "-x", str(COLUMNS), "-y", str(ROWS)]
    subprocess.run([*terminal, f"{command}; touch {done}; sleep 60"], check=True)
    while not done.exists():
        time.sleep(0.5)
    shown = subprocess.run([*TMUX, "capture-pane", "-e", "-p"], check=True, capture_output=True, text=True).stdout
    subprocess.run([*TMUX, "kill-server"], check=True)
    return shown.rstrip()


def picture_of_terminal(shown: str, command: str) -> None:
    console = Console(record=True, width=COLUMNS, file=io.StringIO())
    console.print(Text(f"$ {command}", style="bold"))
    console.print(Text.from_ansi(shown))
    picture = console.export_svg(title="timebox", theme=MONOKAI)
    # The fonts of the reader: nothing is loaded from another host.
    picture = re.sub(r"@font-face \{.*?\}\s*", "", picture, flags=re.DOTALL)
    (HERE / "terminal.svg").write_text(picture, encoding="utf-8")


def picture_of_page(page: Path) -> None:
    with chromium() as browser:
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", REPORT_SIZE)
        browser.execute_cdp_cmd("Emulation.setScrollbarsHidden", {"hidden": True})
        browser.get(page.as_uri())
        browser.save_screenshot(str(HERE / "report.png"))


if __name__ == "__main__":
    main()
