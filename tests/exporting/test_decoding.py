"""One decoding for all: training, run.predict, the estimator and the example decode every image mode alike."""

import io
import json
import runpy
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import timebox
from timebox import Run, TimeboxClassifier
from timebox.data import load_data

from .conftest import ExportedOnce, TrainingResult

EXAMPLE = Path(__file__).parents[2] / "examples" / "serve_onnx.py"
SIDE = 20  # of the run's input
RNG = np.random.default_rng(0)
NOISE: NDArray[np.uint8] = RNG.integers(0, 256, (SIDE, SIDE, 4), dtype=np.uint8)
RGBA = Image.fromarray(NOISE)
RGB = Image.fromarray(NOISE[..., :3])
GREY = Image.fromarray(NOISE[..., 0])
DEEP = RNG.integers(0, 65536, (SIDE, SIDE), dtype=np.uint16)


def with_orientation(path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    RGB.save(path, exif=exif)


def palette_with_alpha(path: Path) -> None:
    image = RGB.quantize(16)
    image.save(path, transparency=bytes(range(0, 256, 16)))


# Writes a file of each mode and format that people have.
WRITERS: dict[str, Callable[[Path], object]] = {
    "1.png": lambda path: GREY.convert("1").save(path),
    "l.png": GREY.save,
    "la.png": RGBA.convert("LA").save,
    "p.png": lambda path: RGB.quantize(64).save(path),
    "p-one-transparent.png": lambda path: RGB.quantize(64).save(path, transparency=3),
    "p-alpha.png": palette_with_alpha,
    "rgb.png": RGB.save,
    "rgb-transparent-colour.png": lambda path: RGB.save(path, transparency=tuple(NOISE[0, 0, :3].tolist())),
    "rgba.png": RGBA.save,
    "rgba.webp": lambda path: RGBA.save(path, lossless=True),
    "rgba.tif": RGBA.save,
    "cmyk.jpg": lambda path: RGB.convert("CMYK").save(path),
    "cmyk.tif": lambda path: RGB.convert("CMYK").save(path),
    "ycbcr.tif": lambda path: RGB.convert("YCbCr").save(path),
    "lab.tif": lambda path: Image.frombytes("LAB", (SIDE, SIDE), NOISE[..., :3].tobytes()).save(path),
    "16-bit.png": lambda path: Image.fromarray(DEEP).save(path),
    "16-bit.tif": lambda path: Image.fromarray(DEEP).save(path),
    "32-bit.tif": lambda path: Image.fromarray(DEEP.astype(np.int32)).save(path),
    "grey.jpg": GREY.save,
    "progressive.jpg": lambda path: RGB.save(path, progressive=True),
    "rgb.webp": RGB.save,
    "rgb.bmp": RGB.save,
    "rgb.ppm": RGB.save,
    "animated.gif": lambda path: RGB.quantize(32).save(path, save_all=True, append_images=[GREY.quantize(8)]),
    "transparent.gif": lambda path: RGB.quantize(32).save(path, transparency=5),
    **{f"turned-{k}.jpg": partial(with_orientation, orientation=k) for k in range(1, 9)},
    "turned-6.png": partial(with_orientation, orientation=6),
    "turned-5.webp": partial(with_orientation, orientation=5),
}
# Modes that exist in memory only.
IN_MEMORY: dict[str, Callable[[], Image.Image]] = {
    "HSV": lambda: RGB.convert("HSV"),
    "YCbCr": lambda: RGB.convert("YCbCr"),
    "LAB": lambda: Image.frombytes("LAB", (SIDE, SIDE), NOISE[..., :3].tobytes()),
    "PA": lambda: GREY.convert("PA"),
    "La": lambda: RGBA.convert("LA").convert("La"),
    "RGBa": lambda: RGBA.convert("RGBa"),
    "I": lambda: Image.fromarray(DEEP.astype(np.int32)),
    "I;16": lambda: Image.fromarray(DEEP),
    "I;16B": lambda: Image.frombytes("I;16B", (SIDE, SIDE), DEEP.astype(">u2").tobytes()),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A file of each kind, all of the run's size."""
    folder = tmp_path_factory.mktemp("modes")
    for name, write in WRITERS.items():
        write(folder / name)
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def model(exported: ExportedOnce) -> tuple[Run, Path]:
    """A run and its ONNX file."""
    pytest.importorskip("onnxruntime", reason="onnxruntime, of the extra `onnx`, is not installed")
    run, written = exported("onnx", "haet2021", "bf16", "crop")
    return run, written.path


@pytest.fixture(scope="module")
def example() -> dict[str, Any]:
    """The names that the example defines."""
    pytest.importorskip("onnxruntime", reason="onnxruntime, of the extra `onnx`, is not installed")
    return runpy.run_path(str(EXAMPLE))


def test_training_reads_the_pixels_that_decode_image_gives(files: list[Path], tmp_path: Path) -> None:
    (tmp_path / "ds" / "a").mkdir(parents=True)
    (tmp_path / "ds" / "b").mkdir()
    assert len(files) == len(WRITERS) >= 30
    for number, file in enumerate(files):
        (tmp_path / "ds" / "ab"[number % 2] / file.name).write_bytes(file.read_bytes())
    loaded = load_data(tmp_path / "ds", image_size=SIDE, cache=False).splits.train
    assert len(loaded) == len(files)
    by_name = {Path(id).name: image for id, image in zip(loaded.ids, loaded.images, strict=True)}
    for file in files:
        np.testing.assert_array_equal(by_name[file.name], timebox.decode_image(file), err_msg=file.name)


def test_predict_and_the_example_decode_like_training(
    files: list[Path], model: tuple[Run, Path], example: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, path = model
    classifier = example["Classifier"](str(path))
    seen: list[NDArray[np.uint8]] = []
    session = classifier.session

    class Recorder:
        def run(self, outputs: list[str], inputs: dict[str, NDArray[np.uint8]]) -> list[NDArray[np.float32]]:
            seen.append(inputs["images"][0])
            result: list[NDArray[np.float32]] = session.run(outputs, inputs)
            return result

    classifier.session = Recorder()
    for file in files:
        pixels = run.model_input.decode(file)
        probabilities = classifier.predict_proba(file)
        np.testing.assert_array_equal(seen[-1], pixels, err_msg=file.name)
        np.testing.assert_array_equal(timebox.decode_image(file), pixels, err_msg=file.name)
        np.testing.assert_allclose(probabilities, run.predict_proba(file)[0], atol=1e-4, err_msg=file.name)
    by_file = [one.probabilities for one in run.predict_files(files)]
    np.testing.assert_allclose(np.stack(by_file), run.predict_proba(files), atol=1e-6)  # type: ignore[arg-type]


def test_pillow_images_are_decoded_as_their_files_are(files: list[Path], model: tuple[Run, Path]) -> None:
    run, _ = model
    for file in files:
        with Image.open(file) as image:
            np.testing.assert_array_equal(
                run.model_input.decode(image), run.model_input.decode(file), err_msg=file.name
            )
        np.testing.assert_array_equal(
            run.model_input.decode(io.BytesIO(file.read_bytes())), run.model_input.decode(file), err_msg=file.name
        )


def test_the_estimator_decodes_alike(files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[NDArray[np.uint8]] = []
    real = timebox.train

    def record(dataset: timebox.ImageDataset, **options: Any) -> Run:
        trained.append(dataset.images)
        return real(dataset, **options)

    monkeypatch.setattr("timebox.estimator.classifier.train", record)
    classifier = TimeboxClassifier(steps=1, settings=("width=8", f"image_size={SIDE}"), random_state=0)
    classifier.fit(files, np.arange(len(files)) % 2)
    for file, pixels in zip(files, trained[0], strict=True):
        np.testing.assert_array_equal(pixels, timebox.decode_image(file), err_msg=file.name)
        np.testing.assert_array_equal(classifier.run_.model_input.decode(file), pixels, err_msg=file.name)


@pytest.mark.parametrize("mode", IN_MEMORY)
def test_modes_in_memory_are_decoded_alike(mode: str, model: tuple[Run, Path]) -> None:
    run, _ = model
    image = IN_MEMORY[mode]()
    assert image.mode == mode
    pixels = timebox.decode_image(image)
    assert pixels.shape == (SIDE, SIDE, 3)
    assert [timebox.decode_image(image, channels=channels).shape[2] for channels in (1, 4)] == [1, 4]
    np.testing.assert_array_equal(run.model_input.decode(image), pixels)
    np.testing.assert_array_equal(timebox.decode_image(image, (SIDE, SIDE)), pixels)


def test_16_bits_and_transparency_are_decoded_as_documented(files: list[Path]) -> None:
    by_name = {file.name: timebox.decode_image(file) for file in files}
    np.testing.assert_array_equal(by_name["16-bit.png"][..., 0], DEEP // 257)
    alpha = NOISE[..., 3:].astype(float) / 255
    on_white = NOISE[..., :3] * alpha + 255 * (1 - alpha)
    assert np.abs(by_name["rgba.png"] - on_white).max() <= 1
    np.testing.assert_array_equal(by_name["rgb.png"], NOISE[..., :3])


def test_decode_image_of_other_sizes_and_channels(files: list[Path]) -> None:
    file = next(file for file in files if file.name == "rgba.png")
    assert timebox.decode_image(file, channels=1).shape == (SIDE, SIDE, 1)
    np.testing.assert_array_equal(timebox.decode_image(file, channels=4), NOISE)
    assert timebox.decode_image(file, (8, 9)).shape == (8, 9, 3)
    assert timebox.decode_image(file, (8, 9), fit="letterbox").shape == (8, 9, 3)
    with pytest.raises(timebox.DataError, match=r"^not an image that can be read here$"):
        timebox.decode_image(io.BytesIO(b"text"))


@pytest.fixture(scope="module")
def address(model: tuple[Run, Path], example: dict[str, Any]) -> Iterator[str]:
    """The address of the example's server."""
    with example["make_server"](example["Classifier"](str(model[1])), ("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def post(address: str, content: bytes) -> Any:
    with urllib.request.urlopen(urllib.request.Request(address, content), timeout=20) as answer:
        return json.load(answer)


def test_the_example_serves(address: str, files: list[Path], model: tuple[Run, Path]) -> None:
    run, _ = model
    for file in files[:5]:
        answer = post(address, file.read_bytes())
        probabilities = run.predict_proba(file)[0]
        assert answer["label"] == run.class_names[probabilities.argmax()]
        np.testing.assert_allclose(list(answer["probabilities"].values()), probabilities, atol=1e-4)
        assert list(answer["probabilities"]) == list(run.class_names)


@pytest.mark.parametrize(
    ("content", "status", "error"),
    [
        (b"text", 400, "not an image that can be read here"),
        (b"", 413, "send 1 to 50,000,000 bytes of an image file"),
    ],
)
def test_the_example_refuses_what_is_no_image(content: bytes, status: int, error: str, address: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        post(address, content)
    with caught.value as answer:
        assert (answer.code, json.load(answer)) == (status, {"error": error})


def test_the_example_labels_files_without_torch(model: tuple[Run, Path], files: list[Path], tmp_path: Path) -> None:
    run, path = model
    (tmp_path / "text.png").write_text("text")
    heavy = ("torch", "sklearn", "scipy", "safetensors", "rich", "jinja2", "platformdirs", "tomli_w")
    without = f"sys.modules.update(dict.fromkeys({heavy!r}))"
    code = f"import sys, runpy; {without}; sys.argv.pop(0); runpy.run_path(sys.argv[0], run_name='__main__')"
    command = [sys.executable, "-c", code, str(EXAMPLE), str(path), *map(str, files), str(tmp_path / "text.png")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert [line.rpartition(" (")[0] for line in lines[:-1]] == [
        f"{file}: {label}" for file, label in zip(files, run.predict(files), strict=True)
    ]
    assert lines[-1] == f"{tmp_path / 'text.png'}: cannot be read: not an image that can be read here"


def test_grey_runs_decode_alike(files: list[Path], trained: TrainingResult) -> None:
    run = trained("haet2021", channels=1, tta="none")
    for file in files:
        np.testing.assert_array_equal(
            timebox.decode_image(file, channels=1), run.model_input.decode(file), err_msg=file.name
        )


def twelve_bits(folder: Path) -> list[Path]:
    """Two classes of 16-bit images that use 12 bits."""
    paths = []
    for k in range(12):
        pixels = RNG.integers(0, 2048, (SIDE, SIDE)) + 2047 * (k % 2)
        paths.append(folder / "ab"[k % 2] / f"{k}.png")
        paths[-1].parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.astype(np.uint16)).save(paths[-1])
    return paths


def test_the_bits_in_use_are_kept_with_the_model(tmp_path: Path) -> None:
    """Training, predict, the export's metadata and the estimator scale 12-bit images alike."""
    paths = twelve_bits(tmp_path / "ds")
    settings = ("width=8", "batch_size=8")
    run = timebox.train(
        tmp_path / "ds", steps=2, recipe="airbench94", settings=settings, val="none", out=tmp_path / "r"
    )
    assert run.preprocessing.white_16bit == 4095
    pixels = np.stack([np.asarray(Image.open(path)) for path in paths]).astype(int)
    expected = (pixels * 255 // 4095).astype(np.uint8)[..., None]
    decoded = np.stack([run.model_input.decode(path) for path in paths])
    assert np.array_equal(decoded, expected)
    assert np.array_equal(run.predict_proba(paths), run.predict_proba(expected))
    classifier = TimeboxClassifier(steps=2, recipe="airbench94", settings=settings, random_state=0)
    labels = [path.parent.name for path in paths]
    classifier.fit([str(path) for path in paths], labels).save(tmp_path / "saved")
    loaded = TimeboxClassifier.load(tmp_path / "saved")
    grey = np.repeat(expected, 3, axis=3)
    assert np.array_equal(loaded.predict_proba([str(path) for path in paths]), loaded.predict_proba(grey))
