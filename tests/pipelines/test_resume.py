"""timebox.train(resume=…): continuing a stopped run."""

import json
import os
import re
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

from budgets import smallest_named, within_budget
from cut_runs import STEPS, KilledError, cut, entries, names, summary
from small_runs import FILES, SMALL, quick, save_npz, weights
from timebox.clock import Deadline
from timebox.errors import BudgetError, DataError, RunError, TimeboxError, UsageError
from timebox.pipelines import train
from timebox.run import Run, load
from timebox.run.writer import RunWriter
from timebox.training import checkpointer as checkpointer
from timebox.training import step as steps

PARTLY = {"metrics.jsonl", "model.json", "trained_on.npy", "summary.json", "checkpoint"}


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """An uninterrupted run. Tests must not write to it."""
    return quick(data, tmp_path_factory.mktemp("whole") / "run", steps=STEPS)


@pytest.mark.parametrize("step", [1, 2, 5, 8, STEPS])
def test_a_stopped_and_resumed_run_equals_an_uninterrupted_one(
    step: int, data: Path, tmp_path: Path, whole: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("timebox.jobs.fit.SNAPSHOT_STEPS", 3)
    out = tmp_path / "run"
    stopped = cut(step, KeyboardInterrupt, quick, data, out, STEPS)
    assert stopped.path == out
    assert summary(stopped)["stopped"] is True
    assert names(out) == PARTLY
    resumed = train(resume=out)
    assert weights(resumed) == weights(whole)
    assert names(out) == FILES
    assert "stopped" not in summary(resumed)
    kept = 3 * ((step - 1) // 3)
    assert summary(resumed)["resumed_at_step"] == max(kept, 1 if step > 1 else 0)
    same = ("loss", "step", "progress", "lr", "momentum", "val_accuracy", "epoch")
    assert [{k: e[k] for k in same if k in e} for e in entries(out)] == [
        {k: e[k] for k in same if k in e} for e in entries(whole.path)
    ]
    assert (out / "predictions.npz").read_bytes() == (whole.path / "predictions.npz").read_bytes()


def test_a_run_stopped_several_times_equals_an_uninterrupted_one(
    data: Path, tmp_path: Path, whole: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("timebox.jobs.fit.SNAPSHOT_STEPS", 2)
    out = tmp_path / "run"
    cut(4, KeyboardInterrupt, quick, data, out, STEPS)
    for step in (1, 4, 3):
        stopped = cut(step, KeyboardInterrupt, train, resume=out)
        assert summary(stopped)["stopped"] is True
    assert weights(train(resume=out)) == weights(whole)
    assert [e["step"] for e in entries(out) if "loss" in e] == list(range(1, STEPS + 1))
    assert summary(train(replay=out, out=tmp_path / "again"))["identical"] is True


def test_a_stopped_run_can_predict(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("timebox.jobs.fit.SNAPSHOT_STEPS", 5)
    out = tmp_path / "run"
    cut(23, KeyboardInterrupt, quick, data, out, 30)
    run = load(out)
    images = torch.zeros(2, 8, 8, 3, dtype=torch.uint8).numpy()
    probabilities = run.predict_proba(images)
    assert probabilities.shape == (2, 3)
    assert run.val_accuracy is None
    assert run.checkpoint().step == 20


def test_an_interruption_before_training_leaves_nothing(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*rest: object, **more: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("timebox.jobs.job.make_plan", interrupt)
    with pytest.raises(KeyboardInterrupt):
        quick(data, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_checkpoint_stays_after_any_other_error(data: Path, tmp_path: Path, whole: Run) -> None:
    out = tmp_path / "run"
    with pytest.raises(KilledError):
        cut(9, KilledError, quick, data, out, STEPS)
    assert names(out) == PARTLY - {"summary.json"}
    assert weights(train(resume=out)) == weights(whole)


def test_an_interruption_while_scoring_can_be_resumed(
    data: Path, tmp_path: Path, whole: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*rest: object, **more: object) -> None:
        raise KeyboardInterrupt

    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr("timebox.jobs.finishing.finisher.score_held_out", interrupt)
        stopped = quick(data, out, STEPS)
    assert summary(stopped)["stopped"] is True
    assert weights(stopped) == weights(whole), "the model was trained to its end"
    resumed = train(resume=out)
    assert weights(resumed) == weights(whole)
    assert names(out) == FILES


def test_an_interruption_without_any_checkpoint_leaves_nothing(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*rest: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("timebox.run.writer.write_checkpoint", fail)
    with pytest.raises(KeyboardInterrupt):
        cut(5, KeyboardInterrupt, quick, data, tmp_path / "run", STEPS)
    assert not (tmp_path / "run").exists(), "nothing could be kept"


def test_a_finished_run_is_not_resumed(whole: Run) -> None:
    before = {path: path.read_bytes() for path in whole.path.iterdir()}
    expected = f"run {str(whole.path)!r} is finished: there is nothing to resume"
    with pytest.raises(RunError, match=re.escape(expected)):
        train(resume=whole.path)
    assert {path: path.read_bytes() for path in whole.path.iterdir()} == before


def test_a_run_that_counts_steps_takes_no_budget(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    cut(3, KeyboardInterrupt, quick, data, out, STEPS)
    with pytest.raises(UsageError, match="counts steps: resume it without a budget"):
        train(resume=out, budget=20)


@pytest.mark.parametrize("given", [{"steps": 5}, {"seed": 1}, {"settings": SMALL}, {"out": "elsewhere"}, {"val": 0.5}])
def test_the_options_of_the_run_cannot_be_changed(whole: Run, given: dict[str, object]) -> None:
    (name,) = given
    with pytest.raises(UsageError, match=f"^{name} cannot be given with resume: all of that is the run's own"):
        train(resume=whole.path, **given)  # type: ignore[arg-type]


def test_a_missing_run_or_checkpoint_is_refused(tmp_path: Path, data: Path) -> None:
    with pytest.raises(RunError, match="does not exist"):
        train(resume=tmp_path / "nowhere")
    out = tmp_path / "run"
    cut(3, KeyboardInterrupt, quick, data, out, STEPS)
    shutil.rmtree(out / "checkpoint")
    with pytest.raises(RunError, match="ended before a model was saved: nothing can be loaded from it"):
        train(resume=out)


def test_other_data_are_refused_and_moved_data_are_accepted(
    tmp_path: Path, whole: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, out = save_npz(tmp_path / "colours.npz"), tmp_path / "run"
    cut(3, KeyboardInterrupt, quick, data, out, STEPS)
    moved = data.rename(tmp_path / "moved.npz")
    with pytest.raises(DataError):
        train(resume=out)
    other = save_npz(tmp_path / "other.npz", num=151)
    with pytest.raises(DataError, match=r"does not hold the 8x8 training images that run .* was trained on"):
        train(resume=out, data=other)
    assert summary(Run(out))["stopped"] is True, "a refusal changes nothing"
    assert weights(train(resume=out, data=moved)) == weights(whole)


@pytest.mark.parametrize(
    "facts",
    [
        {"lr_factor": -1.0},
        {"lr_factor": float("1e999")},
        {"micro_batch": 0},
        {"micro_batch": -5},
        {"micro_batch": True},
        {"micro_batch": None},
        {"lr_factor": "half"},
    ],
)
def test_a_checkpoint_with_facts_out_of_range_is_refused(facts: dict[str, object], data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    cut(3, KeyboardInterrupt, quick, data, out, STEPS)
    path = out / "checkpoint" / "manifest.json"
    manifest = json.loads(path.read_text())
    path.write_text(
        json.dumps({**manifest, "training_state": {**manifest["training_state"], **facts}}).replace("Infinity", "1e999")
    )
    with pytest.raises(
        RunError, match=r"training_state in .* is damaged: (object missing required field|expected) |no number of JSON"
    ):
        train(resume=out)
    assert (out / "checkpoint").is_dir()


def test_a_damaged_checkpoint_is_refused_and_kept(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    cut(3, KeyboardInterrupt, quick, data, out, STEPS)
    (tensors,) = (out / "checkpoint").glob("*.safetensors")
    tensors.write_bytes(tensors.read_bytes()[:-1])
    for attempt in (lambda: train(resume=out), lambda: load(out)):
        with pytest.raises(RunError, match=r"\.safetensors' cannot be read: it is truncated: "):
            attempt()
    assert tensors.exists()


def test_a_run_killed_after_its_last_step_is_completed(
    data: Path, tmp_path: Path, whole: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its last checkpoint is at the end of the schedule: no step is left."""

    def killed(*rest: object) -> None:
        raise KilledError

    out = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("timebox.jobs.fit.SNAPSHOT_STEPS", 1)
        patch.setattr(
            checkpointer.AsyncCheckpointer, "is_due", lambda self: self.wait(float("inf"))
        )  # after every step
        patch.setattr(RunWriter, "save_model", killed)
        with pytest.raises(KilledError):
            quick(data, out, STEPS)
    resumed = train(resume=out)
    assert weights(resumed) == weights(whole)
    assert summary(resumed)["resumed_at_step"] == summary(resumed)["steps"] == STEPS
    assert summary(resumed)["final_lr"] == summary(whole)["final_lr"] == 0.0


class Clock:
    """A simulated clock: tests advance it, and two_second_steps by two seconds per training step."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def two_second_steps(clock: Clock, patch: pytest.MonkeyPatch) -> None:
    original = steps.training_step

    def step(*rest: object) -> Tensor:
        clock.seconds += 2.0
        return original(*rest)  # type: ignore[arg-type]

    patch.setattr(steps, "training_step", step)


def on_the_clock(data: Path, out: Path, deadline: Deadline) -> Run:
    return train(
        data,
        deadline=deadline,
        out=out,
        recipe="haet2021",
        settings=SMALL,
        device="cpu",
        precision="fp32",
        val="none",
        test="none",
    )


@pytest.fixture
def stopped_late(data: Path, tmp_path: Path) -> Path:
    """A run with a budget of 600 s, stopped after 300 s of reading and 200 s of planning by the simulated clock."""
    clock, out = Clock(), tmp_path / "late"
    deadline = Deadline(600.0, now=clock)
    with deadline.phase("reading"):
        clock.seconds += 300.0
    with deadline.phase("planning"):
        clock.seconds += 200.0
    cut(5, KeyboardInterrupt, on_the_clock, data, out, deadline)
    return out


def test_time_before_the_stop_counts_and_the_gap_does_not(stopped_late: Path) -> None:
    clock = Clock()
    clock.seconds = 1e6
    deadline = Deadline(None, now=clock)
    phases = json.loads((stopped_late / "checkpoint" / "manifest.json").read_text())["training_state"]["phases"]
    clock.seconds += 5.0  # the new start-up counts
    before = sum(phases.values())
    assert before == 500

    class EnoughError(Exception):
        pass

    def enough(*rest: object) -> None:
        assert deadline.budget_seconds == 600.0
        assert deadline.elapsed() == before + 5
        spent = deadline.phases_so_far()
        assert (spent["reading"], spent["planning"], spent["start-up"]) == (300, 200, 5)
        assert sum(spent.values()) == deadline.elapsed()
        raise EnoughError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steps, "training_step", enough)
        with pytest.raises(EnoughError):
            train(resume=stopped_late, deadline=deadline)


def test_a_resumed_run_ends_in_time(stopped_late: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    deadline = Deadline(None, now=clock)
    clock.seconds += 6.0
    two_second_steps(clock, monkeypatch)
    run = train(resume=stopped_late, deadline=deadline)
    done = summary(run)
    assert done["late"] is False
    assert done["budget_seconds"] == 600.0
    assert 520 < float(str(done["elapsed_seconds"])) <= 600
    assert done["final_lr"] == 0.0
    progress = [float(str(e["progress"])) for e in entries(run.path) if "loss" in e]
    assert progress == sorted(progress)
    assert progress[-1] == 1.0
    assert summary(train(replay=run.path, out=run.path.parent / "again"))["identical"] is True


@pytest.mark.integration
def test_too_little_time_is_refused_with_a_budget_that_works(stopped_late: Path) -> None:
    manifest = stopped_late / "checkpoint" / "manifest.json"
    values = json.loads(manifest.read_text())
    values["training_state"]["phases"]["planning"] += 99.9
    manifest.write_text(json.dumps(values))
    deadline = Deadline(None, now=Clock())
    with pytest.raises(BudgetError, match=r"s left of 10m are too short.*; give a new budget of at least \d+s$") as no:
        train(resume=stopped_late, deadline=deadline)
    assert manifest.is_file()
    copied = shutil.copytree(stopped_late, stopped_late.parent / "copied")
    run, _ = within_budget(lambda budget: train(resume=copied, budget=budget), smallest_named(str(no.value)))
    assert run.summary["late"] is False, "a budget as large as that works"
    assert load(stopped_late).predict_proba(torch.zeros(1, 8, 8, 3, dtype=torch.uint8).numpy()).shape == (1, 3)


@pytest.mark.integration
def test_a_new_budget_is_a_new_clock(stopped_late: Path) -> None:
    run, budget = within_budget(lambda seconds: train(resume=stopped_late, budget=seconds), 12.0)
    done = summary(run)
    assert (done["late"], done["budget_seconds"]) == (False, budget)
    assert float(str(done["elapsed_seconds"])) <= budget, "the time used before the stop does not count"
    phases = done["phases"]
    assert isinstance(phases, dict)
    assert "reading" in phases


def test_a_training_that_keeps_diverging_keeps_its_last_finite_state(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, count = steps.training_step, 0

    def faulty(*rest: object) -> Tensor:
        nonlocal count
        count += 1
        loss = original(*rest)  # type: ignore[arg-type]
        return loss * float("nan") if count > 5 else loss

    monkeypatch.setattr(steps, "training_step", faulty)
    with pytest.raises(TimeboxError, match=r"^the loss became nan at a learning rate of .* at step \d+, and again"):
        quick(data, tmp_path / "run", STEPS)
    monkeypatch.setattr(steps, "training_step", original)
    assert load(tmp_path / "run").checkpoint().step >= 0


def test_a_run_is_resumed_with_its_planned_thread_count(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("timebox.jobs.fit.SNAPSHOT_STEPS", 2)
    out, before = tmp_path / "run", torch.get_num_threads()
    cut(5, KeyboardInterrupt, quick, data, out, STEPS)
    config = json.loads((out / "model.json").read_text())
    assert config["plan"]["threads"] == config["machine"]["threads"] == before
    torch.set_num_threads(before + 1)
    try:
        train(resume=out)
        assert torch.get_num_threads() == before + 1, "the host's thread count is restored"
    finally:
        torch.set_num_threads(before)
    assert summary(load(out))["threads"] == before
    assert not summary(load(out))["trained_on_other_machine"]


def test_a_plan_of_fewer_steps_than_the_checkpoint_has_is_refused(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("timebox.jobs.fit.SNAPSHOT_STEPS", 2)
    out = tmp_path / "run"
    cut(5, KeyboardInterrupt, quick, data, out, STEPS)
    config = json.loads((out / "model.json").read_text())
    config["plan"]["num_steps"] = 2
    (out / "model.json").write_text(json.dumps(config))
    step = json.loads((out / "checkpoint" / "manifest.json").read_text())["step"]
    assert step > 2
    with pytest.raises(RunError) as refused:
        train(resume=out)
    assert str(refused.value) == (
        f"run {str(out)!r} cannot be resumed: its plan has 2 steps, and its checkpoint is at step {step}: one of the "
        "two files was changed; train anew"
    )


@pytest.mark.parametrize("name", ["metrics.jsonl", "checkpoint/manifest.json", "model.json"])
def test_pipes_in_a_stopped_run_are_refused(name: str, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    cut(5, KeyboardInterrupt, quick, data, out, STEPS)
    (out / name).unlink()
    os.mkfifo(out / name)
    with pytest.raises(TimeboxError, match=str(out)):
        train(resume=out)
