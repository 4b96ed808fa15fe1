"""Going on with a run that was cut off, and repeating one that was finished."""

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from timebox.clock import Deadline, now
from timebox.engine import loop
from timebox.errors import BudgetError, DataError, RunError, TimeboxError, UsageError
from timebox.run import Run, load, train

from .conftest import FILES, SMALL, quick, save_npz, weights

STEPS = 12
Cut = Callable[..., Run]
PARTLY = {"metrics.jsonl", "model.json", "trained_on.npy", "summary.json", "checkpoint"}


class KilledError(BaseException):
    """The process was killed: nothing is tidied up, as far as that can be had inside one process."""


@pytest.fixture
def cut(monkeypatch: pytest.MonkeyPatch) -> Cut:
    """cut(step, error, train, ...) -> what a training comes to in which ``error`` is raised inside ``step``."""

    def run(step: int, error: type[BaseException], begin: Callable[..., Run], *given: object, **more: object) -> Run:
        original, count = loop.training_step, 0

        def step_or_end(*rest: object) -> Tensor:
            nonlocal count
            count += 1
            loss = original(*rest)  # type: ignore[arg-type]
            if count == step:
                raise error
            return loss

        with monkeypatch.context() as patch:
            patch.setattr(loop, "training_step", step_or_end)
            return begin(*given, **more)

    return run


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that nothing interrupted. Not to be written to."""
    return quick(data, tmp_path_factory.mktemp("whole") / "run", steps=STEPS)


def summary(run: Run) -> dict[str, object]:
    return json.loads((run.path / "summary.json").read_text())


def entries(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


def names(path: Path) -> set[str]:
    return {file.name for file in path.iterdir()}


@pytest.mark.parametrize("step", [1, 2, 5, 8, STEPS])
def test_a_run_that_was_stopped_and_resumed_is_the_one_that_was_not(
    step: int, cut: Cut, data: Path, tmp_path: Path, whole: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("timebox.run.training.SNAPSHOT_STEPS", 3)
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


def test_a_run_that_was_stopped_again_and_again(
    cut: Cut, data: Path, tmp_path: Path, whole: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("timebox.run.training.SNAPSHOT_STEPS", 2)
    out = tmp_path / "run"
    cut(4, KeyboardInterrupt, quick, data, out, STEPS)
    for step in (1, 4, 3):
        stopped = cut(step, KeyboardInterrupt, train, resume=out)
        assert summary(stopped)["stopped"] is True
    assert weights(train(resume=out)) == weights(whole)
    assert [e["step"] for e in entries(out) if "loss" in e] == list(range(1, STEPS + 1))
    assert summary(train(replay=out, out=tmp_path / "again"))["identical"] is True


def test_what_was_stopped_can_be_used(cut: Cut, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("timebox.run.training.SNAPSHOT_STEPS", 5)
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

    monkeypatch.setattr(sys.modules["timebox.run.train"], "make_plan", interrupt)
    with pytest.raises(KeyboardInterrupt):
        quick(data, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_whatever_else_goes_wrong_after_a_checkpoint_it_stays(cut: Cut, data: Path, tmp_path: Path, whole: Run) -> None:
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
        patch.setattr("timebox.run.task.Task.score", interrupt)
        stopped = quick(data, out, STEPS)
    assert summary(stopped)["stopped"] is True
    assert weights(stopped) == weights(whole), "the model was trained to its end"
    resumed = train(resume=out)
    assert weights(resumed) == weights(whole)
    assert names(out) == FILES


def test_an_interruption_with_a_full_disk_says_so(
    cut: Cut, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*rest: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("timebox.run.directory.write_checkpoint", fail)
    with pytest.raises(KeyboardInterrupt):
        cut(5, KeyboardInterrupt, quick, data, tmp_path / "run", STEPS)
    assert not (tmp_path / "run").exists(), "nothing could be kept"


def test_a_finished_run_is_not_resumed(whole: Run) -> None:
    before = {path: path.read_bytes() for path in whole.path.iterdir()}
    expected = f"run {str(whole.path)!r} is finished: there is nothing to resume"
    with pytest.raises(RunError, match=re.escape(expected)):
        train(resume=whole.path)
    assert {path: path.read_bytes() for path in whole.path.iterdir()} == before


def test_a_run_that_counts_steps_takes_no_budget(cut: Cut, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    cut(3, KeyboardInterrupt, quick, data, out, STEPS)
    with pytest.raises(UsageError, match="counts steps: resume it without a budget"):
        train(resume=out, budget=20)


@pytest.mark.parametrize("given", [{"steps": 5}, {"seed": 1}, {"settings": SMALL}, {"out": "elsewhere"}, {"val": 0.5}])
def test_what_is_the_runs_own_cannot_be_given_anew(whole: Run, given: dict[str, object]) -> None:
    (name,) = given
    with pytest.raises(UsageError, match=f"^{name} cannot be given with resume: all of that is the run's own"):
        train(resume=whole.path, **given)  # type: ignore[arg-type]


def test_nothing_to_resume(tmp_path: Path, cut: Cut, data: Path) -> None:
    with pytest.raises(RunError, match="does not exist"):
        train(resume=tmp_path / "nowhere")
    out = tmp_path / "run"
    cut(3, KeyboardInterrupt, quick, data, out, STEPS)
    shutil.rmtree(out / "checkpoint")
    with pytest.raises(RunError, match="ended before a model was saved: nothing can be loaded from it"):
        train(resume=out)


def test_other_data_are_refused_and_the_same_elsewhere_are_not(
    cut: Cut, tmp_path: Path, whole: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, out = save_npz(tmp_path / "colours.npz"), tmp_path / "run"
    cut(3, KeyboardInterrupt, quick, data, out, STEPS)
    moved = data.rename(tmp_path / "moved.npz")
    with pytest.raises(DataError):
        train(resume=out)
    other = save_npz(tmp_path / "other.npz", num=151)
    with pytest.raises(DataError, match="does not hold the 8x8 training images that run .* was begun with"):
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
def test_a_checkpoint_with_facts_that_cannot_be_is_refused(
    facts: dict[str, object], cut: Cut, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    cut(3, KeyboardInterrupt, quick, data, out, STEPS)
    path = out / "checkpoint" / "manifest.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps({**manifest, "facts": {**manifest["facts"], **facts}}).replace("Infinity", "1e999"))
    with pytest.raises(RunError, match="is damaged: its rate or the size of its parts cannot be"):
        train(resume=out)
    assert (out / "checkpoint").is_dir()


def test_a_damaged_checkpoint_is_refused_and_kept(cut: Cut, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    cut(3, KeyboardInterrupt, quick, data, out, STEPS)
    (tensors,) = (out / "checkpoint").glob("*.safetensors")
    tensors.write_bytes(tensors.read_bytes()[:-1])
    for attempt in (lambda: train(resume=out), lambda: load(out)):
        with pytest.raises(RunError, match="its checksum is not the one in manifest.json"):
            attempt()
    assert tensors.exists()


# On a clock


class Clock:
    """A clock that the test may set forward."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return now() + self.ahead


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
def stopped_late(cut: Cut, data: Path, tmp_path: Path) -> Path:
    """A run of a minute, stopped when 50 s of it had been used up: 30 s in reading, as far as the clock knows."""
    clock, out = Clock(), tmp_path / "late"
    deadline = Deadline(60.0, now=clock)
    with deadline.phase("reading"):
        clock.ahead += 30.0
    with deadline.phase("planning"):
        clock.ahead += 20.0
    cut(5, KeyboardInterrupt, on_the_clock, data, out, deadline)
    return out


