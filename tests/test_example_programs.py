"""The programs in examples/ run as they stand there, on small data and short budgets."""

import importlib.util
import json
import runpy
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
# tests/exporting runs it.
ELSEWHERE = {"serve_onnx.py"}
SHORT = "14s"

pytestmark = pytest.mark.integration


def load(name: str) -> ModuleType:
    """An example, imported under its own name."""
    spec = importlib.util.spec_from_file_location(Path(name).stem, EXAMPLES / name)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_every_example_is_listed_and_run() -> None:
    files = {file.name for file in EXAMPLES.iterdir() if file.suffix in (".py", ".ipynb")}
    listed = (EXAMPLES / "README.md").read_text()
    assert all(f"]({name})" in listed for name in files)
    here = Path(__file__).read_text()
    assert all(f'"{name}"' in here for name in files)


@pytest.mark.parametrize("name", ["own_network.py", "focal_loss.py", "own_optimizer.py", "resume_own_network.py"])
def test_a_program(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    load(name).main("digits", SHORT)
    assert "Run(" in capsys.readouterr().out


def test_augmentations(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    module = load("own_augmentation.py")
    steps: dict[str, Any] = {"steps": 5}
    train = module.timebox.train
    monkeypatch.setattr(module.timebox, "train", lambda data, budget, **options: train(data, **steps, **options))
    module.main()
    assert capsys.readouterr().out.count("Run(") == 3


def test_the_drawing(tmp_path: Path) -> None:
    load("drawing_callback.py").main("digits", SHORT)
    pixels = np.asarray(Image.open(tmp_path / "loss.png"))
    assert (pixels != 255).any()


def test_cross_validation(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    module = load("cross_validation.py")
    estimator = module.TimeboxClassifier
    monkeypatch.setattr(module, "TimeboxClassifier", lambda budget, **options: estimator(steps=60, **options))
    module.main()
    assert "% on average" in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore")  # of MLflow itself
def test_mlflow() -> None:
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed")
    load("mlflow_tracking.py").main("digits", SHORT)
    mlflow.set_tracking_uri("sqlite:///mlflow.db")
    assert len(mlflow.search_runs(experiment_names=["timebox"], output_format="list")) == 1


def test_a_dataset_of_hugging_face() -> None:
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    rng = np.random.default_rng(0)
    images = []
    for k in range(40):
        pixels = rng.integers(0, 100, (20 + k % 3, 20, 3), dtype=np.uint8)
        pixels[..., 0] += 100 * (k % 2)
        images.append(Image.fromarray(pixels))
    features = datasets.Features({"image": datasets.Image(), "kind": datasets.ClassLabel(names=["blue", "red"])})
    dataset = datasets.Dataset.from_dict({"image": images, "kind": [k % 2 for k in range(40)]}, features=features)
    classifier = load("huggingface_dataset.py").fit(dataset, SHORT)
    assert classifier.score(images, ["red" if k % 2 else "blue" for k in range(40)]) > 0.8


def test_the_notebook() -> None:
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
    nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed")
    notebook = nbformat.read(EXAMPLES / "first_look.ipynb", as_version=4)
    nbclient.NotebookClient(notebook, timeout=120).execute()
    outputs = json.dumps([cell.get("outputs", []) for cell in notebook.cells])
    assert "text/html" in outputs
    assert "accuracy" in outputs


def test_a_script_runs_as_a_program(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["focal_loss.py", "digits", SHORT])
    runpy.run_path(str(EXAMPLES / "focal_loss.py"), run_name="__main__")
    assert "Run(" in capsys.readouterr().out
