import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import timebox
from timebox import Run
from timebox.errors import DataError, UsageError
from timebox.exporting import export
from timebox.exporting.export import METADATA
from timebox.exporting.parity import EPSILON, MARGIN, NUM_IMAGES

from .conftest import ExportedOnce, TrainingResult, labelled_images, max_difference, onnx_predict


def photo(path: Path, height: int, width: int, seed: int = 0) -> Path:
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)
    return path


@pytest.mark.integration
@pytest.mark.parametrize("tta", ["recipe", "none"])
def test_onnx_file_predicts_like_the_run(run: Run, tmp_path: Path, tta: str) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime, of the extra `onnx`, is not installed")
    assert run.temperature != 1.0
    exported = export(run, output=tmp_path / "a.onnx", tta=tta)
    predict = onnx_predict(exported.path)
    for shape in ((1, 20, 20), (5, 33, 70), (2, 9, 12), (3, 200, 20)):
        assert max_difference(predict, run, shape, tta) < exported.checks[0].allowed
    metadata = onnxruntime.InferenceSession(exported.path).get_modelmeta().custom_metadata_map
    assert json.loads(metadata["class_names"]) == ["all", "lower", "left"]
    assert metadata["tta"] == {"recipe": "mirror_shift"}.get(tta, tta)
    assert (exported.num_bytes, len(list(tmp_path.iterdir()))) == (exported.path.stat().st_size, 1)
    assert [check.size for check in exported.checks] == [(20, 20), (15, 13), (41, 60)]
    assert all(check.difference <= check.allowed < MARGIN * EPSILON**0.5 for check in exported.checks)
    assert all((check.num_images, check.num_changed) == (NUM_IMAGES, 0) for check in exported.checks)


@pytest.mark.integration
def test_torch_program_predicts_like_the_run(exported: ExportedOnce) -> None:
    run, written = exported("torch", "haet2021", "fp32", "crop")
    extra = {METADATA: ""}
    program = torch.export.load(written.path, extra_files=extra).module()

    def predict(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return program(torch.from_numpy(images)).numpy()

    for shape in ((1, 20, 20), (4, 50, 31)):
        assert max_difference(predict, run, shape) < written.checks[0].allowed
    assert json.loads(extra[METADATA])["class_names"] == ["all", "lower", "left"]


@pytest.mark.integration
def test_grey_images_and_run_directory_as_path(trained: TrainingResult) -> None:
    run = trained("haet2021", channels=1, tta="none")
    exported = export(run.path, "torch")
    assert exported.path == run.path / "model.pt2"
    assert exported.channels == 1


@pytest.mark.integration
def test_effect_of_decoding_at_full_size(plain: Run, tmp_path: Path) -> None:
    photos = [photo(tmp_path / f"{k}.jpg", 150, 200, seed=k) for k in range(6)]
    (tmp_path / "broken.jpg").write_bytes(b"")
    decoder = export(plain, "torch", output=tmp_path / "a.pt2", files=[*photos, tmp_path / "broken.jpg"]).decoder
    assert decoder is not None
    assert decoder.num_files == 6
    assert 0 <= decoder.difference < 0.5
    with pytest.raises(DataError, match="none of the files to check with can be read"):
        export(plain, "torch", output=tmp_path / "b.pt2", files=[tmp_path / "broken.jpg"])
    assert not (tmp_path / "b.pt2").exists()


@pytest.mark.integration
def test_existing_file_is_replaced_only_with_overwrite(plain: Run, tmp_path: Path) -> None:
    (tmp_path / "a.pt2").write_text("mine")
    with pytest.raises(UsageError, match=r"a\.pt2' exists; give another output, or overwrite it with overwrite=True"):
        export(plain, "torch", output=tmp_path / "a.pt2")
    assert export(plain, "torch", output=tmp_path / "a.pt2", overwrite=True).num_bytes > 100


def test_model_that_differs_from_the_run_is_not_written(
    plain: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = sys.modules["timebox.exporting.export"]
    monkeypatch.setattr(module, "_write_torch", lambda *_: lambda images: np.full((len(images), 3), 1 / 3, np.float32))
    with pytest.raises(RuntimeError, match="on images of 20x20 the exported model differs from the run by more"):
        export(plain, "torch", output=tmp_path / "a.pt2")
    assert not list(tmp_path.iterdir())


def test_invalid_arguments_are_refused(plain: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert export is timebox.export
    with pytest.raises(UsageError, match="format 'tflite' must be one of onnx, torch"):
        export(plain, "tflite")
    with pytest.raises(UsageError, match="tta 'many' must be one of recipe, none, mirror, shift, mirror_shift"):
        export(plain, tta="many")
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UsageError, match=r"exporting to ONNX needs onnx: pip install 'timebox-vision\[onnx\]'"):
        export(plain, output=tmp_path / "a.onnx")


@pytest.mark.integration
def test_a_run_with_too_few_validation_images_says_so(plain: Run, tmp_path: Path) -> None:
    assert export(plain, "torch", output=tmp_path / "a.pt2").uncalibrated_reason is None, "40 validation images"
    images = labelled_images()
    few = timebox.train(
        images,
        steps=1,
        recipe="haet2021",
        settings=["width=8", "batch_size=32", "tta=none"],
        val=0.05,
        device="cpu",
        out=tmp_path / "run",
    )
    exported = export(few, "torch", output=tmp_path / "b.pt2", files=str(photo(tmp_path / "a.png", 30, 30)))
    num = few.summary["val_images"]
    assert exported.uncalibrated_reason == (
        f"the run scored {num} of {num} validation images, and 20 or more are needed to fit a temperature"
    )
    assert exported.temperature == 1.0
    assert exported.decoder is not None
    assert exported.decoder.num_files == 1, "one path is one file"