def test_time_used_up_counts_and_the_gap_does_not(stopped_late: Path) -> None:
    clock = Clock()
    clock.ahead = 1e6
    deadline = Deadline(None, now=clock)
    phases = json.loads((stopped_late / "checkpoint" / "manifest.json").read_text())["facts"]["phases"]
    clock.ahead += 5.0  # the new start-up counts
    before = sum(phases.values())
    assert 50 < before < 55

    class EnoughError(Exception):
        pass

    def enough(*rest: object) -> None:
        assert deadline.budget_seconds == 60.0
        assert before + 5 < deadline.elapsed() < before + 7
        spent = deadline.phases_so_far()
        assert 30 < spent["reading"] < 31
        assert 20 < spent["planning"] < 23
        assert spent["start-up"] > 5
        assert sum(spent.values()) == pytest.approx(deadline.elapsed(), abs=0.01)
        raise EnoughError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "training_step", enough)
        with pytest.raises(EnoughError):
            train(resume=stopped_late, deadline=deadline)


def test_a_resumed_run_ends_in_time(stopped_late: Path) -> None:
    clock = Clock()
    deadline = Deadline(None, now=clock)
    clock.ahead = 6.0
    began = now()
    run = train(resume=stopped_late, deadline=deadline)
    assert now() - began < 6
    done = summary(run)
    assert done["late"] is False
    assert done["budget_seconds"] == 60.0
    assert 55 < float(str(done["elapsed_seconds"])) <= 60
    assert done["final_lr"] == 0.0
    progress = [float(str(e["progress"])) for e in entries(run.path) if "loss" in e]
    assert progress == sorted(progress)
    assert progress[-1] == 1.0
    assert summary(train(replay=run.path, out=run.path.parent / "again"))["identical"] is True


def test_too_little_time_is_refused_with_what_would_do(stopped_late: Path) -> None:
    clock = Clock()
    deadline = Deadline(None, now=clock)
    clock.ahead = 9.5
    with pytest.raises(BudgetError, match=r"s left of 1m are too short.*; give a new budget of at least (\d+)s$") as no:
        train(resume=stopped_late, deadline=deadline)
    assert (stopped_late / "checkpoint" / "manifest.json").is_file()
    smallest = int(re.findall(r"at least (\d+)s", str(no.value))[0])
    assert 4 <= smallest <= 12
    assert load(stopped_late).predict_proba(torch.zeros(1, 8, 8, 3, dtype=torch.uint8).numpy()).shape == (1, 3)


