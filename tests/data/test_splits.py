import numpy as np
import pytest

from timebox.data import (
    SourceSplits,
    SplitConfig,
    balanced_cut,
    parse_split_size,
    split_dataset,
    stratified_order,
    stratified_split,
)
from timebox.errors import DataError, UsageError

from .making import dataset

COUNTS = [500, 300, 150, 45, 4, 1]
LABELS = dataset(COUNTS, side=1).labels


def counts(labels, indices):
    return np.bincount(labels[indices], minlength=labels.max() + 1).tolist()


def assert_disjoint_and_whole(number, *parts):
    assert sorted(np.concatenate(parts).tolist()) == list(range(number))
    assert all(part.dtype == np.int64 and (np.diff(part) > 0).all() for part in parts)


@pytest.mark.parametrize("portion", [0.1, 0.2, 0.5, 0.9, 1, 7, 100])
def test_a_stratified_split_is_proportional(portion):
    rest, part = stratified_split(LABELS, portion, seed=0)
    assert_disjoint_and_whole(1000, rest, part)
    num = portion if isinstance(portion, int) else round(portion * 1000)
    assert len(part) == num
    for share, count in zip(counts(LABELS, part), COUNTS, strict=True):
        assert share <= count - 1
        assert abs(share - num * count / 1000) <= 1 or share == count - 1 or num > 800
    assert min(counts(LABELS, rest)) >= 1


def test_a_stratified_split_can_use_the_whole_capacity():
    rest, part = stratified_split(LABELS, 994, seed=0)
    assert counts(LABELS, rest) == [1] * 6
    assert counts(LABELS, part) == [499, 299, 149, 44, 3, 0]


@pytest.mark.parametrize(
    ("portion", "words"),
    [
        (995, r"of 1,000 images is 995: it must give at least 1 image and at most 994, as every class keeps one"),
        (0, "is 0: it must give at least 1 image"),
        (0.0001, "0.0001 of 1,000 images is 0: it must give at least 1"),
        (0.0, "must be a fraction between 0 and 1"),
        (1.0, "num_or_fraction 1 must be a fraction between 0 and 1, both excluded"),
        (float("nan"), "nan must be a fraction"),
    ],
)
def test_impossible_splits_are_refused(portion, words):
    with pytest.raises(UsageError, match=words):
        stratified_split(LABELS, portion, seed=0)


def test_a_balanced_cut_has_equally_many_of_each_class():
    labels = dataset([5000] * 10, side=1).labels
    kept, rest = balanced_cut(labels, 5000, seed=0)
    assert counts(labels, kept) == [500] * 10
    assert_disjoint_and_whole(50000, kept, rest)


@pytest.mark.parametrize(
    ("num", "expected"),
    [(6, [1] * 6), (600, [200, 200, 150, 45, 4, 1]), (1000, COUNTS), (350, [100, 100, 100, 45, 4, 1])],
)
def test_small_classes_of_a_balanced_cut_give_all_they_have(num, expected):
    kept, rest = balanced_cut(LABELS, num, seed=0)
    assert counts(LABELS, kept) == expected
    assert_disjoint_and_whole(1000, kept, rest)


def test_the_seed_distributes_the_remainder_of_a_balanced_cut():
    labels = dataset([50] * 10, side=1).labels
    shares = [counts(labels, balanced_cut(labels, 13, seed)[0]) for seed in range(20)]
    assert all(sorted(share) == [1] * 7 + [2] * 3 for share in shares)
    assert len(set(map(tuple, shares))) > 10


@pytest.mark.parametrize("num", [0, 1001, -1])
def test_impossible_cuts_are_refused(num):
    with pytest.raises(UsageError, match="there are 1,000 to take 1 or more of"):
        balanced_cut(LABELS, num, seed=0)


@pytest.mark.parametrize(("sizes", "slack"), [([100] * 10, 1.0), (COUNTS, 1.5), ([1, 999], 1.0)])
def test_every_prefix_of_a_stratified_order_is_proportional(sizes, slack):
    labels = dataset(sizes, side=1).labels
    order = stratified_order(labels, seed=3)
    assert sorted(order.tolist()) == list(range(len(labels)))
    seen = np.cumsum(labels[order][:, None] == np.arange(len(sizes)), axis=0)
    expected = np.arange(1, len(labels) + 1)[:, None] * np.array(sizes) / len(labels)
    assert np.abs(seen - expected).max() <= slack


