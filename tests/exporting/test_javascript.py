"""The example in JavaScript: Node and a page in Chromium give the answers of the run."""

import functools
import http.server
import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from browsers import chromium, needs_chromium, set_width
from timebox.run import Run

from .conftest import ExportedOnce

pytestmark = pytest.mark.integration

EXAMPLE = Path(__file__).parents[2] / "examples" / "javascript"
SIDE = 40
RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 256, (SIDE, SIDE + 9, 4), dtype=np.uint8)
# Printed with one digit behind the point of a percentage.
ROUNDING = 0.0006
JPEG_TOLERANCE = 0.02


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example with its packages installed."""
    if shutil.which("npm") is None or shutil.which("node") is None:
        pytest.skip("Node.js and npm are not installed")
    folder = tmp_path_factory.mktemp("javascript") / "example"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("node_modules", "*.onnx"))
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        pytest.skip(f"npm cannot install the packages of the example: {done.stderr.strip().splitlines()[-1:]}")
    return folder


@pytest.fixture(scope="module")
def run(exported: ExportedOnce, folder: Path) -> Run:
    """A run, whose ONNX file lies beside the example."""
    pytest.importorskip("onnxruntime", reason="onnxruntime, of the extra `onnx`, is not installed")
    run, written = exported("onnx", "haet2021", "bf16", "crop")
    shutil.copy(written.path, folder / "model.onnx")
    return run


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Images without loss, in several modes, and then two JPEGs, one of them turned."""
    folder = tmp_path_factory.mktemp("images")
    rgba = Image.fromarray(NOISE)
    for name, image in {
        "rgb": rgba.convert("RGB"), "grey": rgba.convert("L"), "palette": rgba.convert("RGB").quantize(32),
        "transparent": rgba,
    }.items():  # fmt: skip
        image.save(folder / f"{name}.png")
    smooth = Image.fromarray(NOISE[:6, :8, :3]).resize((80, 60), Image.Resampling.BICUBIC)
    smooth.save(folder / "photo.jpg", quality=95)
    exif = Image.Exif()
    exif[0x0112] = 6
    smooth.save(folder / "turned.jpg", quality=95, exif=exif)
    return [*sorted(folder.glob("*.png")), *sorted(folder.glob("*.jpg"))]


def check(answers: dict[str, tuple[str, float]], run: Run, files: list[Path]) -> None:
    """The labels and probabilities are those of the run."""
    assert len(answers) == len(files)
    for file in files:
        label, probability = answers[file.name]
        expected = run.predict_proba(file)[0]
        tolerance = ROUNDING if file.suffix == ".png" else JPEG_TOLERANCE
        assert abs(probability - expected[run.class_names.index(label)]) < tolerance, file.name
        assert expected[run.class_names.index(label)] > expected.max() - tolerance, file.name


def test_the_packages_come_from_the_public_registry() -> None:
    lock = json.loads((EXAMPLE / "package-lock.json").read_text(encoding="utf-8"))
    sources = [package.get("resolved", "") for package in lock["packages"].values()]
    assert len(sources) > 5
    assert all(not source or source.startswith("https://registry.npmjs.org/") for source in sources)


def test_node_answers_like_the_run(folder: Path, run: Run, files: list[Path], tmp_path: Path) -> None:
    text = tmp_path / "text.png"
    text.write_text("text")
    command = ["node", "predict.mjs", "model.onnx", *map(str, files), str(text)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 3, done.stderr
    *lines, last = done.stdout.splitlines()
    found = [re.fullmatch(r"(.*): (.*) \(([\d.]+)%\)", line) for line in lines]
    assert all(found), done.stdout
    check({Path(one[1]).name: (one[2], float(one[3]) / 100) for one in found if one}, run, files)
    assert last.startswith(f"{text}: cannot be read: ")


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves files without a line on stderr for each."""

    def log_message(self, format: str, *args: object) -> None:
        """Nothing is printed."""


@pytest.fixture(scope="module")
def address(folder: Path, run: Run) -> Iterator[str]:
    handler = functools.partial(Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@needs_chromium
def test_a_browser_answers_like_the_run(address: str, run: Run, files: list[Path], tmp_path: Path) -> None:
    pytest.importorskip("selenium", reason="selenium is not installed")
    axe_core = pytest.importorskip("axe_core_python.selenium", reason="axe-core-python is not installed")
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    text = tmp_path / "text.png"
    text.write_text("text")
    with chromium() as driver:
        driver.get(address)
        field = driver.find_element(By.CSS_SELECTOR, "input[type=file]")
        WebDriverWait(driver, 60).until(lambda _: field.is_enabled())
        assert run.class_names[0] in driver.find_element(By.ID, "state").text
        field.send_keys("\n".join(map(str, [*files, text])))
        answers_shown = "#answers > *"
        WebDriverWait(driver, 60).until(
            lambda _: len(driver.find_elements(By.CSS_SELECTOR, answers_shown)) > len(files)
        )
        answers = {}
        for article in driver.find_elements(By.TAG_NAME, "article"):
            name = article.find_element(By.TAG_NAME, "p").text.rpartition(", ")[0]
            label = article.find_element(By.TAG_NAME, "dt").text
            answers[name] = (label, float(article.find_element(By.CSS_SELECTOR, ".number").text.rstrip("%")) / 100)
        check(answers, run, files)
        assert driver.find_element(By.CSS_SELECTOR, ".error").text == "text.png is no image that this browser can read"
        assert [one["id"] for one in axe_core.Axe().run(driver)["violations"]] == []
        set_width(driver, 390)
        assert driver.execute_script("return document.documentElement.scrollWidth") <= 390
        elsewhere = [one["message"] for one in driver.get_log("browser") if address not in one["message"]]
        assert elsewhere == []
