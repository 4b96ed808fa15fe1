import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import timebox
from timebox import ImageDataset, Run
from timebox.errors import DataError, UsageError
from timebox.exporting import export
from timebox.exporting.export import METADATA, TOLERANCE

EXAMPLE = Path(__file__).parents[2] / "examples" / "serve_onnx.py"


def trained(out: Path, channels: int = 3, **settings: object) -> Run:
    """Three classes told apart by where it is dark, images of 20x20, two networks that work on larger ones, whose sides
    are even where they are halved."""
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (200, 20, 20, channels), dtype=np.uint8), np.arange(200) % 3
    images[labels == 1, :10] //= 2
    images[labels == 2, :, 10:] //= 3
    ids = tuple(map(str, range(200)))
    chosen = {
        "tta": "mirror_shift",
        "width": 8,
        "members": 2,
        "input_scale": 1.25,
        "blur_pool": "true",
        "batch_size": 32,
        **settings,
    }
    return timebox.train(
        ImageDataset(images, labels.astype(np.int64), ("all", "lower", "left"), ids),
        steps=30,
        settings=[f"{name}={value}" for name, value in chosen.items()],
        val=0.2,
        out=out,
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return trained(tmp_path_factory.mktemp("exporting") / "run")


def pictures(number: int, height: int, width: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (number, height, width, channels), dtype=np.uint8)


def photo(path: Path, height: int, width: int, seed: int = 0) -> Path:
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)
    return path


def answer_of(path: Path):
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime, of the extra `onnx`, is not installed")
    session = onnxruntime.InferenceSession(path)
    return session, lambda images: session.run(["probabilities"], {"images": images})[0]


@pytest.mark.parametrize("tta", ["recipe", "none", "mirror"])
def test_onnx_answers_as_the_run_does(run: Run, tmp_path: Path, tta: str) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime, of the extra `onnx`, is not installed")
    assert run.temperature != 1.0
    exported = export(run, output=tmp_path / "a.onnx", tta=tta)
    session, answer = answer_of(exported.path)
    for number, size in ((1, (20, 20)), (5, (33, 70)), (2, (9, 12)), (3, (200, 20))):
        images = pictures(number, *size)
        assert np.abs(answer(images) - run.predict_proba(images, tta)).max() < TOLERANCE
    facts = session.get_modelmeta().custom_metadata_map
    assert json.loads(facts["class_names"]) == ["all", "lower", "left"]
    assert facts["tta"] == {"recipe": "mirror_shift"}.get(tta, tta)
    assert (exported.num_bytes, len(list(tmp_path.iterdir()))) == (exported.path.stat().st_size, 1)
    assert [check.size for check in exported.checks] == [(20, 20), (15, 20), (41, 60)]
    assert all(check.difference <= TOLERANCE and check.num_changed == 0 for check in exported.checks)


def test_a_program_of_torch_answers_as_the_run_does(run: Run, tmp_path: Path) -> None:
    exported = export(run.path, "torch", output=tmp_path / "a.pt2")
    extra = {METADATA: ""}
    program = torch.export.load(exported.path, extra_files=extra).module()
    for number, size in ((1, (20, 20)), (4, (50, 31))):
        images = pictures(number, *size)
        with torch.inference_mode():
            assert np.abs(program(torch.from_numpy(images)).numpy() - run.predict_proba(images)).max() < TOLERANCE
    assert json.loads(extra[METADATA])["class_names"] == ["all", "lower", "left"]


def test_grey_images(tmp_path: Path) -> None:
    run = trained(tmp_path / "run", channels=1, members=1, input_scale=1.0, blur_pool="false", tta="none")
    exported = export(run, "torch")
    assert exported.path == tmp_path / "run" / "model.pt2"
    assert exported.channels == 1


def test_a_letterbox_is_exported_as_one(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime, of the extra `onnx`, is not installed")
    run = trained(tmp_path / "run", image_fit="letterbox", members=1, tta="none")
    _, answer = answer_of(export(run).path)
    for size in ((20, 20), (20, 61), (90, 33)):
        images = pictures(3, *size)
        assert np.abs(answer(images) - run.predict_proba(images)).max() < TOLERANCE


def test_the_example_labels_files_without_torch(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime, of the extra `onnx`, is not installed")
    path = export(run, output=tmp_path / "a.onnx").path
    file = photo(tmp_path / "photo.png", 40, 50)
    without = "sys.modules['torch'] = sys.modules['timebox'] = None"
    code = f"import sys, runpy; {without}; sys.argv.pop(0); runpy.run_path(sys.argv[0])"
    command = [sys.executable, "-c", code, str(EXAMPLE), str(path), str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    label = run.predict([file])[0]
    assert done.stdout.startswith(f"{file}: {label} (")


def test_what_another_decoder_makes_of_it(run: Run, tmp_path: Path) -> None:
    photos = [photo(tmp_path / f"{k}.jpg", 150, 200, seed=k) for k in range(6)]
    (tmp_path / "broken.jpg").write_bytes(b"")
    decoder = export(run, "torch", output=tmp_path / "a.pt2", files=[*photos, tmp_path / "broken.jpg"]).decoder
    assert decoder is not None
    assert decoder.num_files == 6
    assert 0 <= decoder.difference < 0.5
    with pytest.raises(DataError, match="none of the files to check with can be read"):
        export(run, "torch", output=tmp_path / "b.pt2", files=[tmp_path / "broken.jpg"])
    assert not (tmp_path / "b.pt2").exists()


def test_a_file_that_is_there_is_not_replaced_unasked(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.pt2").write_text("mine")
    with pytest.raises(UsageError, match=r"a\.pt2' exists; give another output, or overwrite it with --overwrite"):
        export(run, "torch", output=tmp_path / "a.pt2")
    assert export(run, "torch", output=tmp_path / "a.pt2", overwrite=True).num_bytes > 100


def test_an_answer_that_differs_is_never_written(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = sys.modules["timebox.exporting.export"]
    monkeypatch.setattr(module, "_write_torch", lambda *_: lambda images: np.full((len(images), 3), 1 / 3, np.float32))
    with pytest.raises(RuntimeError, match="on images of 20x20 the exported model answers otherwise than the run"):
        export(run, "torch", output=tmp_path / "a.pt2")
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_is_refused(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert export is timebox.export
    with pytest.raises(UsageError, match="format 'tflite' is unknown; use onnx or torch"):
        export(run, "tflite")
    with pytest.raises(UsageError, match="tta 'many' is unknown"):
        export(run, tta="many")
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UsageError, match=r"exporting to ONNX takes onnx: pip install 'timebox\[onnx\]'"):
        export(run, output=tmp_path / "a.onnx")
