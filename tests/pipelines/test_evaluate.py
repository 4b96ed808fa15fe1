"""timebox.evaluate: the split that is scored, the metrics, and the count of training images."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from small_runs import CLASSES, coloured, quick, save_npz
from timebox.errors import DataError, RunError, UsageError
from timebox.pipelines import Evaluation, evaluate
from timebox.pipelines.evaluate import per_class_metrics
from timebox.run import Run


def refusal(call: Callable[[], object], error: type[Exception] = UsageError) -> str:
    with pytest.raises(error) as caught:
        call()
    return str(caught.value)


def test_default_split_is_the_test_split_the_run_cut(trained: Run, data: Path) -> None:
    result = evaluate(trained, data)
    assert (result.split, result.num_images, result.num_images_total) == ("test", 24, 24)
    assert result.num_seen_in_training == 0
    assert result.accuracy == pytest.approx(trained.test_accuracy)
    assert (result.run, result.data, result.tta) == (str(trained.path), str(data), "none")
    assert result.seconds >= 0
    assert evaluate(trained.path, data, device="cpu").accuracy == result.accuracy


@pytest.mark.parametrize(
    ("split", "num_images", "num_seen"), [("test", 24, 0), ("val", 13, 0), ("train", 113, 113), ("all", 150, 113)]
)
def test_every_split_can_be_scored(split: str, num_images: int, num_seen: int, trained: Run, data: Path) -> None:
    result = evaluate(trained, data, split=split)
    assert (result.split, result.num_images, result.num_seen_in_training) == (split, num_images, num_seen)
    if split == "val":
        assert result.accuracy == pytest.approx(trained.val_accuracy)


def test_metrics_are_consistent(trained: Run, data: Path) -> None:
    result = evaluate(trained, data, split="all")
    assert result.confusion.shape == (3, 3)
    assert result.confusion.dtype == np.int64
    assert result.confusion.sum() == 150
    assert result.accuracy == pytest.approx(result.confusion.trace() / 150)
    assert [figures.name for figures in result.classes] == list(CLASSES)
    assert [figures.num_images for figures in result.classes] == result.confusion.sum(1).tolist() == [50, 50, 50]
    ready = result.as_dict()
    assert list(ready) == list(Evaluation.__dataclass_fields__)
    assert ready["confusion"] == result.confusion.tolist()
    assert result.num_correct == result.confusion.trace()
    counts = np.zeros((3, 3), np.int64)
    for label, predicted, count in ready["confusion_pairs"]:
        counts[label, predicted] = count
    np.testing.assert_array_equal(counts, result.confusion)


def test_above_2000_classes_there_are_pairs_and_no_matrix(
    trained: Run, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["timebox.pipelines.evaluate"], "MAX_MATRIX_CLASSES", 2)
    result = evaluate(trained, data, split="all")
    assert result.confusion is None
    assert result.as_dict()["confusion"] is None
    assert result.confusion_pairs[:, 2].sum() == 150


def test_per_class_metrics() -> None:
    confusion = np.array([[0, 0, 6], [0, 1, 2], [1, 0, 1], [1, 1, 3], [3, 0, 2]])
    a, b, unseen, missed = per_class_metrics(("a", "b", "unseen", "missed"), confusion)
    assert (a.num_images, a.precision, a.recall, a.f1) == (8, 6 / 9, 6 / 8, pytest.approx(12 / 17))
    assert (b.precision, b.recall, b.f1) == (3 / 5, 3 / 4, pytest.approx(6 / 9))
    assert (unseen.num_images, unseen.precision, unseen.recall, unseen.f1) == (0, 0.0, 0.0, 0.0)
    assert (missed.num_images, missed.precision, missed.recall, missed.f1) == (2, 0.0, 0.0, 0.0)


def test_default_split_is_the_datas_own_test_split(trained: Run, tmp_path: Path) -> None:
    result = evaluate(trained, save_npz(tmp_path / "other.npz", num=90, num_test=45))
    assert (result.split, result.num_images) == ("test", 45)
    assert result.num_seen_in_training == 90 * 0


def test_the_datas_own_test_split_is_scored_in_full_despite_test_limit(tmp_path: Path) -> None:
    data = save_npz(tmp_path / "data.npz", num=90, num_test=45)
    run = quick(data, tmp_path / "run", test_limit=15)
    assert run.summary["test_images_total"] == 15
    result = evaluate(run, data)
    assert (result.num_images, result.num_images_total) == (45, 45)


def test_default_split_without_test_is_val(data: Path, tmp_path: Path) -> None:
    run = quick(data, tmp_path / "run")
    result = evaluate(run, data)
    assert (result.split, result.num_images, result.num_seen_in_training) == ("val", 15, 0)
    assert result.accuracy == pytest.approx(run.val_accuracy)


def test_default_split_of_other_data_is_all(trained: Run, tmp_path: Path) -> None:
    images, labels = coloured(40, seed=77)
    np.savez(tmp_path / "foreign.npz", images=images, labels=labels, class_names=np.array(CLASSES))
    result = evaluate(trained, tmp_path / "foreign.npz")
    assert (result.split, result.num_images, result.num_seen_in_training) == ("all", 40, 0)


def test_default_split_without_holdout_is_all(data: Path, tmp_path: Path) -> None:
    run = quick(data, tmp_path / "run", val="none", test="none")
    result = evaluate(run, data)
    assert (result.split, result.num_images, result.num_seen_in_training) == ("all", 150, 150)


def test_training_images_are_counted_in_other_data(trained: Run, data: Path, tmp_path: Path) -> None:
    images, labels = coloured(150)
    order = np.random.default_rng(1).permutation(150)[:50]
    names = np.array(CLASSES)
    np.savez(tmp_path / "part.npz", images=images[order], labels=labels[order], class_names=names)
    seen = evaluate(trained, data, split="all").num_seen_in_training
    assert seen == 113
    result = evaluate(trained, tmp_path / "part.npz")
    assert result.split == "all"
    assert 25 <= result.num_seen_in_training < 50


def test_splits_of_the_run_are_repeated_by_its_split_seed(data: Path, tmp_path: Path) -> None:
    run = quick(data, tmp_path / "run", train_limit=60, val="rest", split_seed=5)
    result = evaluate(run, data)
    assert (result.split, result.num_images, result.num_seen_in_training) == ("val", 90, 0)
    assert evaluate(run, data, split="train").num_seen_in_training == 60


def test_classes_are_matched_by_name(trained: Run, tmp_path: Path) -> None:
    images, labels = coloured(60, seed=8)
    np.savez(
        tmp_path / "data.npz",
        images=images,
        labels=np.array([2, 0, 3])[labels],
        class_names=np.array(["green", "never seen", "red", "blue"]),
    )
    result = evaluate(trained, tmp_path / "data.npz")
    assert result.accuracy > 0.9
    assert [figures.num_images for figures in result.classes] == [20, 20, 20]


def test_unknown_classes_are_refused(trained: Run, tmp_path: Path) -> None:
    save_npz(tmp_path / "data.npz", names=("red", "green", "violet"))
    message = refusal(lambda: evaluate(trained, tmp_path / "data.npz"), DataError)
    assert "classes unknown to training (violet); known are red, green, blue" in message


def test_images_of_another_size_are_resized(trained: Run, tmp_path: Path) -> None:
    images, labels = coloured(30, side=17, seed=8)
    np.savez(tmp_path / "large.npz", images=images, labels=labels, class_names=np.array(CLASSES))
    result = evaluate(trained, tmp_path / "large.npz")
    assert result.accuracy > 0.9
    assert any("17x17 resized to 8x8" in note for note in result.notes)


def test_test_limit_scores_a_balanced_cut(trained: Run, data: Path) -> None:
    result = evaluate(trained, data, split="all", test_limit=30)
    assert (result.num_images, result.num_images_total) == (30, 150)
    assert result.confusion.sum(1).tolist() == [10, 10, 10]
    np.testing.assert_array_equal(result.confusion, evaluate(trained, data, split="all", test_limit=30).confusion)


@pytest.mark.parametrize("limit", [0, 25, -1])
def test_test_limit_out_of_range_is_refused(limit: int, trained: Run, data: Path) -> None:
    assert refusal(lambda: evaluate(trained, data, test_limit=limit)) == (
        f"test_limit {limit} must be between 1 and the 24 images of 'test'"
        if limit > 0
        else f"test_limit {limit} must be a whole number of at least 1"
    )


def test_unknown_splits_tta_and_runs_are_refused(trained: Run, data: Path, tmp_path: Path) -> None:
    assert refusal(lambda: evaluate(trained, data, split="tset")) == (
        "split 'tset' must be one of test, val, train, all; did you mean 'test'?"
    )
    assert (
        refusal(lambda: evaluate(trained, data, tta="ten"))
        == "tta 'ten' must be one of recipe, none, mirror, shift, mirror_shift"
    )
    foreign = tmp_path / "foreign.npz"
    save_npz(foreign, num=30)
    for split in ("val", "test"):
        assert refusal(lambda split=split: evaluate(trained, foreign, split=split)) == (  # type: ignore[misc]
            f'split {split!r}: these data have none, and the run held none out of them; use split="all"'
        )
    assert refusal(lambda: evaluate(tmp_path / "missing", data), RunError) == (
        f"run {str(tmp_path / 'missing')!r} does not exist"
    )


def test_the_tta_used_is_reported(trained: Run, data: Path) -> None:
    assert evaluate(trained, data, tta="mirror").tta == "mirror"


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY\x01\x00", b"nonsense"])
def test_damaged_hashes_are_named(content: bytes, trained: Run, data: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(trained.path, tmp_path / "copy"))
    (copy / "trained_on.npy").write_bytes(content)
    message = refusal(lambda: evaluate(copy, data), RunError)
    assert message.startswith(f"{str(copy / 'trained_on.npy')!r} cannot be read: ")


def test_hashes_of_a_wrong_dtype_or_missing(trained: Run, data: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(trained.path, tmp_path / "copy"))
    np.save(copy / "trained_on.npy", np.zeros((2, 2)))
    assert refusal(lambda: evaluate(copy, data), RunError) == (
        f"{str(copy / 'trained_on.npy')!r} cannot be read: it holds no image hashes"
    )
    (copy / "trained_on.npy").unlink()
    result = evaluate(copy, data)
    assert (result.split, result.num_seen_in_training) == ("all", 0)


def test_a_damaged_data_config_is_named(trained: Run, data: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(trained.path, tmp_path / "copy"))
    model = (copy / "model.json").read_text()
    (copy / "model.json").write_text(model.replace('"split_seed"', '"splitseed"'))
    assert refusal(lambda: evaluate(copy, data), RunError) == (
        f"model.json of {str(copy)!r} is damaged: its source is incomplete"
    )
    (copy / "model.json").write_text(model.replace('"split_seed": 0', '"split_seed": [0]'))
    assert refusal(lambda: evaluate(copy, data), RunError) == (
        f"model.json of {str(copy)!r} is damaged: its source: split_seed [0] must be a whole number of at least 0"
    )


def test_the_runs_own_val_split_precedes_the_datas(tmp_path: Path) -> None:
    data = save_npz(tmp_path / "data.npz", num=90, num_val=45)
    assert evaluate(quick(data, tmp_path / "own"), data, split="val").num_images == 45
    assert evaluate(quick(data, tmp_path / "cut", val=0.2), data, split="val").num_images == 18


def test_a_val_split_with_a_path_of_its_own_is_read(data: Path, tmp_path: Path) -> None:
    images, labels = coloured(33, seed=9)
    np.savez(tmp_path / "other.npz", images=images, labels=labels, class_names=np.array(CLASSES))
    run = quick(data, tmp_path / "run", val=tmp_path / "other.npz")
    result = evaluate(run, data, split="val")
    assert (result.split, result.num_images) == ("val", 33)
    assert result.accuracy == pytest.approx(run.val_accuracy)
    assert evaluate(run, data).split == "all", "a split with a path of its own is no part of these data"
