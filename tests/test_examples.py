"""The examples in the documentation of everything public, as they stand there."""

import doctest
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import timebox
from benchmarking.conftest import record
from timebox.configs.tune import MIN_TRIAL_SECONDS
from tuning.pace import end_early, num_measured

PAGE = Path(__file__).parents[1] / "docs" / "guides" / "own-code.md"

# Most are about a run that the fixture has made.
PUBLIC = (
    "train", "load", "predict", "evaluate", "inspect", "report", "compare", "export", "benchmark", "lr_find", "plan",
    "recipe", "tune", "doctor",
    "ImageDataset", "TensorBoardCallback", "TimeboxClassifier", "TimeboxError", "TrainConfig", "decode_image",
)  # fmt: skip
# What they give back, which nobody makes by hand.
RESULTS = {
    "__version__",
    "Benchmark",
    "CheckpointInfo",
    "Diagnosis",
    "EndInfo",
    "Evaluation",
    "Exported",
    "FilePrediction",
    "Forecast",
    "Inspection",
    "LRRange",
    "PlanInfo",
    "PlannedTraining",
    "Recipe",
    "RecipeSpec",
    "Run",
    "RunData",
    "StepInfo",
    "StepStatus",
    "Tuned",
    "ValidationInfo",
}
# What users write themselves, and trackers that take a server or a package of an extra.
OTHERS = {"MLflowCallback", "Reporter", "WandbCallback"}
# TrainConfig has an example of them.
CONFIGS = {
    "BenchmarkConfig", "CompareConfig", "EvaluateConfig", "ExportConfig", "InspectConfig", "LrFindConfig", "PlanConfig",
    "PredictConfig", "ReportConfig", "ServeConfig", "TuneConfig", "WatchConfig",
}  # fmt: skip
# TimeboxError has an example of them.
ERRORS = {
    "ArgumentError", "BudgetError", "DataError", "OutputError", "RankFailureError", "RunError", "UsageError",
}  # fmt: skip


# Real trainings, searches and exports.
pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos of red and blue and a run made of them, to work in."""
    folder = tmp_path_factory.mktemp("examples")
    rng = np.random.default_rng(0)
    for channel, name in ((0, "red"), (2, "blue")):
        (folder / "photos" / name).mkdir(parents=True)
        for k in range(30):
            pixels = rng.integers(0, 100, (16, 16, 3), dtype=np.uint8)
            pixels[..., channel] += 150
            Image.fromarray(pixels).save(folder / "photos" / name / f"{k}.png")
    timebox.train(folder / "photos", steps=20, test=0.2, out=folder / "runs" / "demo")
    return folder


def test_every_public_name_has_one() -> None:
    assert {*PUBLIC, *RESULTS, *CONFIGS, *OTHERS, *ERRORS} == set(timebox.__all__)


@pytest.mark.parametrize("name", [*PUBLIC, "timebox"])
def test_examples(name: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(place)
    if name == "tune":
        end_early(monkeypatch, lambda lines: num_measured(lines) >= 2, MIN_TRIAL_SECONDS)
    if name == "benchmark":  # tests/cli/test_benchmark.py has real trials
        module = sys.modules[timebox.benchmark.__module__]
        monkeypatch.setattr(module, "run_trial", lambda *given: record("auto", 0))
    thing = timebox if name == "timebox" else getattr(timebox, name)
    (test,) = doctest.DocTestFinder(recurse=False).find(thing, name, globs={})
    assert test.examples
    results = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(test)
    assert results.failed == 0, capsys.readouterr().out


def test_the_page_about_own_code(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 3
    exec("\n".join(blocks).replace('budget="30s"', "steps=20"), {"__name__": "page"})
    assert timebox.load(place / "runs" / "recipe").recipe.model == "airbench"