@pytest.mark.parametrize(
    "choose",
    [
        lambda seed: stratified_split(LABELS, 0.3, seed)[1],
        lambda seed: balanced_cut(LABELS, 100, seed)[0],
        lambda seed: stratified_order(LABELS, seed),
    ],
)
def test_results_depend_on_the_seed_only(choose):
    first = choose(0)
    np.random.seed(123)
    state = np.random.get_state()[1].copy()
    assert np.array_equal(choose(0), first)
    assert np.array_equal(np.random.get_state()[1], state)
    assert not np.array_equal(choose(1), first)
    with pytest.raises(UsageError, match="split seed -1 must be 0 or more"):
        choose(-1)


def test_cuts_never_change_between_versions():
    """Results are compared across versions: these numbers may never change."""
    labels = np.arange(100) % 5
    assert stratified_split(labels, 5, seed=0)[1].tolist() == [20, 36, 82, 93, 94]
    assert balanced_cut(labels, 5, seed=0)[0].tolist() == [20, 36, 82, 93, 94]
    assert stratified_order(labels, seed=0)[:5].tolist() == [82, 36, 20, 93, 94]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("none", "none"),
        ("rest", "rest"),
        ("0.2", 0.2),
        (0.2, 0.2),
        ("1e-1", 0.1),
        ("held/out", "held/out"),
        (None, None),
    ],
)
def test_parse_split_size(value, expected):
    assert parse_split_size(value, "val") == expected


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("1.5", "test 1.5 must be a fraction between 0 and 1"),
        ("-0.1", "test -0.1 must be"),
        (0, "test 0 must be"),
        ("1", "test 1 must be"),
        ("nan", "test nan must be"),
        ("rest", "test cannot be 'rest', as val can: give a fraction, a path or 'none'"),
        ("", "test is empty"),
    ],
)
def test_split_sizes_out_of_range_are_refused(value, words):
    with pytest.raises(UsageError, match=words):
        parse_split_size(value, "test")


TRAIN, OWN_VAL, OWN_TEST = dataset([100] * 10), dataset([5] * 10, seed=1), dataset([20] * 10, seed=2)
BARE = SourceSplits(TRAIN, None, None)
FULL = SourceSplits(TRAIN, OWN_VAL, OWN_TEST)


def sizes(data_splits):
    return tuple(0 if part is None else len(part) for part in (data_splits.train, data_splits.val, data_splits.test))


@pytest.mark.parametrize(
    ("splits", "options", "expected"),
    [
        (BARE, {}, (900, 100, 0)),
        (FULL, {}, (1000, 50, 200)),
        (BARE, {"val": "none"}, (1000, 0, 0)),
        (FULL, {"val": "none", "test": "none"}, (1000, 0, 0)),
        (FULL, {"val": 0.2}, (800, 200, 200)),
        (BARE, {"test": 0.2}, (720, 80, 200)),
        (FULL, {"test": 0.2}, (800, 50, 200)),
        (FULL, {"train_limit": 500}, (500, 50, 200)),
        (BARE, {"train_limit": 500}, (450, 50, 0)),
        (BARE, {"train_limit": 500, "val": 0.2}, (400, 100, 0)),
        (BARE, {"train_limit": 500, "val": "none"}, (500, 0, 0)),
        (BARE, {"train_limit": 500, "val": "rest"}, (500, 500, 0)),
        (FULL, {"train_limit": 300, "val": "rest", "test": 0.1, "test_limit": 50}, (300, 600, 50)),
        (BARE, {"train_limit": 500, "val": OWN_VAL, "test": OWN_TEST, "test_limit": 100}, (500, 50, 100)),
        (FULL, {"train_limit": 1000, "test_limit": 200}, (1000, 50, 200)),
    ],
)
def test_splits_have_the_configured_sizes(splits, options, expected):
    data_splits = split_dataset(splits, SplitConfig(**options))
    assert sizes(data_splits) == expected
    for part in (data_splits.train, data_splits.val, data_splits.test):
        if part is not None:
            assert len(set(part.class_counts().tolist())) == 1
    from_train = [
        {f"{image_id}" for image_id in part.ids}
        for part, origin in (
            (data_splits.train, data_splits.train_origin),
            (data_splits.val, data_splits.val_origin),
            (data_splits.test, data_splits.test_origin),
        )
        if part is not None and origin.split == "train"
    ]
    assert len(set.union(*from_train)) == sum(map(len, from_train))


