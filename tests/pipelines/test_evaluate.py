"""Evaluation: which images are scored, what is counted, and what was seen in training."""

import shutil
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


def test_by_default_the_part_the_run_held_out(trained: Run, data: Path) -> None:
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
def test_every_part_can_be_asked_for(split: str, num_images: int, num_seen: int, trained: Run, data: Path) -> None:
    result = evaluate(trained, data, split=split)
    assert (result.split, result.num_images, result.num_seen_in_training) == (split, num_images, num_seen)
    if split == "val":
        assert result.accuracy == pytest.approx(trained.val_accuracy)


def test_the_figures_add_up(trained: Run, data: Path) -> None:
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


def test_class_figures() -> None:
    confusion = np.array([[6, 2, 0, 0], [1, 3, 0, 0], [0, 0, 0, 0], [2, 0, 0, 0]])
    a, b, unseen, missed = per_class_metrics(("a", "b", "unseen", "missed"), confusion)
    assert (a.num_images, a.precision, a.recall, a.f1) == (8, 6 / 9, 6 / 8, pytest.approx(12 / 17))
    assert (b.precision, b.recall, b.f1) == (3 / 5, 3 / 4, pytest.approx(6 / 9))
    assert (unseen.num_images, unseen.precision, unseen.recall, unseen.f1) == (0, 0.0, 0.0, 0.0)
    assert (missed.num_images, missed.precision, missed.recall, missed.f1) == (2, 0.0, 0.0, 0.0)


def test_by_default_the_datas_own_test_split(trained: Run, tmp_path: Path) -> None:
    result = evaluate(trained, save_npz(tmp_path / "other.npz", num=90, num_test=45))
    assert (result.split, result.num_images) == ("test", 45)
    assert result.num_seen_in_training == 90 * 0


def test_the_own_test_split_in_full_even_where_the_run_cut_it(tmp_path: Path) -> None:
    data = save_npz(tmp_path / "data.npz", num=90, num_test=45)
    run = quick(data, tmp_path / "run", test_limit=15)
    assert run.summary["test_images_total"] == 15
    result = evaluate(run, data)
    assert (result.num_images, result.num_images_total) == (45, 45)


def test_by_default_the_validation_part_where_there_is_no_test(data: Path, tmp_path: Path) -> None:
    run = quick(data, tmp_path / "run")
    result = evaluate(run, data)
    assert (result.split, result.num_images, result.num_seen_in_training) == ("val", 15, 0)
    assert result.accuracy == pytest.approx(run.val_accuracy)


def test_by_default_everything_of_foreign_data(trained: Run, tmp_path: Path) -> None:
    images, labels = coloured(40, seed=77)
    np.savez(tmp_path / "foreign.npz", images=images, labels=labels, class_names=np.array(CLASSES))
    result = evaluate(trained, tmp_path / "foreign.npz")
    assert (result.split, result.num_images, result.num_seen_in_training) == ("all", 40, 0)


def test_everything_where_nothing_was_held_out(data: Path, tmp_path: Path) -> None:
    run = quick(data, tmp_path / "run", val="none", test="none")
    result = evaluate(run, data)
    assert (result.split, result.num_images, result.num_seen_in_training) == ("all", 150, 150)


def test_images_seen_in_training_are_found_in_foreign_data(trained: Run, data: Path, tmp_path: Path) -> None:
    images, labels = coloured(150)
    order = np.random.default_rng(1).permutation(150)[:50]
    names = np.array(CLASSES)
    np.savez(tmp_path / "part.npz", images=images[order], labels=labels[order], class_names=names)
    seen = evaluate(trained, data, split="all").num_seen_in_training
    assert seen == 113
    result = evaluate(trained, tmp_path / "part.npz")
    assert result.split == "all"
    assert 25 <= result.num_seen_in_training < 50


def test_a_cut_is_made_again_by_its_own_seed(data: Path, tmp_path: Path) -> None:
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


def test_images_of_another_size(trained: Run, tmp_path: Path) -> None:
    images, labels = coloured(30, side=17, seed=8)
    np.savez(tmp_path / "large.npz", images=images, labels=labels, class_names=np.array(CLASSES))
    result = evaluate(trained, tmp_path / "large.npz")
    assert result.accuracy > 0.9
    assert any("17x17 brought to 8x8" in note for note in result.notes)


def test_a_balanced_cut(trained: Run, data: Path) -> None:
    result = evaluate(trained, data, split="all", test_limit=30)
    assert (result.num_images, result.num_images_total) == (30, 150)
    assert result.confusion.sum(1).tolist() == [10, 10, 10]
    np.testing.assert_array_equal(result.confusion, evaluate(trained, data, split="all", test_limit=30).confusion)


@pytest.mark.parametrize("limit", [0, 25, -1])
def test_a_cut_that_cannot_be(limit: int, trained: Run, data: Path) -> None:
    assert refusal(lambda: evaluate(trained, data, test_limit=limit)) == (
        f"test_limit {limit} must be between 1 and the 24 images of 'test'"
        if limit > 0
        else f"test_limit {limit} must be a whole number of at least 1"
    )


def test_what_cannot_be_scored(trained: Run, data: Path, tmp_path: Path) -> None:
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
            f"split {split!r}: these data have none, and the run held none out of them; use --split all"
        )
    assert refusal(lambda: evaluate(tmp_path / "missing", data), RunError) == (
        f"run {str(tmp_path / 'missing')!r} does not exist"
    )


def test_mirrored_scoring_is_told(trained: Run, data: Path) -> None:
    assert evaluate(trained, data, tta="mirror").tta == "mirror"


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY\x01\x00", b"nonsense"])
def test_damaged_hashes_are_named(content: bytes, trained: Run, data: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(trained.path, tmp_path / "copy"))
    (copy / "trained_on.npy").write_bytes(content)
    message = refusal(lambda: evaluate(copy, data), RunError)
    assert message.startswith(f"{str(copy / 'trained_on.npy')!r} cannot be read: ")


def test_hashes_of_a_wrong_kind_or_none(trained: Run, data: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(trained.path, tmp_path / "copy"))
    np.save(copy / "trained_on.npy", np.zeros((2, 2)))
    assert refusal(lambda: evaluate(copy, data), RunError) == (
        f"{str(copy / 'trained_on.npy')!r} cannot be read: it holds no image hashes"
    )
    (copy / "trained_on.npy").unlink()
    result = evaluate(copy, data)
    assert (result.split, result.num_seen_in_training) == ("all", 0)


def test_a_source_that_makes_no_sense(trained: Run, data: Path, tmp_path: Path) -> None:
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


def test_the_validation_part_of_a_run_goes_before_the_datas_own(tmp_path: Path) -> None:
    data = save_npz(tmp_path / "data.npz", num=90, num_val=45)
    assert evaluate(quick(data, tmp_path / "own"), data, split="val").num_images == 45
    assert evaluate(quick(data, tmp_path / "cut", val=0.2), data, split="val").num_images == 18


def test_a_validation_part_that_lies_elsewhere_is_read_there(data: Path, tmp_path: Path) -> None:
    images, labels = coloured(33, seed=9)
    np.savez(tmp_path / "other.npz", images=images, labels=labels, class_names=np.array(CLASSES))
    run = quick(data, tmp_path / "run", val=tmp_path / "other.npz")
    result = evaluate(run, data, split="val")
    assert (result.split, result.num_images) == ("val", 33)
    assert result.accuracy == pytest.approx(run.val_accuracy)
    assert evaluate(run, data).split == "all", "what lies elsewhere is no part of these data"
