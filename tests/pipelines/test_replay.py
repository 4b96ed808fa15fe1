"""timebox.train(replay=…): repeating a finished run."""

import itertools
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from cut_runs import STEPS, cut, entries, names, summary
from small_runs import FILES, SMALL, quick, weights
from timebox.errors import RunError, UsageError
from timebox.jobs.fit import Training
from timebox.pipelines import train
from timebox.run import Run
from timebox.runtime.thread_tuner import ThreadTuner
from timebox.training import step as steps


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """An uninterrupted run. Tests must not write to it."""
    return quick(data, tmp_path_factory.mktemp("whole") / "run", steps=STEPS)


def test_a_replay_gives_identical_weights(whole: Run, tmp_path: Path) -> None:
    again = train(replay=whole.path, out=tmp_path / "again")
    assert weights(again) == weights(whole)
    assert names(again.path) == FILES
    done = summary(again)
    assert (done["replay_of"], done["identical"]) == (str(whole.path), True)
    for name in ("val_accuracy", "steps", "seed", "recipe", "precision"):
        assert done[name] == summary(whole)[name]


def test_progressive_resizing_is_replayed_at_the_same_resolutions(data: Path, tmp_path: Path) -> None:
    settings = (*SMALL, "image_size=16", "start_size=0.5", "full_size_at=0.6")
    run = quick(data, tmp_path / "run", STEPS, settings=settings)
    sizes = [entry["resolution"] for entry in entries(run.path) if "loss" in entry]
    assert sizes == sorted(sizes)
    assert (sizes[0], sizes[-1]) == (8, 16)
    assert summary(train(replay=run.path, out=tmp_path / "again"))["identical"] is True