def test_origins_lead_back_to_the_source():
    data_splits = split_dataset(BARE, SplitConfig(test=0.2, train_limit=300, val=OWN_VAL))
    assert (data_splits.val_origin.split, data_splits.val_origin.indices) == ("external", None)
    for part, origin in ((data_splits.train, data_splits.train_origin), (data_splits.test, data_splits.test_origin)):
        assert origin.split == "train"
        assert np.array_equal(part.images, TRAIN.images[origin.indices])
    whole = split_dataset(FULL, SplitConfig())
    assert whole.train is TRAIN
    assert [origin.split for origin in (whole.train_origin, whole.val_origin, whole.test_origin)] == [
        "train",
        "val",
        "test",
    ]


def test_the_default_val_is_at_most_ten_thousand_images():
    many = dataset([75_000, 75_000], side=1, channels=1)
    assert sizes(split_dataset(SourceSplits(many, None, None), SplitConfig())) == (140_000, 10_000, 0)


def test_a_class_with_one_image_stays_in_train():
    data_splits = split_dataset(SourceSplits(dataset([30, 30, 1]), None, None), SplitConfig(val=0.3, test=0.2))
    assert data_splits.train.class_counts()[2] == 1
    assert data_splits.val.class_counts()[2] == data_splits.test.class_counts()[2] == 0


def test_classes_of_one_image_have_no_default_val():
    assert sizes(split_dataset(SourceSplits(dataset([1, 1]), None, None), SplitConfig())) == (2, 0, 0)
    assert sizes(split_dataset(SourceSplits(dataset([2, 1]), None, None), SplitConfig())) == (2, 1, 0)


@pytest.mark.parametrize(
    ("splits", "options", "words"),
    [
        (BARE, {"val": "rest"}, "val 'rest' needs a train_limit below the number of images"),
        (BARE, {"val": "rest", "train_limit": 1000}, "val 'rest' needs a train_limit below"),
        (BARE, {"train_limit": 1001}, "train_limit 1,001 is not possible: .* at most 1,000, the images there are"),
        (BARE, {"train_limit": 901, "test": 0.1}, "at most 900, the images there are"),
        (BARE, {"train_limit": 9}, "train_limit 9 is not possible: it must be at least 10, an image a class,"),
        (FULL, {"test_limit": 201}, "test_limit 201 is not possible: .* at most 200"),
        (FULL, {"test_limit": 0}, "test_limit 0 is not possible: it must be at least 1 and"),
        (BARE, {"test_limit": 10}, "test_limit 10 has no test images to cut: give test a fraction or a path"),
        (BARE, {"val": 1.0}, "val 1 must be a fraction between 0 and 1"),
        (BARE, {"test": 0.0}, "test 0 must be a fraction"),
        (BARE, {"test": 0.0001}, "test 0.0001 of 1,000 images is 0: it must give at least 1 image"),
        (BARE, {"val": "photos"}, "val 'photos' must be a fraction, 'none' or 'rest', or the images of a path"),
        (BARE, {"test": "rest"}, "test 'rest' must be a fraction or 'none'"),
        (FULL, {"split_seed": -1}, "split seed -1 must be 0 or more"),
    ],
)
def test_impossible_configs_are_refused(splits, options, words):
    with pytest.raises(UsageError, match=words):
        split_dataset(splits, SplitConfig(**options))


def test_a_val_of_unknown_classes_is_refused():
    with pytest.raises(DataError, match="val has images of classes unknown to training"):
        split_dataset(SourceSplits(dataset([5, 5]), None, None), SplitConfig(val=dataset([5, 5, 5])))


def test_the_split_seed_changes_every_cut():
    options = {"test": 0.2, "train_limit": 300, "val": 0.2}
    first, again, other = (split_dataset(BARE, SplitConfig(**options, split_seed=seed)) for seed in (0, 0, 1))
    assert first.train.ids == again.train.ids and first.test.ids == again.test.ids
    assert first.train.ids != other.train.ids
    assert first.val.ids != other.val.ids
    assert first.test.ids != other.test.ids
