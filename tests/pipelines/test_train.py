"""timebox.train, from a call to a run directory."""

import json
import random
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from budgets import within_budget
from small_runs import CLASSES, FILES, SMALL, Listing, UnforeseenError, coloured, fail, quick, save_npz, weights
from timebox.clock import Deadline, now
from timebox.data import LoadedData, load_data
from timebox.data.device.loader import DeviceLoader
from timebox.errors import BudgetError, DataError, UsageError
from timebox.models import Airbench, AirbenchConfig
from timebox.pipelines import train
from timebox.progress import StepStatus
from timebox.run import Run, load
from timebox.run.writer import RunWriter
from timebox.training import checkpointer as checkpointer
from timebox.training.state import Snapshot

SUMMARY_KEYS = {
    "val_accuracy", "test_accuracy", "val_images", "test_images", "val_images_total", "test_images_total", "tta",
    "late", "budget_seconds", "elapsed_seconds", "download_seconds", "temperature", "command", "phases", "steps",
    "epochs", "images_per_second", "final_lr", "train_images", "num_classes", "data", "device", "threads", "precision",
    "seed", "source", "recipe", "plan", "notes", "bad_files", "num_bad_files", "versions", "events", "reserve_seconds",
    "unwritten", "trained_on_other_machine", "format",
}  # fmt: skip


def test_a_run_directory_is_complete(trained: Run) -> None:
    assert {path.name for path in trained.path.iterdir()} == FILES
    summary = json.loads((trained.path / "summary.json").read_text())
    assert set(summary) == SUMMARY_KEYS
    assert trained.summary == summary
    assert trained.class_names == CLASSES
    assert (summary["steps"], summary["epochs"], summary["train_images"]) == (40, round(40 * 32 / 113, 3), 113)
    assert (summary["budget_seconds"], summary["late"], summary["final_lr"]) == (None, False, 0.0)
    assert (summary["val_images"], summary["val_images_total"]) == (13, 13)
    assert (summary["test_images"], summary["test_images_total"]) == (24, 24)
    assert trained.test_accuracy == summary["test_accuracy"] > 0.9
    assert trained.val_accuracy == summary["val_accuracy"]
    assert summary["data"] == {
        "name": "colours",
        "format": ".npz file",
        "why": "it holds class_names, train_images, train_labels",
    }
    assert sum(summary["phases"].values()) == pytest.approx(summary["elapsed_seconds"], abs=0.05)
    assert {"reading", "planning", "training", "saving", "scoring"} <= set(summary["phases"])
    assert summary["recipe"]["width"] == 4


@pytest.mark.parametrize("whitening", [True, False])
def test_whitening_false_leaves_the_first_filters_random(data: Path, tmp_path: Path, whitening: bool) -> None:
    settings = ("width=4", f"whitening={str(whitening).lower()}")
    network = quick(data, tmp_path / "run", steps=1, recipe="airbench94", settings=settings).model
    identity = Airbench(3, 3, AirbenchConfig(width=4)).whitening.weight
    assert torch.equal(network.whitening.weight, identity) is not whitening