def test_a_new_budget_is_a_new_clock(stopped_late: Path) -> None:
    began = now()
    run = train(resume=stopped_late, budget=4)
    assert now() - began < 4
    done = summary(run)
    assert (done["late"], done["budget_seconds"]) == (False, 4.0)
    assert float(str(done["elapsed_seconds"])) < 4
    phases = done["phases"]
    assert isinstance(phases, dict)
    assert "reading" in phases
    assert phases["reading"] < 2, "what the first part used up is forgotten"


# Replaying


def test_a_replay_is_the_same_byte_for_byte(whole: Run, tmp_path: Path) -> None:
    again = train(replay=whole.path, out=tmp_path / "again")
    assert weights(again) == weights(whole)
    assert names(again.path) == FILES
    done = summary(again)
    assert (done["replay_of"], done["identical"]) == (str(whole.path), True)
    for name in ("val_accuracy", "steps", "seed", "recipe", "precision"):
        assert done[name] == summary(whole)[name]


def test_a_replay_follows_the_record(whole: Run, tmp_path: Path) -> None:
    """Not the recipe: another rate in the record gives other weights."""
    copy = tmp_path / "copy"
    shutil.copytree(whole.path, copy)
    path = copy / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[4]["lr"] *= 1.01
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    told: list[str] = []
    again = train(replay=copy, out=tmp_path / "again", reporter=Notes(told))
    assert summary(again)["identical"] is False
    assert weights(again) != weights(whole)
    assert told[-1] == f"the weights are NOT the same as those of {str(copy)!r}"


class Notes:
    """Keeps the notes it is told."""

    def __init__(self, told: list[str]) -> None:
        self._told = told

    def phase(self, name: str) -> None:
        pass

    def note(self, text: str) -> None:
        self._told.append(text)

    def step(self, status: object) -> None:
        pass


def test_a_run_that_went_back_is_replayed_as_it_ended(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("timebox.run.training.SNAPSHOT_STEPS", 2)
    original, count = loop.training_step, 0

    def faulty(*rest: object) -> Tensor:
        nonlocal count
        count += 1
        loss = original(*rest)  # type: ignore[arg-type]
        return loss * float("nan") if count in (4, 9) else loss

    with monkeypatch.context() as patch:
        patch.setattr(loop, "training_step", faulty)
        run = quick(data, tmp_path / "run", STEPS)
    events = summary(run)["events"]
    assert isinstance(events, list)
    assert len(events) == 2
    assert summary(run)["steps"] == STEPS
    assert summary(train(replay=run.path, out=tmp_path / "again"))["identical"] is True


def test_a_run_whose_memory_ran_out_is_replayed_in_the_same_parts(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = loop.training_step

    def cramped(*rest: object) -> Tensor:
        if rest[-1] == 32:
            raise MemoryError
        return original(*rest)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(loop, "training_step", cramped)
        run = quick(data, tmp_path / "run", STEPS)
    assert summary(run)["events"] == ["memory ran out: batches of 32 are run in parts of 16 images"]
    assert {e["micro_batch"] for e in entries(run.path) if "loss" in e} == {16}
    assert summary(train(replay=run.path, out=tmp_path / "again"))["identical"] is True


@pytest.mark.parametrize(
    ("part", "key", "value", "words"),
    [
        ("machine", "threads", 7, "threads 7 there, 1 here"),
        ("machine", "instructions", "AVX9", "instructions 'AVX9' there"),
        ("versions", "torch", "1.0", "torch '1.0' there"),
    ],
)
def test_a_replay_that_could_not_be_the_same_is_refused(
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


def test_a_replay_in_other_threads_is_refused(whole: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    with pytest.raises(RunError, match="cannot be repeated here: threads 1 there, 3 here$"):
        train(replay=whole.path, out=tmp_path / "again")


def test_an_unfinished_run_is_not_replayed(cut: Cut, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    cut(3, KeyboardInterrupt, quick, data, out, STEPS)
    with pytest.raises(RunError, match="is not finished: resume it first, then replay it"):
        train(replay=out, out=tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_resume_and_replay_exclude_each_other(whole: Run) -> None:
    with pytest.raises(UsageError, match="replay cannot be given with resume"):
        train(resume=whole.path, replay=whole.path)


def test_a_training_that_keeps_going_wrong_ends_with_what_was_good(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, count = loop.training_step, 0

    def faulty(*rest: object) -> Tensor:
        nonlocal count
        count += 1
        loss = original(*rest)  # type: ignore[arg-type]
        return loss * float("nan") if count > 5 else loss

    monkeypatch.setattr(loop, "training_step", faulty)
    with pytest.raises(TimeboxError, match=r"^the loss became nan at a learning rate of .* at step \d+, and again"):
        quick(data, tmp_path / "run", STEPS)
    monkeypatch.setattr(loop, "training_step", original)
    assert load(tmp_path / "run").checkpoint().step >= 0
