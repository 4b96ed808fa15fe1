"""`timebox train`: what it hands on, what it prints, and how it ends."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from timebox.clock import Deadline
from timebox.errors import OutputError

from .conftest import Command, Replace

SUMMARY: dict[str, object] = {
    "val_accuracy": None, "val_images": 0, "val_images_total": 180,
    "test_accuracy": 0.98333, "test_images": 360, "test_images_total": 1200,
    "budget_seconds": 3900.0, "elapsed_seconds": 3841.25, "late": False,
    "phases": {"start-up": 2.5, "reading": 1.25, "planning": 4.0, "training": 3800.0, "scoring": 33.0, "other": 0.01},
    "steps": 12345, "epochs": 56.12, "images_per_second": 1432.4, "device": "cpu", "precision": "fp32", "seed": 3,
    "recipe": {"name": "haet2021", "width": 64}, "versions": {"torch": "2.13.0"}, "final_lr": float("nan"),
    "source": {"data": "my photos/"},
}  # fmt: skip


class FakeTrain:
    """Stands in for timebox.train: remembers what it was given."""

    def __init__(self, **changes: object) -> None:
        self.summary = {**SUMMARY, **changes}
        self.given: dict[str, object] = {}

    def __call__(self, data: str, **given: object) -> SimpleNamespace:
        self.given = given
        return SimpleNamespace(path=Path("runs/my photos"), summary=self.summary)


def fake(replace: Replace, **changes: object) -> FakeTrain:
    train = FakeTrain(**changes)
    replace("timebox.pipelines.train", train=train)
    return train


def test_the_summary_fits_one_screen_and_says_it_all(timebox: Command, replace: Replace) -> None:
    fake(replace)
    outcome = timebox("train", "my photos/", "--budget", "65m")
    assert outcome.status == 0
    assert outcome.out.splitlines() == [
        "  test accuracy  98.33 %   on 360 of 1,200 images",
        "  val accuracy   not measured   180 images held out",
        "",
        "  time           1h04m of 1h05m",
        "  spent on       start-up 2.5s · reading 1.2s · planning 4.0s · training 1h03m",
        "                 scoring 33s",
        "",
        "  training       12,345 steps · 56.1 epochs · 1,432 images/s",
        "  with           recipe haet2021 · cpu · fp32 · seed 3",
        "  run            runs/my photos",
        "",
        "  next           timebox evaluate 'runs/my photos' 'my photos/'",
        "                 timebox predict 'runs/my photos' IMAGE…",
    ]


def test_the_processes_of_a_group_have_a_line_each(timebox: Command, replace: Replace) -> None:
    ranks = [
        {"rank": 0, "host": "a", "images_per_second": 2688.6, "waiting_share": 0.19},
        {"rank": 1, "host": "b", "images_per_second": 1200.0, "waiting_share": None},
    ]
    fake(replace, ranks=ranks, rank_failures=["rank 1 on c: it does not answer"])
    lines = timebox("train", "my photos/", "--budget", "65m").out.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("  training"))
    assert lines[at + 1 : at + 4] == [
        "  rank 0         a · 2,689 images/s, waited 19 % of the time",
        "  rank 1         b · 1,200 images/s",
        "  lost           rank 1 on c: it does not answer",
    ]


def test_json_is_the_summary_and_nothing_else(timebox: Command, replace: Replace) -> None:
    fake(replace)
    outcome = timebox("train", "photos", "--budget", "65m", "--json")
    assert outcome.json() == {"run": "runs/my photos", **SUMMARY, "final_lr": None}


def test_the_deadline_began_with_the_process(timebox: Command, replace: Replace) -> None:
    train = fake(replace)
    timebox("train", "photos", "--budget", "65m")
    deadline = train.given["deadline"]
    assert isinstance(deadline, Deadline)
    assert deadline.budget_seconds == 3900
    assert deadline.started_at == Deadline.since_process_start(None).started_at
    timebox("train", "photos", "--steps", "7")
    deadline = train.given["deadline"]
    assert isinstance(deadline, Deadline)
    assert deadline.budget_seconds is None
    assert (train.given["steps"], train.given["budget"]) == (7, None)


def test_late_is_status_3_and_is_said(timebox: Command, replace: Replace) -> None:
    fake(replace, late=True, elapsed_seconds=3903.0)
    outcome = timebox("train", "photos", "--budget", "65m")
    assert outcome.status == 3
    assert "  time           1h05m of 1h05m: LATE" in outcome.out


@pytest.mark.parametrize(("phase", "status"), [("planning", 2), ("training", 2), ("saving", 3), ("scoring", 3)])
def test_what_cannot_be_written_is_status_3_only_once_a_model_is_trained(
    timebox: Command, replace: Replace, phase: str, status: int
) -> None:
    def train(data: str, *, reporter: object, **given: object) -> None:
        assert hasattr(reporter, "phase")
        reporter.phase(phase)
        raise OutputError("model.safetensors cannot be written in 'runs/x': No space left on device")

    replace("timebox.pipelines.train", train=train)
    outcome = timebox("train", "photos", "--steps", "7")
    assert outcome.status == status
    assert outcome.err.endswith("model.safetensors cannot be written in 'runs/x': No space left on device\n")


def test_a_summary_without_figures_is_still_printed(timebox: Command, replace: Replace) -> None:
    train = fake(replace)
    train.summary = {}
    assert timebox("train", "photos", "--steps", "7").status == 0


def test_scoring_can_be_left_to_evaluate(timebox: Command, replace: Replace) -> None:
    train = fake(replace)
    timebox("train", "photos", "--steps", "7")
    assert train.given["scoring"] is True
    timebox("train", "photos", "--steps", "7", "--no-scoring")
    assert train.given["scoring"] is False