@pytest.mark.endurance
def test_steps_are_replayed_with_the_threads_they_had(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one thread and with two, the sums of a gradient are rounded otherwise."""
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(ThreadTuner, "next", lambda self, steps_left: 1 + steps_left % 2)
    run = train(data, budget=10, out=tmp_path / "run", recipe="haet2021", settings=SMALL, precision="fp32")
    threads = [entry["threads"] for entry in entries(run.path) if "loss" in entry]
    assert set(threads) == {1, 2}
    assert torch.get_num_threads() == summary(run)["threads"] == 1, "restored"
    monkeypatch.undo()
    assert summary(train(replay=run.path, out=tmp_path / "again"))["identical"] is True


def test_an_ensemble_is_replayed_and_loaded(data: Path, tmp_path: Path) -> None:
    run = quick(data, tmp_path / "run", STEPS, settings=(*SMALL, "ensemble_size=3"))
    assert summary(train(replay=run.path, out=tmp_path / "again"))["identical"] is True
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    assert run.predict_proba(images).sum(1) == pytest.approx([1.0] * 4)


def test_a_replay_follows_the_recorded_learning_rates(whole: Run, tmp_path: Path) -> None:
    """Not those of the recipe: a changed learning rate in metrics.jsonl gives other weights."""
    copy = tmp_path / "copy"
    shutil.copytree(whole.path, copy)
    path = copy / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[5]["lr"] *= 1.01
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    told: list[str] = []
    again = train(replay=copy, out=tmp_path / "again", reporter=Notes(told))
    assert summary(again)["identical"] is False
    assert weights(again) != weights(whole)
    assert told[-1] == f"the weights are NOT identical to those of {str(copy)!r}"


class Notes:
    """A reporter that collects the notes."""

    def __init__(self, told: list[str]) -> None:
        self._told = told

    def phase(self, name: str) -> None:
        pass

    def note(self, text: str) -> None:
        self._told.append(text)

    def step(self, status: object) -> None:
        pass


def test_a_run_with_rollbacks_is_replayed(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("timebox.jobs.fit.SNAPSHOT_STEPS", 2)
    original, count = steps.training_step, 0

    def faulty(*rest: object) -> Tensor:
        nonlocal count
        count += 1
        loss = original(*rest)  # type: ignore[arg-type]
        return loss * float("nan") if count in (4, 9) else loss

    with monkeypatch.context() as patch:
        patch.setattr(steps, "training_step", faulty)
        run = quick(data, tmp_path / "run", STEPS)
    events = summary(run)["events"]
    assert isinstance(events, list)
    assert len(events) == 2
    assert summary(run)["steps"] == STEPS
    assert summary(train(replay=run.path, out=tmp_path / "again"))["identical"] is True


def test_a_run_that_ran_out_of_memory_is_replayed_in_the_same_micro_batches(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = steps.training_step

    def cramped(*rest: object) -> Tensor:
        if rest[-1] == 32:
            raise MemoryError
        return original(*rest)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(steps, "training_step", cramped)
        run = quick(data, tmp_path / "run", STEPS)
    assert summary(run)["events"] == ["memory ran out: batches of 32 are computed in micro-batches of 16 images"]
    assert {e["micro_batch"] for e in entries(run.path) if "loss" in e} == {16}
    assert summary(train(replay=run.path, out=tmp_path / "again"))["identical"] is True


@pytest.mark.parametrize("span", ["0", "0.1"])
def test_a_run_whose_last_step_was_aborted_is_replayed(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, span: str
) -> None:
    """Its report and its chart are made as those of any run."""
    readings = itertools.count()
    with monkeypatch.context() as patch:
        patch.setattr(Training, "_seconds_left", lambda self, share=0.0: 1.0 if next(readings) < 150 else -1.0)
        run = quick(data, tmp_path / "run", STEPS, settings=(*SMALL, f"averaging_span={span}"))
    done = int(str(summary(run)["steps"]))
    assert 1 < done < STEPS
    assert names(run.path) == FILES
    (event,) = summary(run)["events"]  # type: ignore[misc]
    assert re.fullmatch(
        rf"time ran out in step {done + 1}, which was aborted: the training ended at \d+% of its schedule, with a "
        r"learning rate of [0-9.e-]+",
        event,
    )
    assert entries(run.path)[-1] == {"step": done, "aborted": True}
    again = train(replay=run.path, out=tmp_path / "again")
    assert summary(again)["identical"] is True
    assert summary(again)["final_lr"] == summary(run)["final_lr"]


@pytest.mark.parametrize(
    ("part", "key", "value", "words"),
    [
        ("machine", "threads", 7, "threads 7 there, 1 here"),
        ("machine", "instructions", "AVX9", "instructions 'AVX9' there"),
        ("versions", "torch", "1.0", "torch '1.0' there"),
    ],
)
def test_a_replay_on_another_machine_or_version_is_refused(
    whole: Run, tmp_path: Path, part: str, key: str, value: object, words: str
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(whole.path, copy)
    config = json.loads((copy / "model.json").read_text())
    config[part][key] = value
    (copy / "model.json").write_text(json.dumps(config))
    with pytest.raises(RunError, match=f"cannot be repeated here: {re.escape(words)}"):
        train(replay=copy, out=tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_a_replay_with_another_thread_count_is_refused(
    whole: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    with pytest.raises(RunError, match=r"cannot be repeated here: threads 1 there, 3 here$"):
        train(replay=whole.path, out=tmp_path / "again")


@pytest.mark.parametrize("threads", [100_000, 2**62])
def test_more_threads_than_there_are_processors_are_refused(whole: Run, tmp_path: Path, threads: int) -> None:
    """A number in a file of somebody else starts no hundred thousand threads."""
    copy = tmp_path / "copy"
    shutil.copytree(whole.path, copy)
    lines = [json.loads(line) for line in (copy / "metrics.jsonl").read_text().splitlines()]
    lines[5]["threads"] = threads
    (copy / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(RunError, match=f"some of its steps had {threads:,} threads, and [0-9]+ are available"):
        train(replay=copy, out=tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_an_unfinished_run_is_not_replayed(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    cut(3, KeyboardInterrupt, quick, data, out, STEPS)
    with pytest.raises(RunError, match="is not finished: resume it first, then replay it"):
        train(replay=out, out=tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_resume_and_replay_exclude_each_other(whole: Run) -> None:
    with pytest.raises(UsageError, match="replay cannot be given with resume"):
        train(resume=whole.path, replay=whole.path)