def test_metrics_are_json_lines(trained: Run) -> None:
    lines = [json.loads(line) for line in (trained.path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == list(range(1, 41))
    assert [line["step"] for line in lines if "val_accuracy" in line] == [8, 16, 24, 32]


def test_predictions_are_of_the_held_out_images(trained: Run, data: Path) -> None:
    with np.load(trained.path / "predictions.npz", allow_pickle=False) as saved:
        split, ids, label, probabilities = (saved[key] for key in ("split", "id", "label", "probabilities"))
    assert (split == "val").sum() == 13
    assert (split == "test").sum() == 24
    images, labels = coloured(150)
    chosen = ids.astype(int)
    assert len(set(chosen)) == 37
    np.testing.assert_array_equal(labels[chosen], label)
    np.testing.assert_allclose(trained.predict_proba(images[chosen]), probabilities, atol=1e-5)
    right = (probabilities.argmax(1) == label)[split == "test"].mean()
    assert right == pytest.approx(trained.test_accuracy)


def test_the_same_seed_gives_the_same_bytes(data: Path, tmp_path: Path) -> None:
    first = quick(data, tmp_path / "first", seed=3)
    torch.rand(5)
    np.random.default_rng()
    second = quick(data, tmp_path / "second", seed=3)
    other = quick(data, tmp_path / "other", seed=4)
    assert weights(first) == weights(second)
    assert weights(first) != weights(other)
    assert (first.path / "trained_on.npy").read_bytes() == (other.path / "trained_on.npy").read_bytes()


def test_the_seed_determines_initial_weights_and_data_order(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds: list[int] = []

    class Spy(DeviceLoader):
        def __init__(self, *given: object) -> None:
            seeds.append(given[3].seed)  # type: ignore[attr-defined]
            super().__init__(*given)  # type: ignore[arg-type]

    monkeypatch.setattr("timebox.jobs.fit.DeviceLoader", Spy)
    still = [*SMALL, "max_lr=1e-6", "policy=constant", "averaging_span=0"]
    heads = [
        quick(data, tmp_path / str(seed), steps=1, seed=seed, settings=still).model.state_dict()["head.weight"]
        for seed in (3, 4)
    ]
    assert seeds == [3, 4]
    assert float((heads[0] - heads[1]).abs().max()) > 0.01


def test_a_download_is_left_out_of_the_clock(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def slowly(*given: object, **more: object) -> LoadedData:
        return replace(load_data(*given, **more), download_seconds=100.0)  # type: ignore[arg-type]

    monkeypatch.setattr("timebox.jobs.data.load_data", slowly)
    began = now()
    deadline = Deadline(None, started_at=began - 100)
    run = quick(data, tmp_path / "run", deadline=deadline)
    elapsed, phases = run.summary["elapsed_seconds"], run.summary["phases"]
    assert run.summary["download_seconds"] == 100.0
    assert isinstance(elapsed, float)
    assert isinstance(phases, dict)
    assert 0 < elapsed <= now() - began, "the download is left out"
    assert sum(phases.values()) == pytest.approx(elapsed, abs=0.05)


def test_auto_accepts_the_settings_of_its_network(data: Path, tmp_path: Path) -> None:
    given = ["width=4", "input_scale=1.25", "crop_padding=1"]
    run = train(data, recipe="auto", settings=given, steps=2, out=tmp_path / "run", device="cpu")
    assert (run.recipe.input_scale, run.recipe.width) == (1.25, 4)
    given = ["input_scale=2", "model=resnet9"]
    with pytest.raises(UsageError, match=r"recipe 'auto': .*input_scale must be 1 for resnet9"):
        train(data, recipe="auto", settings=given, steps=2, out=tmp_path / "other", device="cpu")


def test_auto_in_steps_is_repeatable_too(data: Path, tmp_path: Path) -> None:
    runs = [train(data, steps=2, device="cpu", settings=["width=4"], out=tmp_path / name) for name in ("a", "b")]
    assert weights(runs[0]) == weights(runs[1])
    assert runs[0].summary["recipe"] == runs[1].summary["recipe"]
    assert runs[0].summary["precision"] == "fp32"


class Watching:
    """A reporter that collects phases and notes, and counts steps."""

    def __init__(self) -> None:
        self.phases: list[str] = []
        self.notes: list[str] = []
        self.num_steps = 0

    def phase(self, name: str) -> None:
        self.phases.append(name)

    def note(self, text: str) -> None:
        self.notes.append(text)

    def step(self, status: StepStatus) -> None:
        torch.rand(1)
        self.num_steps += 1


def test_neither_reporter_nor_scoring_changes_the_weights(data: Path, tmp_path: Path) -> None:
    """Equal training images, once with val and test splits and a reporter, once without."""
    watching = Watching()
    plain = quick(data, tmp_path / "plain", val="none", test="none")
    other = save_npz(tmp_path / "other.npz", num_val=60, num_test=30)
    scored = quick(other, tmp_path / "scored", reporter=watching)
    assert weights(plain) == weights(scored)
    assert scored.summary["val_images"] == 60
    assert watching.phases == ["reading", "planning", "training", "saving", "scoring", "saving", "reporting"]
    assert watching.num_steps == 6
    assert watching.notes[0].endswith(
        "class_names, train_images, train_labels, val_images, val_labels, test_images, test_labels"
    )
    assert watching.notes[1:] == scored.summary["plan"]


def test_without_anything_to_score(data: Path, tmp_path: Path) -> None:
    run = quick(data, tmp_path / "run", val="none", test="none")
    assert {path.name for path in run.path.iterdir()} == FILES - {"predictions.npz", "thumbnails.npz"}
    assert (run.val_accuracy, run.test_accuracy) == (None, None)
    assert (run.summary["val_images"], run.summary["test_images_total"]) == (0, 0)


def test_the_hosts_random_and_backend_state_is_restored(data: Path, tmp_path: Path) -> None:
    torch.manual_seed(7)
    random.seed(7)
    flag, threads = torch.backends.cudnn.benchmark, torch.get_num_threads()
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    quick(data, tmp_path / "run")
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before[1:]
    assert torch.backends.cudnn.benchmark is flag
    assert torch.get_num_threads() == threads
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()


@pytest.mark.parametrize("flag", [True, False])
def test_state_is_restored_after_a_failure_too(
    flag: bool, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", flag)
    monkeypatch.setattr("timebox.jobs.fit.train_model", fail)
    before = torch.get_rng_state()
    with pytest.raises(UnforeseenError):
        quick(data, tmp_path / "run")
    assert torch.backends.cudnn.benchmark is flag
    assert torch.equal(torch.get_rng_state(), before)


def test_it_works_in_a_thread(data: Path, tmp_path: Path) -> None:
    runs: list[Run] = []
    thread = threading.Thread(target=lambda: runs.append(quick(data, tmp_path / "run", seed=3)))
    thread.start()
    thread.join(60)
    assert len(runs) == 1
    assert len(runs[0].predict(coloured(4)[0])) == 4
    assert weights(runs[0]) == weights(quick(data, tmp_path / "here", seed=3))


def test_a_test_split_with_a_path_of_its_own(data: Path, tmp_path: Path) -> None:
    names = ("blue", "red", "green")
    rng_images, rng_labels = coloured(30, side=12, seed=9)
    shuffled = np.array([1, 2, 0])[rng_labels]
    np.savez(tmp_path / "elsewhere.npz", images=rng_images, labels=shuffled, class_names=np.array(names))
    run = quick(data, tmp_path / "run", steps=40, val="none", test=str(tmp_path / "elsewhere.npz"))
    assert run.summary["test_images"] == 30
    assert run.test_accuracy is not None
    assert run.test_accuracy > 0.9, "classes are matched by name, images by size"


def test_validation_on_the_rest(data: Path, tmp_path: Path) -> None:
    run = quick(data, tmp_path / "run", train_limit=60, val="rest")
    assert (run.summary["train_images"], run.summary["val_images"]) == (60, 90)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"budget": "10s", "steps": 3},
            "budget and steps exclude each other: give budget for a deadline or steps for a count",
        ),
        ({}, 'say how long to train, for instance budget="10m" (or steps=1000 to count steps instead)'),
        ({"steps": 0}, "steps 0 must be a whole number of at least 1"),
        ({"steps": 3, "precision": "fp8"}, "precision 'fp8' must be one of auto, fp32, bf16, fp16"),
        ({"steps": 3, "device": "tpu"}, "device 'tpu' must be one of auto, cpu, cuda; did you mean 'cpu'?"),
        ({"steps": 3, "seed": -1}, "seed -1 must be a whole number of at least 0"),
        ({"steps": 3, "seed": 2**64}, "seed 18446744073709551616 must be a whole number of at least 0, below 2**63"),
        ({"steps": 3, "split_seed": -2}, "split_seed -2 must be a whole number of at least 0"),
        (
            {"steps": 3, "recipe": "haet2022"},
            "recipe 'haet2022' is unknown; did you mean 'haet2021'? use one of auto, haet2021, dawnbench, airbench94, "
            "superconvergence, adamw, or a file that ends in .toml",
        ),
        (
            {"steps": 3, "settings": ["lr=1"]},
            "settings: unknown field 'lr'; `timebox recipes haet2021` shows all fields",
        ),
        (
            {"steps": 3, "recipe": "haet2021", "settings": ["peak_at=0.9"]},
            "recipe 'haet2021': peak_at 0.9 must be below down_at 0.85",
        ),
    ],
)
def test_wrong_options_are_refused_before_data_are_read(
    given: dict[str, object], message: str, tmp_path: Path, files_under: Listing
) -> None:
    with pytest.raises(UsageError) as caught:
        train(tmp_path / "missing.npz", out=tmp_path / "run", **given)  # type: ignore[arg-type]
    assert str(caught.value) == message
    assert files_under() == []


@pytest.mark.parametrize("budget", ["0.1s", 0.01])
def test_a_budget_too_short_names_one_that_works(budget: str | float, tmp_path: Path, files_under: Listing) -> None:
    words = r"^budget \d\.\ds is too short: reading 'digits' and planning took .*s, and 10 steps take about .*s here; "
    with pytest.raises(BudgetError, match=words + r"use at least \d+s$") as refused:
        train("digits", budget=budget, out=tmp_path / "run", device="cpu")
    assert files_under() == []
    smallest = refused.value.smallest_seconds
    assert smallest is not None
    assert str(refused.value).endswith(f"use at least {smallest}s")
    assert train("digits", budget=smallest, out=tmp_path / "run", device="cpu").summary["late"] is False


def test_a_budget_too_short_for_the_data_leaves_nothing(data: Path, tmp_path: Path, files_under: Listing) -> None:
    deadline = Deadline(5.0, started_at=Deadline(None).started_at - 4.9)
    with pytest.raises(BudgetError, match=r"^budget 5.0s is too short: reading '.*colours.npz' and planning took "):
        train(data, deadline=deadline, out=tmp_path / "run", device="cpu", settings=SMALL, recipe="haet2021")
    assert files_under() == []


def test_tiny_images_are_refused_and_can_be_enlarged(tmp_path: Path, files_under: Listing) -> None:
    images, labels = coloured(60, side=5)
    np.savez(tmp_path / "tiny.npz", images=images, labels=labels)
    with pytest.raises(UsageError) as caught:
        quick(tmp_path / "tiny.npz", tmp_path / "run")
    assert str(caught.value) == (
        "images of 5x5 pixels are too small: both sides must be 8 to 4096; use "
        'settings=["image_size=8"] to have them scaled'
    )
    assert files_under() == ["tiny.npz"]
    run = quick(tmp_path / "tiny.npz", tmp_path / "run", settings=[*SMALL, "image_size=8"])
    assert run.preprocessing.image_shape == (8, 8, 3)


def test_images_that_are_not_square(tmp_path: Path) -> None:
    images, labels = coloured(60, side=8)
    np.savez(tmp_path / "wide.npz", images=np.concatenate([images, images], 2), labels=labels)
    run = quick(tmp_path / "wide.npz", tmp_path / "run")
    assert run.preprocessing.image_shape == (8, 16, 3)
    assert len(load(run.path).predict(images)) == 60


@pytest.mark.parametrize("channels", [1, 4])
def test_grey_images_and_images_with_alpha(channels: int, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8, channels), dtype=np.uint8)
    np.savez(tmp_path / "data.npz", images=images, labels=np.arange(40) % 2)
    run = quick(tmp_path / "data.npz", tmp_path / "run")
    assert run.predict_proba(images).shape == (40, 2)


