"""Trainings that start from the weights of an earlier run."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from small_runs import CLASSES, coloured, weights
from timebox import ImageDataset
from timebox.errors import RunError, UsageError
from timebox.jobs.initial_weights import InitialWeights
from timebox.pipelines import train
from timebox.run import Run, load

SMALL = ("width=4", "batch_size=32", "crop_padding=1", "flip=none", "tta=none")


def dataset(names: tuple[str, ...] = CLASSES, num: int = 90, channels: int = 3) -> ImageDataset:
    images, labels = coloured(num)
    labels = labels % len(names)
    ids = tuple(map(str, range(num)))
    return ImageDataset(images[..., :channels].copy(), labels.astype(np.int64), names, ids)


def quick(data: ImageDataset, out: Path, *settings: str, **given: object) -> Run:
    arguments = {"steps": 1, "recipe": "airbench94", "val": "none", "device": "cpu", "precision": "fp32", **given}
    return train(data, out=out, settings=[*SMALL, *settings], **arguments)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return quick(dataset(), tmp_path_factory.mktemp("initial") / "first", steps=20)


STILL = ("max_lr=1e-06", "filter_lr=1e-06", "weight_decay=0", "averaging_span=0")


def test_network_and_head_start_from_the_run(first: Run, tmp_path: Path) -> None:
    started = quick(dataset(), tmp_path / "next", *STILL, init=first.path)
    before, after = first.model.state_dict(), started.model.state_dict()
    for name, tensor in before.items():
        if "running" not in name and "num_batches" not in name:
            assert torch.allclose(tensor, after[name], atol=1e-3), name
    assert f" --init {first.path} " in str(started.summary["command"])


def test_new_classes_get_a_new_head_and_known_ones_their_rows(first: Run, tmp_path: Path) -> None:
    other = quick(dataset(("cat", "dog")), tmp_path / "other", *STILL, init=first.path)
    assert other.model.state_dict()["head.weight"].shape[0] == 2
    fewer = quick(dataset(("blue", "red")), tmp_path / "fewer", *STILL, init=first.path)
    rows = first.model.state_dict()["head.weight"][[2, 0]]
    assert torch.allclose(fewer.model.state_dict()["head.weight"], rows, atol=1e-3)


def test_blur_pool_follows_the_initial_weights(first: Run, tmp_path: Path) -> None:
    blurred = quick(dataset(), tmp_path / "blurred", "blur_pool=true", init=None)
    assert quick(dataset(), tmp_path / "next", init=blurred.path).recipe.blur_pool
    assert not quick(dataset(), tmp_path / "plain", init=first.path).recipe.blur_pool


def test_the_network_is_inferred_from_a_file_alone(first: Run, tmp_path: Path) -> None:
    shutil.copy(first.path / "model.safetensors", tmp_path / "weights.safetensors")
    initial = InitialWeights.read(tmp_path / "weights.safetensors")
    assert initial.settings == ("model=airbench", "width=4")
    started = train(
        dataset(("cat", "dog")), steps=1, init=tmp_path / "weights.safetensors", val="none", out=tmp_path / "run"
    )
    assert started.recipe.width == 4


def test_every_network_of_an_ensemble_starts_from_the_first(first: Run, tmp_path: Path) -> None:
    two = quick(dataset(), tmp_path / "two", "ensemble_size=2", *STILL, init=first.path)
    state, filters = two.model.state_dict(), "groups.1.0.weight"
    expected = first.model.state_dict()[filters]
    assert all(torch.allclose(state[f"members.{k}.{filters}"], expected, atol=1e-3) for k in range(2))
    one = quick(dataset(), tmp_path / "one", *STILL, init=two.path)
    assert torch.allclose(one.model.state_dict()[filters], expected, atol=1e-3)


def test_runs_repeat_and_replay_with_the_same_initial_weights_only(first: Run, tmp_path: Path) -> None:
    runs = [quick(dataset(), tmp_path / name, init=first.path, steps=5) for name in ("one", "two")]
    assert weights(runs[0]) == weights(runs[1])
    again = train(dataset(), replay=tmp_path / "one", out=tmp_path / "again")
    assert again.summary["identical"] is True
    copied = shutil.copytree(first.path, tmp_path / "moved")
    moved = quick(dataset(), tmp_path / "three", init=copied, steps=5)
    quick(dataset(), copied, init=first.path, steps=3, overwrite=True)
    with pytest.raises(RunError, match="has other weights than those the run started from"):
        train(dataset(), replay=moved.path, out=tmp_path / "no")


def test_weights_that_do_not_fit_are_refused(first: Run, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"width 8 cannot be set: '.*first' has width 4"):
        train(dataset(), steps=1, init=first.path, settings=["width=8"], out=tmp_path / "a")
    with pytest.raises(
        UsageError, match=r"do not fit: whitening\.bias is of the shape \(24,\), here it is of the shape \(8,\)"
    ):
        quick(dataset(channels=1), tmp_path / "b", init=first.path)
    with pytest.raises(RunError, match="is neither a finished run nor a file with the weights of one"):
        quick(dataset(), tmp_path / "c", init=tmp_path / "nowhere")
    (tmp_path / "x.safetensors").write_bytes(b"not weights")
    with pytest.raises(RunError, match=r"x\.safetensors' cannot be read"):
        quick(dataset(), tmp_path / "d", init=tmp_path / "x.safetensors")
    assert not {path.name for path in tmp_path.iterdir()} & {"a", "b", "c", "d"}


@pytest.mark.parametrize("is_zip", [True, False])
def test_a_file_of_torch_is_not_unpickled(tmp_path: Path, is_zip: bool) -> None:
    torch.save({"a": torch.zeros(3)}, tmp_path / "a.pt", _use_new_zipfile_serialization=is_zip)
    with pytest.raises(
        RunError, match=r"a\.pt' cannot be read: it holds a pickle of torch\.save, which is not loaded; "
    ):
        InitialWeights.read(tmp_path / "a.pt")


def test_auto_takes_the_width_of_the_weights(first: Run, tmp_path: Path) -> None:
    started = train(dataset(), steps=2, init=first.path, val="none", out=tmp_path / "auto")
    assert started.recipe.width == 4
    assert load(started.path).class_names == CLASSES
