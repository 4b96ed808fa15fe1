"""Run: predictions for arrays, paths and PIL images; damaged files of its directory are refused."""

import json
import os
import resource
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file, save_file

from small_runs import CLASSES, SMALL, coloured, quick, refusal
from timebox.configs.data import DataConfig
from timebox.errors import DataError, UsageError
from timebox.pipelines import predict
from timebox.run import Run, load
from timebox.run.files import MAX_JSON_BYTES, read_training_hashes


def npy(shape: str) -> bytes:
    """The first bytes of a .npy file of uint64, up to the end of its header."""
    header = f"{{'descr': '<u8', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header


Damage = Callable[[dict[str, object]], object]


@pytest.fixture
def copy(trained: Run, tmp_path: Path) -> Path:
    """A copy of a run directory that tests may damage."""
    return Path(shutil.copytree(trained.path, tmp_path / "copy"))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A red, a green and a blue image, each of another size and mode."""
    folder = tmp_path_factory.mktemp("files")
    noise = np.random.default_rng(0).integers(0, 150, (3, 40, 30, 3))
    for colour in range(3):
        noise[colour, ..., colour] += 100
    images = [Image.fromarray(pixels.astype(np.uint8)) for pixels in noise]
    paths = [folder / "red.png", folder / "green.jpg", folder / "blue.bmp"]
    images[0].convert("RGBA").resize((9, 31)).save(paths[0])
    images[1].save(paths[1], quality=95)
    images[2].quantize(64).resize((100, 20)).save(paths[2])
    return paths


def test_load(trained: Run) -> None:
    run = load(trained.path)
    images, labels = coloured(60, seed=5)
    probabilities = run.predict_proba(images)
    assert probabilities.shape == (60, 3)
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-5)
    np.testing.assert_array_equal(probabilities, trained.predict_proba(images))
    names = run.predict(images)
    assert names == [CLASSES[i] for i in probabilities.argmax(1)]
    assert np.mean([name == CLASSES[label] for name, label in zip(names, labels, strict=True)]) > 0.9
    assert predict(trained.path, images, device="cpu") == predict(trained, images) == names
    assert not run.model.training


def test_a_prediction_does_not_depend_on_the_other_images(trained: Run) -> None:
    images = coloured(20, seed=5)[0]
    together = trained.predict_proba(images)
    alone = np.concatenate([trained.predict_proba(image[None]) for image in images])
    np.testing.assert_allclose(together, alone, atol=1e-6)
    assert torch.is_grad_enabled()


def test_paths_and_pil_images_of_any_size_and_mode(trained: Run, files: list[Path]) -> None:
    assert trained.predict(files) == ["red", "green", "blue"]
    assert trained.predict([str(path) for path in files]) == ["red", "green", "blue"]
    red, green, blue = (Image.open(path) for path in files)
    with red, green, blue:
        assert trained.predict((blue, files[0], green)) == ["blue", "red", "green"]
        for mode in ("1", "L", "P", "CMYK", "LA"):
            assert trained.predict_proba([red.convert("RGB").convert(mode)]).shape == (1, 3)


def test_arrays_of_other_sizes_and_channels(trained: Run) -> None:
    large, labels = coloured(30, side=20, seed=6)
    names = [CLASSES[label] for label in labels]
    assert trained.predict(large) == names
    alpha = np.concatenate([large, np.full((30, 20, 20, 1), 255, np.uint8)], 3)
    assert trained.predict(alpha) == names
    assert trained.predict_proba(large[..., 0]).shape == (30, 3), "grey, without a channel axis"
    assert trained.predict_proba(large[..., :1]).shape == (30, 3)


def test_mirrored_strided_and_read_only_arrays(trained: Run) -> None:
    images = coloured(30, seed=6)[0]
    expected = trained.predict_proba(np.ascontiguousarray(images[::-1, :, ::-1]))
    np.testing.assert_array_equal(trained.predict_proba(images[::-1, :, ::-1]), expected)
    np.testing.assert_allclose(trained.predict_proba(images[::2]), trained.predict_proba(images)[::2], atol=1e-6)
    images.flags.writeable = False
    assert len(trained.predict(images)) == 30


def test_no_images_give_no_predictions(trained: Run) -> None:
    empty: Sequence[object] = []
    assert trained.predict(empty) == []
    assert trained.predict_proba(np.zeros((0, 8, 8, 3), np.uint8)).shape == (0, 3)
    assert list(trained.predict_files([])) == []


def test_test_time_augmentation_by_name(trained: Run) -> None:
    images = coloured(20, seed=5)[0]
    np.testing.assert_array_equal(trained.predict_proba(images), trained.predict_proba(images, tta="none"))
    both = (trained.predict_proba(images) + trained.predict_proba(images[:, :, ::-1])) / 2
    np.testing.assert_allclose(trained.predict_proba(images, tta="mirror"), both, atol=1e-6)
    assert refusal(lambda: trained.predict(images, tta="ten"), UsageError) == (
        "tta 'ten' is unknown; use recipe, none, mirror, shift, mirror_shift"
    )


def test_files_are_predicted_in_order_unreadable_ones_too(
    trained: Run, files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("timebox.run.predicting.files.FILES_AT_ONCE", 2)
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.jpg").write_text("no image")
    paths = [files[2], tmp_path / "empty.png", tmp_path / "text.jpg", tmp_path / "missing.png", files[0], files[1]]
    results = list(trained.predict_files(iter(paths)))
    assert [result.path for result in results] == [str(path) for path in paths]
    unread = [result.error is not None for result in results]
    assert unread == [False, True, True, True, False, False]
    assert all((result.probabilities is None) == bad for result, bad in zip(results, unread, strict=True))
    read: list[NDArray[np.float32]] = [r.probabilities for r in results if r.probabilities is not None]
    assert [CLASSES[row.argmax()] for row in read] == ["blue", "red", "green"]
    np.testing.assert_allclose(np.stack(read), trained.predict_proba([files[2], files[0], files[1]]), atol=1e-6)


def test_files_are_read_lazily(trained: Run, files: list[Path]) -> None:
    asked: list[Path] = []

    def endless() -> object:
        while True:
            asked.append(files[0])
            yield files[0]

    stream = trained.predict_files(endless())  # type: ignore[arg-type]
    assert next(stream).error is None
    assert len(asked) <= 250


def test_a_list_with_an_unreadable_file_is_refused(trained: Run, files: list[Path], tmp_path: Path) -> None:
    missing = tmp_path / "missing.png"
    assert refusal(lambda: trained.predict([files[0], missing]), DataError) == (
        f"image {str(missing)!r} cannot be read: No such file or directory"
    )
    closed = Image.open(files[0])
    closed.close()
    assert refusal(lambda: trained.predict([closed]), DataError).startswith("image number 0 cannot be read: ")


def test_a_path_without_a_run_is_refused(tmp_path: Path, trained: Run) -> None:
    missing = tmp_path / "missing"
    assert refusal(lambda: load(missing)) == f"run {str(missing)!r} does not exist"
    assert refusal(lambda: load(tmp_path)) == f"{str(tmp_path)!r} is no run directory: it has no model.json"
    (tmp_path / "metrics.jsonl").touch()
    assert refusal(lambda: load(tmp_path)) == (
        f"run {str(tmp_path)!r} ended before a model was saved: nothing can be loaded from it"
    )
    file = trained.path / "model.json"
    assert refusal(lambda: load(file)) == f"run {str(file)!r} is no directory"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is empty"),
        (b'{"format": 1', "Expecting ',' delimiter"),
        (b"\xff\xfe", "it is not UTF-8: byte 0 is 0xff"),
        (b"[1, 2]", "it holds no JSON object"),
        (b'{"format": NaN}', "NaN is no number of JSON"),
        (b'{"format": -Infinity}', "-Infinity is no number of JSON"),
        (b'{"format": 1e999}', "1e999 is no number of JSON, or too large for one"),
        (b'{"format": 1, "format": 1}', "it has the key 'format' twice"),
        (b'{"format": ' + b"9" * 5000 + b"}", "is no number of JSON, or too large for one"),
        (b'{"format": ' * 100_000, "nested too deeply"),
    ],
)
@pytest.mark.parametrize("name", ["model.json", "summary.json"])
def test_a_damaged_json_file_is_named(name: str, content: bytes, reason: str, copy: Path) -> None:
    (copy / name).write_bytes(content)
    message = refusal(lambda: load(copy).summary)
    assert message.startswith(f"{str(copy / name)!r} cannot be read: ")
    assert reason in message


@pytest.mark.parametrize("name", ["model.json", "summary.json"])
def test_a_json_file_above_the_limit_is_not_read(name: str, copy: Path) -> None:
    os.truncate(copy / name, MAX_JSON_BYTES + 1)  # takes no room on the disk
    assert refusal(lambda: load(copy).summary) == (
        f"{str(copy / name)!r} cannot be read: larger than the 268,435,456 bytes such a file may have"
    )


def recipe_of(config: dict[str, object]) -> dict[str, object]:
    recipe = config["recipe"]
    assert isinstance(recipe, dict)
    return recipe


def preprocessing_of(config: dict[str, object]) -> dict[str, object]:
    preprocessing = config["preprocessing"]
    assert isinstance(preprocessing, dict)
    return preprocessing


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda config: config.pop("class_names"), "object missing required field class_names"),
        (lambda config: config.update(class_names="red"), "expected array, got str at class_names"),
        (lambda config: config.update(recipe=[1]), "expected object, got array at recipe"),
        (
            lambda config: recipe_of(config).update(width="wide"),
            "recipe 'haet2021': width 'wide' must be a whole number",
        ),
        (lambda config: recipe_of(config).pop("tta"), "recipe 'haet2021': missing: tta"),
        (lambda config: preprocessing_of(config).pop("mean"), "object missing required field mean at preprocessing"),
        (
            lambda config: preprocessing_of(config).update(mean=[0.5]),
            "mean and std must have one value for each of the 3 channels at preprocessing",
        ),
        (
            lambda config: preprocessing_of(config).update(std=[0, 1, 1]),
            "expected float >= 0.0001 at preprocessing.std[0]",
        ),
        (
            lambda config: preprocessing_of(config).update(mean=["0", 0, 0]),
            "expected float, got str at preprocessing.mean[0]",
        ),
        (
            lambda config: preprocessing_of(config).update(std=[2, 1, 1]),
            "expected float <= 1.0 at preprocessing.std[0]",
        ),
        (
            lambda config: preprocessing_of(config).update(image_shape=[8, 8.5, 3]),
            "expected int, got float at preprocessing.image_shape[1]",
        ),
        (
            lambda config: config.update(class_names=["red", "red", "blue"]),
            "class_names has a name twice",
        ),
        (lambda config: config.update(class_names=["red"]), "expected array of length >= 2 at class_names"),
        (lambda config: config.update(class_names=["red", ""]), "expected str of length >= 1 at class_names[1]"),
        (lambda config: config.update(class_names=["red", 1]), "expected str, got int at class_names[1]"),
        (
            lambda config: recipe_of(config).update(width=10**9),
            "recipe 'haet2021': width 1e+09 must be between 4 and 512",
        ),
        (
            lambda config: recipe_of(config).update(width=10**300),
            "recipe 'haet2021': width, a number of 997 bits, must be between 4 and 512",
        ),
        (
            lambda config: preprocessing_of(config).update(image_shape=[8, 8, 2]),
            "invalid enum value 2 at preprocessing.image_shape[2]",
        ),
        (
            lambda config: preprocessing_of(config).update(image_shape=[10**9, 10**9, 3]),
            "expected int <= 4096 at preprocessing.image_shape[0]",
        ),
    ],
)
def test_a_damaged_model_json_is_refused(damage: Damage, reason: str, copy: Path) -> None:
    config = json.loads((copy / "model.json").read_text())
    damage(config)
    (copy / "model.json").write_text(json.dumps(config))
    assert refusal(lambda: Run(copy)) == f"{str(copy / 'model.json')!r} is damaged: {reason}"


@pytest.mark.parametrize("size", [0, 5, 1000])
def test_truncated_weights(size: int, copy: Path) -> None:
    path = copy / "model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    assert refusal(lambda: load(copy)).startswith(f"{str(path)!r} cannot be read: ")


def test_weights_of_another_network(copy: Path, data: Path, tmp_path: Path) -> None:
    path = copy / "model.safetensors"
    tensors = load_file(path)
    wider = quick(data, tmp_path / "wider", steps=1, settings=[*SMALL, "width=6"])
    shutil.copy(wider.path / "model.safetensors", path)
    prefix = f"{str(path)!r} cannot be read: its tensors are not the ones expected: "
    message = refusal(lambda: load(copy))
    assert message == prefix + "first.1.weight is float32 (6, 27, 1, 1), not float32 (4, 27, 1, 1)"
    del tensors["head.weight"]
    save_file({**tensors, "tail.weight": torch.zeros(1)}, path)
    message = refusal(lambda: load(copy))
    assert message == prefix + "it lacks 'head.weight'; has the unknown 'tail.weight'"


def test_a_model_json_of_a_huge_network_allocates_nothing(copy: Path) -> None:
    config = json.loads((copy / "model.json").read_text())
    recipe_of(config).update(width=512)
    config["class_names"] = [str(number) for number in range(10**6)]
    (copy / "model.json").write_text(json.dumps(config))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert "not the ones expected" in refusal(lambda: load(copy))
    assert (
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < peak + 500_000
    )  # kilobytes; the network has 18 gigabytes


def test_pipes_in_place_of_files_do_not_block(copy: Path) -> None:
    for name in ("trained_on.npy", "summary.json", "model.safetensors", "model.json"):
        (copy / name).unlink()
        os.mkfifo(copy / name)
        if name == "trained_on.npy":
            message = refusal(lambda: read_training_hashes(copy))
        else:
            message = refusal(lambda: load(copy).summary)
        assert message == f"{str(copy / name)!r} cannot be read: a named pipe, not a file"


def test_loading_leaves_the_random_state_alone(copy: Path) -> None:
    before = torch.get_rng_state()
    load(copy)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"split_seed": -1}, "split_seed -1 must be a whole number of at least 0"),
        ({"train_limit": 10**30}, "must be a whole number of at least 1, below 2**63"),
        ({"split_seed": "one"}, "split_seed 'one' must be a whole number of at least 0"),
        ({"coarse": 1}, "coarse 1 must be True or False"),
        ({"more": 1}, "incomplete"),
    ],
)
def test_a_damaged_source_is_refused(changes: dict[str, object], reason: str, trained: Run) -> None:
    source = trained.config["source"]
    assert isinstance(source, dict)
    config = {"source": {**source, **changes}}
    assert refusal(lambda: DataConfig.of_run(config, trained.path)).endswith(reason)
    DataConfig.of_run(trained.config, trained.path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not an array in the .npy format"),
        (b"\x93NUMPY\x01\x00\xff\xff{", "its header claims 65,535 bytes"),
        (npy("(1000000000000,)"), "truncated: its header claims 8,000,000,000,000 bytes, but 0 follow"),
        (npy("()") + bytes(8), "it holds no image hashes"),
    ],
)
def test_damaged_hashes(content: bytes, reason: str, copy: Path) -> None:
    (copy / "trained_on.npy").write_bytes(content)
    message = refusal(lambda: read_training_hashes(copy))
    assert message.startswith(f"{str(copy / 'trained_on.npy')!r} cannot be read: ")
    assert reason in message


def test_a_run_without_weights_or_summary(copy: Path) -> None:
    (copy / "summary.json").unlink()
    assert load(copy).summary == {}
    assert load(copy).test_accuracy is None
    (copy / "model.safetensors").unlink()
    assert refusal(lambda: load(copy)) == (
        f"run {str(copy)!r} ended before a model was saved: nothing can be loaded from it"
    )


def test_an_unknown_device(trained: Run) -> None:
    assert refusal(lambda: load(trained.path, device="tpu"), UsageError) == (
        "device 'tpu' is unknown; use auto, cpu or cuda"
    )


def test_predicting_uses_no_more_threads_than_the_container_has(trained: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def probabilities(*rest: object, **more: object) -> NDArray[np.float32]:
        seen.append(torch.get_num_threads())
        return np.full((2, 3), 1 / 3, np.float32)

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("timebox.runtime.threads.available_threads", lambda root: 2)
    monkeypatch.setattr("timebox.run.run.predict_probabilities", probabilities)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        trained.predict(coloured(2)[0])
        assert (seen, torch.get_num_threads()) == ([2], 3)
    finally:
        torch.set_num_threads(before)


def test_a_letterbox_run_letterboxes_files_and_arrays(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for k in range(30):
        pixels = rng.integers(0, 100, (16, 32, 3), dtype=np.uint8)
        pixels[..., k % 2] += 150
        path = tmp_path / "photos" / "ab"[k % 2] / f"{k}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    files = sorted((tmp_path / "photos" / "a").iterdir())
    run = quick(tmp_path / "photos", tmp_path / "run", settings=[*SMALL, "image_fit=letterbox"], val="none")
    cropped = quick(tmp_path / "photos", tmp_path / "cropped", val="none")
    arrays = np.stack([np.asarray(Image.open(file)) for file in files])
    assert np.allclose(run.predict_proba(files), run.predict_proba(arrays), atol=1e-3)
    assert not np.allclose(run.predict_proba(files), cropped.predict_proba(files), atol=1e-3)
    assert [one.error for one in run.predict_files(files)] == [None] * len(files)