def test_a_constant_channel(tmp_path: Path) -> None:
    images, labels = coloured(60)
    images[..., 2] = 17
    np.savez(tmp_path / "data.npz", images=images, labels=labels)
    run = quick(tmp_path / "data.npz", tmp_path / "run")
    assert np.isfinite(run.predict_proba(images)).all()


def test_missing_data_leave_nothing(tmp_path: Path, files_under: Listing) -> None:
    with pytest.raises(DataError):
        quick(tmp_path / "missing", tmp_path / "run")
    assert files_under() == []


@pytest.mark.integration
def test_a_real_budget_is_kept(data: Path, tmp_path: Path) -> None:
    def trained_in(seconds: float) -> Run:
        return train(data, budget=seconds, out=tmp_path / "run", device="cpu", settings=["width=4"], test=0.2)

    run, budget = within_budget(trained_in, 8.0)
    summary = run.summary
    assert summary["late"] is False
    assert summary["budget_seconds"] == budget
    assert float(str(summary["elapsed_seconds"])) <= budget
    assert summary["final_lr"] == 0.0
    phases = summary["phases"]
    assert isinstance(phases, dict)
    assert sum(phases.values()) == pytest.approx(summary["elapsed_seconds"], abs=0.05)
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    progress = [line["progress"] for line in lines if "loss" in line]
    assert progress == sorted(set(progress))
    assert progress[-1] == 1.0
    assert summary["steps"] == len(progress) > 0


def test_checkpoints_continue_after_the_first_where_steps_are_counted(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []
    real = RunWriter.save_checkpoint

    def save(self: RunWriter, snapshot: Snapshot, config: Mapping[str, object]) -> None:
        real(self, snapshot, config)
        written.append(snapshot.step)

    monkeypatch.setattr(RunWriter, "save_checkpoint", save)
    monkeypatch.setattr(checkpointer, "INTERVAL_SECONDS", 0.0)
    monkeypatch.setattr(checkpointer, "INTERVAL_COSTS", 0.0)
    quick(data, tmp_path / "out", steps=40)
    assert len(written) > 2
    assert written == sorted(written)


def test_scored_images_among_the_training_images_are_reported(tmp_path: Path) -> None:
    images, labels = coloured(90)
    np.savez(
        tmp_path / "a.npz", train_images=images, train_labels=labels, test_images=images[:30], test_labels=labels[:30]
    )
    watching = Watching()
    quick(tmp_path / "a.npz", tmp_path / "run", reporter=watching, val="none")
    assert "30 of 30 images of test are training images too, pixel for pixel" in watching.notes
