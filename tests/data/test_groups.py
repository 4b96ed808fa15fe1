import time

import numpy as np
import pytest

from timebox.data import SourceSplits, SplitConfig, split_dataset
from timebox.data.dataset import ImageDataset
from timebox.data.groups import assign_groups, count_shared_groups, guess_group_pattern, split_by_group
from timebox.errors import UsageError


def tracks(num_classes=4, per_class=15, frames=12):
    """Images of tracks, each in a class, as (ids, labels)."""
    ids, labels = [], []
    for c in range(num_classes):
        for track in range(per_class):
            for frame in range(frames):
                ids.append(f"{c}/{track:05d}_{frame:05d}.ppm")
                labels.append(c)
    return ids, np.array(labels)


def dataset(ids, labels):
    names = tuple(map(str, range(int(labels.max()) + 1)))
    images = np.arange(len(labels) * 64, dtype=np.uint32).astype(np.uint8).reshape(-1, 8, 8, 1)
    return ImageDataset(images, labels.astype(np.int64), names, tuple(ids))


def test_groups_follow_the_pattern():
    ids = ["a/v1_0.png", "a/v1_1.png", "b/v2_0.png", "b/other.png", "c/other.png"]
    assert assign_groups(ids, r"(v\d+)_").tolist() == [0, 0, 1, 2, 3]
    assert assign_groups(ids, r"v\d").tolist() == [0, 0, 1, 2, 3]
    assert assign_groups(["0", "x"], "x").tolist() == [0, 1]
    assert assign_groups(["a1_", "b1_", "b2_", "b2_"], r"a(\d)_|b(\d)_").tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize(("pattern", "words"), [("(", "is no regular expression"), ("zzz", "matches no image; the")])
def test_invalid_patterns_are_refused(pattern, words):
    with pytest.raises(UsageError, match=words):
        assign_groups(["a.png"], pattern)


@pytest.mark.parametrize("seed", range(5))
def test_no_group_is_in_both_parts_and_class_proportions_are_kept(seed):
    ids, labels = tracks()
    groups = assign_groups(ids, r"(.*)_")
    rest, part = split_by_group(labels, groups, len(ids) // 5, seed)
    assert not set(groups[rest]) & set(groups[part])
    assert sorted([*rest, *part]) == list(range(len(ids)))
    assert np.abs(np.bincount(labels[part]) - 36).max() <= 12
    assert split_by_group(labels, groups, len(ids) // 5, seed)[1].tolist() == part.tolist()


def test_a_class_of_one_group_stays_in_train():
    labels, groups = np.array([0] * 10 + [1] * 10), np.array([*range(10), *[99] * 10])
    rest, part = split_by_group(labels, groups, 10, 0)
    assert set(labels[part]) == {0}
    assert (labels[rest] == 1).sum() == 10


@pytest.mark.parametrize("options", [{"val": 0.2}, {}, {"val": 0.2, "test": 0.2}, {"train_limit": 80, "val": "rest"}])
def test_splits_share_no_groups(options):
    ids, labels = tracks()
    data_splits = split_dataset(
        SourceSplits(dataset(ids, labels), None, None), SplitConfig(group_by=r"(.*)_", **options)
    )
    parts = [part for part in (data_splits.train, data_splits.val, data_splits.test) if part is not None]
    assert len(parts) == 2 + ("test" in options)
    for i, one in enumerate(parts):
        for other in parts[i + 1 :]:
            assert count_shared_groups(one.ids, other.ids, r"(.*)_") == 0


def test_splits_that_groups_make_impossible_are_refused():
    ids, labels = tracks(per_class=1)
    with pytest.raises(
        UsageError, match=r"val 0\.2 is not possible with group_by: no group can be split off: every class"
    ):
        split_dataset(SourceSplits(dataset(ids, labels), None, None), SplitConfig(group_by=r"(.*)_", val=0.2))
    with pytest.raises(UsageError, match="all groups left out are trained on too"):
        split_dataset(
            SourceSplits(dataset(ids, labels), None, None), SplitConfig(group_by=r"(.*)_", val="rest", train_limit=8)
        )


def test_frame_series_are_recognized_by_file_name():
    ids, labels = tracks()
    pattern, number = guess_group_pattern(ids, labels)
    assert number == 60
    assert len(set(assign_groups(ids, pattern))) == 60


@pytest.mark.parametrize("name", ["{c}/IMG_{k:04d}.jpg", "{c}/cat.{k}.jpg", "{c}/{k}.png", "{k}"])
def test_numbered_photos_are_not_frame_series(name):
    labels = np.arange(400) % 4
    assert guess_group_pattern([name.format(c=k % 4, k=k) for k in range(400)], labels) is None


SLOW = f"it is not done with 'x/{'a' * 40}!' after 2 s; a repeat within a repeat, such as (a+)+, may take for ever"


@pytest.mark.parametrize("pattern", [r"(a+)+$", r"(a|aa)+$", r"(a*)*$", r"^x/(\w+\s?)*$"])
def test_a_pattern_that_takes_for_ever_ends(pattern):
    begin = time.monotonic()
    with pytest.raises(UsageError) as refused:
        assign_groups(["x/b.png", "x/" + "a" * 40 + "!"], pattern)
    assert time.monotonic() - begin < 20
    assert str(refused.value).startswith(f"group_by {pattern!r} takes too long: {SLOW}")


def test_all_paths_have_the_time_that_is_left():
    with pytest.raises(UsageError, match=r"takes too long: it is not done with 400,000 paths after 2\.0s; a repeat"):
        assign_groups([f"{'a' * 17}{number}!" for number in range(400_000)], r"(a+)+$", seconds=0.1)


def test_patterns_are_matched_where_no_interpreter_can_be_started(monkeypatch):
    monkeypatch.setattr("timebox.processes.children.sys.executable", "")
    assert assign_groups(["v1_0", "v1_1", "v2_0"], r"(v\d)_").tolist() == [0, 0, 1]
    with pytest.raises(
        UsageError, match=r"group_by '\(' is no regular expression: missing \), unterminated subpattern"
    ):
        assign_groups(["a"], "(")


def test_the_matching_process_runs_no_code_of_the_working_directory(tmp_path, monkeypatch):
    for name in ("re", "json", "signal"):
        (tmp_path / f"{name}.py").write_text("open('ran', 'w')\nraise SystemExit\n")
    monkeypatch.chdir(tmp_path)
    assert assign_groups(["a1", "a1", "b2"], r"\d").tolist() == [0, 0, 1]
    assert not (tmp_path / "ran").exists()


def test_names_that_are_no_unicode_are_matched():
    assert assign_groups(["\udcff_1", "\udcff_2", "é\n_3"], r"(?s)(.*)_").tolist() == [0, 0, 1]
