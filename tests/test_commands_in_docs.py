"""The commands of the README and the pages, run one after another as a reader would, with shorter budgets.

Those of the README and the tutorial are part of the integration tests, the others of `make endurance`.
"""

import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import pytest
from PIL import Image

from test_docs import PAGES, commands

FIRST_PAGES = ("README.md", "tutorial.md")
# Commands that need another machine, a database or data that a reader brings.
NOT_RUN = ("--storage", "benchmark DATA", "train --resume run")
SECONDS = {"trial-budget": 60, "train-budget": 60}
# Fixed recipes of wide networks, features of a pretrained network and searches need more than other trainings.
SLOW, SLOW_SECONDS, USUAL_SECONDS = ("timebox tune", "mine.toml", "width=32", "--init pretrained"), 100, 15
COLOURS = {"apple": (200, 40, 40), "pear": (60, 180, 60), "quince": (220, 200, 60)}
MY_CODE = """
import torch

def network(num_classes):
    return torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, 2), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1),
                               torch.nn.Flatten(), torch.nn.Linear(8, num_classes))

def focal_loss(logits, labels):
    return torch.nn.functional.cross_entropy(logits, labels, reduction="none")

class Progress:
    def on_step(self, step):
        pass
"""


def write_photos(folder: Path, num_images: int = 40, name: str = "IMG_{:04d}.jpg") -> None:
    """Photos of one colour for each class, with noise."""
    rng = np.random.default_rng(0)
    for label, colour in COLOURS.items():
        (folder / label).mkdir(parents=True)
        for number in range(num_images):
            pixels = np.clip(rng.normal(colour, 60, (48, 40, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / label / name.format(number))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all that the pages speak of."""
    folder = tmp_path_factory.mktemp("reader")
    write_photos(folder / "photos")
    write_photos(folder / "tracks", name="{:03d}_0.ppm")
    write_photos(folder / "runs" / "feedback", num_images=20)
    (folder / "new").mkdir()
    Image.fromarray(np.full((48, 40, 3), COLOURS["pear"], np.uint8)).save(folder / "new" / "1.jpg")
    (folder / "photo.jpg").write_bytes((folder / "new" / "1.jpg").read_bytes())
    (folder / "my_code.py").write_text(MY_CODE)
    for name in ("demo", "one", "two"):
        run(f"timebox train photos/ --steps 20 --test 0.2 --out runs/{name}", folder)
    run("timebox train photos/ --steps 20 --network my_code:network --trust-code --out runs/own", folder)
    return folder


def shortened(command: str, folder: Path) -> list[str]:
    """The words of a command with a short budget, on data that lie here, with the names of the latest runs."""
    budget_seconds = SLOW_SECONDS if any(words in command for words in SLOW) else USUAL_SECONDS
    for option, seconds in {**SECONDS, "budget": budget_seconds}.items():
        command = re.sub(rf"--{option} \w+", f"--{option} {seconds}s", command)
    command = re.sub(r"\bcifar100?\b", "photos/", command).replace("--train-limit 5000", "--train-limit 60")
    command = command.replace("timebox benchmark photos", "timebox benchmark --seeds 1 photos")
    words = shlex.split(command, comments=True)
    for index, word in enumerate(words):
        if "…" in word:
            first, _, rest = word.partition("…")
            latest = max((folder / "runs").glob(f"{Path(first).name}*"), key=lambda path: path.stat().st_mtime)
            words[index] = f"runs/{latest.name}{rest}"
    return [sys.executable, "-m", *words]


def run(command: str, folder: Path) -> None:
    words = shortened(command, folder)
    target = None
    if ">" in words:
        target, words = folder / words[-1], words[: words.index(">")]
    stdin = "photo.jpg\n" if " - " in command else None
    done = subprocess.run(words, cwd=folder, input=stdin, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    if target:
        target.write_text(done.stdout)


def run_server(command: str, folder: Path) -> None:
    """Start a command that serves a page, look at the page, and stop the command as Ctrl-C does."""
    words = [*shortened(command, folder), "--port", "0"]
    with subprocess.Popen(words, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as server:
        assert server.stdout is not None
        address = next((found[0] for line in server.stdout if (found := re.search(r"http://\S+", line))), None)
        assert address, f"{command} prints no address"
        with urlopen(address.replace("0.0.0.0", "127.0.0.1"), timeout=30) as page:
            assert b"<html" in page.read()
        server.send_signal(signal.SIGINT)
        server.stdout.read()
    assert server.returncode in (0, 130), command


def cases() -> list[object]:
    pages = [page for page in PAGES if commands(page)]
    marks = {True: pytest.mark.integration, False: pytest.mark.endurance}
    return [pytest.param(page, id=page.name, marks=marks[page.name in FIRST_PAGES]) for page in pages]


@pytest.mark.parametrize("page", cases())
def test_the_commands_of_a_page_run(page: Path, folder: Path) -> None:
    num_run = 0
    for command in commands(page):
        if any(words in command for words in NOT_RUN):
            continue
        is_server = command.split()[1] in ("serve", "watch")
        (run_server if is_server else run)(command, folder)
        num_run += 1
    assert num_run or all(any(words in command for words in NOT_RUN) for command in commands(page))
