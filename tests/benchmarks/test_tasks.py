"""The data sets that `auto` is fitted on, made from made-up ones in the published formats."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tasks
from timebox.data import ImageDataset, image_hashes, load_data

SMALL = {"NUM_VAL": 40, "MOST": 16, "FEWEST": 4}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All three sources, small, every image another."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    ten, hundred, signs = (root / name for name in ("cifar-10-batches-py", "cifar-100-python", "sign-digits"))
    ten.mkdir()
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        pixels = rng.integers(0, 256, (200, 3072), dtype=np.uint8)
        (ten / name).write_bytes(pickle.dumps({b"data": pixels, b"labels": [i % 10 for i in range(200)]}))
    (ten / "batches.meta").write_bytes(pickle.dumps({b"label_names": [f"c{i}".encode() for i in range(10)]}))
    hundred.mkdir()
    for name in ("train", "test"):
        fine = [i % 100 for i in range(400)]
        values = {
            b"data": rng.integers(0, 256, (400, 3072), dtype=np.uint8),
            b"fine_labels": fine,
            b"coarse_labels": [label % 20 for label in fine],
        }
        (hundred / name).write_bytes(pickle.dumps(values))
    names = {b"fine_label_names": [f"f{i}".encode() for i in range(100)]}
    names[b"coarse_label_names"] = [f"s{i}".encode() for i in range(20)]
    (hundred / "meta").write_bytes(pickle.dumps(names))
    for label in range(4):
        (signs / str(label)).mkdir(parents=True)
        for number in range(20):
            pixels = rng.integers(0, 256, (20, 20, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(signs / str(label) / f"{number}.png")
    return root


def keys(*parts: ImageDataset) -> list[bytes]:
    return [row.tobytes() for part in parts for row in image_hashes(part.images)]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SMALL.items():
        monkeypatch.setattr(tasks, name, value)


def test_a_cut_never_shares_an_image_with_its_validation_split(data: Path, small: None) -> None:
    train = tasks.cifar10(data)
    assert len(train) == 1000, "the published test images are left alone"
    for num in (30, None):
        kept, val = tasks.cut(train, num)
        assert (len(kept), len(val)) == (num or 960, 40)
        assert len(set(keys(kept, val))) == len(kept) + len(val)
        assert set(np.bincount(val.labels)) == {4}


def test_classes_alone_and_uneven(data: Path, small: None) -> None:
    pets = tasks.only(tasks.cifar10(data), (3, 5))
    assert pets.class_names == ("c3", "c5")
    assert list(np.bincount(pets.labels)) == [100, 100]
    train, val = tasks.imbalanced(data)
    sizes = np.bincount(train.labels)
    assert (sizes[0], sizes[-1]) == (16, 4)
    assert list(sizes) == sorted(sizes, reverse=True)
    assert len(set(keys(train, val))) == len(train) + len(val)


def test_no_task_holds_a_sign_of_the_fifth_kept_for_the_final_figure(data: Path) -> None:
    from timebox.data import SplitConfig, split_dataset

    final = split_dataset(load_data(data / "sign-digits", image_size=32).splits, SplitConfig(test=0.2)).test
    assert final is not None
    train, val = tasks.signs(data, side=32)
    assert not set(keys(final)) & set(keys(train, val))
    assert len(train) + len(val) + len(final) == 80
    assert train.image_shape == (32, 32, 3)


def test_a_task_reads_back(data: Path, small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(tasks.TASKS, "cifar20-250", lambda root: tasks.cut(tasks.cifar100(root, coarse=True), 60))
    splits = load_data(tasks.write("cifar20-250", data, tmp_path)).splits
    assert splits.val is not None
    assert (len(splits.train), len(splits.val), splits.train.num_classes) == (60, 40, 20)
    assert splits.train.class_names[0] == "s0"
    again = tasks.write("cifar20-250", data, tmp_path / "again")
    assert again.read_bytes() == (tmp_path / "cifar20-250.npz").read_bytes()
    assert np.array_equal(load_data(again).splits.train.images, splits.train.images), "the same ones every time"


def test_fewer_images_can_be_held_out(data: Path, small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(tasks.TASKS, "cifar10-250", lambda root: tasks.cut(tasks.cifar10(root), 60))
    tasks.main([str(data), str(tmp_path / "all"), "cifar10-250"])
    tasks.main([str(data), str(tmp_path / "fewer"), "cifar10-250", "--held-out", "20"])
    whole, fewer = (load_data(tmp_path / name / "cifar10-250.npz").splits for name in ("all", "fewer"))
    assert np.array_equal(whole.train.images, fewer.train.images)
    assert whole.val is not None and fewer.val is not None
    assert (len(whole.val), list(np.bincount(fewer.val.labels))) == (40, [2] * 10)
    assert set(keys(fewer.val)) < set(keys(whole.val))


def test_an_unknown_task_is_refused(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        tasks.main([str(data), str(tmp_path), "cifar11"])
    assert caught.value.code == 2
    assert "unknown: cifar11; the tasks are " in capsys.readouterr().err
