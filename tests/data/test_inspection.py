import hashlib
import json

import numpy as np
import pytest

from timebox.data import (
    ImageDataset,
    LoadedData,
    SourceSplits,
    channel_statistics,
    image_hashes,
    inspect_data,
    load_data,
)

from .making import dataset, photo_folder


def loaded(train, test=None):
    return LoadedData("set", "test", SourceSplits(train, None, test), (), {}, {}, ())


def test_hashes_depend_on_the_pixels_only():
    images = dataset([3, 2]).images
    hashes = image_hashes(images)
    assert (hashes.dtype, hashes.shape) == (np.uint64, (5,))
    expected = hashlib.blake2b(images[3].tobytes(), digest_size=8).digest()
    assert int(hashes[3]) == int.from_bytes(expected, "little")
    assert np.array_equal(image_hashes(images[::2]), hashes[::2])
    assert image_hashes(images[:0]).shape == (0,)


def test_channel_statistics_equal_numpy():
    images = np.random.default_rng(0).integers(0, 256, (3000, 4, 4, 3), dtype=np.uint8)
    images[..., 1] //= 2
    mean, std = channel_statistics(images)
    assert mean == pytest.approx((images / 255).mean((0, 1, 2)).tolist())
    assert std == pytest.approx((images / 255).std((0, 1, 2)).tolist())
    assert channel_statistics(np.full((2, 4, 4, 1), 255, np.uint8)) == ((1.0,), (0.0,))


def test_duplicates_are_found_within_and_across_splits():
    train, test = dataset([4, 4]), dataset([2, 2], seed=1)
    images, labels = train.images.copy(), train.labels.copy()
    images[6] = images[2]
    labels[6], labels[2] = 1, 0
    train = ImageDataset(images, labels, train.class_names, train.ids)
    test.images[1], test.labels[1] = train.images[0], train.labels[0]
    within, across = inspect_data(loaded(train, test)).duplicates
    assert (within.where, within.num_images, within.num_relabelled, within.examples) == ("train", 1, 1, (("2", "6"),))
    assert (across.where, across.num_images, across.num_relabelled) == ("train and test", 1, 0)
    assert across.examples == (("0", "1"),)


def test_distinct_images_have_no_duplicates():
    assert inspect_data(loaded(dataset([4, 4]), dataset([2, 2], seed=1))).duplicates == ()


def test_an_inspection_converts_to_json(tmp_path):
    photo_folder(tmp_path / "train", per_class=9)
    photo_folder(tmp_path / "test", ("dog",), per_class=2)
    (tmp_path / "train" / "cat" / "0.png").write_bytes(b"")
    inspection = inspect_data(load_data(tmp_path))
    content = json.loads(json.dumps(inspection.as_dict()))
    assert content["class_counts"] == {"train": {"cat": 8, "dog": 9}, "test": {"cat": 0, "dog": 2}}
    assert content["num_images"] == {"train": 17, "test": 2}
    assert (content["num_classes"], content["working_size"]) == (2, [16, 16, 3])
    assert content["bad_files"] == [{"path": "train/cat/0.png", "reason": "empty file (0 bytes)"}]
    assert content["sizes"] == {"16x16": 19}
    assert len(content["mean"]) == len(content["std"]) == 3
    assert [d["where"] for d in content["duplicates"]] == ["train and test"]
