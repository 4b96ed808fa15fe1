"""`timebox export`: what is asked for, and what is printed."""

import json
from pathlib import Path

import pytest

from timebox.exporting import DecoderEffect, Exported, ParityCheck

from .conftest import Command, Replace


@pytest.fixture
def asked(replace: Replace) -> list[tuple[object, dict[str, object]]]:
    calls: list[tuple[object, dict[str, object]]] = []

    def export(run: str, format: str, **options: object) -> Exported:
        calls.append((run, {"format": format, **options}))
        checks = (ParityCheck((32, 40), 8, 2e-6, 9e-5, 0),)
        decoder = DecoderEffect(500, 1, 0.01) if options["files"] else None
        return Exported(Path("a.onnx"), format, 1_500_000, ("cat", "dog"), 3, "mirror", 1.2, checks, decoder)

    replace("timebox.exporting", export=export)
    return calls


def test_what_is_asked_for_is_passed_on(timebox: Command, asked: list[tuple[object, dict[str, object]]]) -> None:
    assert timebox("export", "runs/x", "--format", "torch", "--output", "y.pt2", "--overwrite").status == 0
    assert asked == [
        (
            "runs/x",
            {
                "format": "torch",
                "output": "y.pt2",
                "tta": "recipe",
                "overwrite": True,
                "files": [],
                "int8": False,
                "data": None,
                "max_loss": 1.0,
                "trust_code": False,
            },
        )
    ]


@pytest.mark.usefixtures("asked")
def test_it_is_told_what_was_written_and_how_it_was_checked(timebox: Command, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    lines = timebox("export", "runs/x", "--check", tmp_path).out.splitlines()
    assert [" ".join(line.split()) for line in lines] == [
        "written a.onnx, 1.5 MB",
        "takes images: uint8 (N, H, W, 3), any N, H and W",
        "gives probabilities: float32 (N, 2), calibrated with the temperature 1.2",
        "inside resizing, cropping, normalisation, views: mirror",
        "checked 8 images of 40x32: probabilities differ from the run's by at most 2e-06 of their value; up to "
        "9e-05 counts as rounding",
        "decoder 1 of 500 files (0.20 %) get another class when decoded at full size; probabilities within 1e-02",
    ]
    printed = json.loads(timebox("export", "runs/x", "--json").out)
    assert printed["num_bytes"] == 1_500_000
    assert printed["checks"] == [
        {"size": [32, 40], "num_images": 8, "difference": 2e-6, "allowed": 9e-5, "num_changed": 0}
    ]


def test_it_is_told_why_a_run_is_not_calibrated(timebox: Command, replace: Replace) -> None:
    reason = "the run scored 10 of 10 validation images, and 20 or more are needed to fit a temperature"

    def export(run: str, format: str, **options: object) -> Exported:
        return Exported(Path("a.onnx"), format, 1, ("cat", "dog"), 3, "none", 1.0, (), None, reason)

    replace("timebox.exporting", export=export)
    lines = [" ".join(line.split()) for line in timebox("export", "runs/x").out.splitlines()]
    assert lines[2] == f"gives probabilities: float32 (N, 2), not calibrated: {reason}"
    assert json.loads(timebox("export", "runs/x", "--json").out)["uncalibrated_reason"] == reason
