"""Temporary directories of replacements are ours only with their token; neighbours are left alone."""

import os
import shutil
import sys
from pathlib import Path

import pytest

from cut_runs import STEPS, KilledError, cut, names
from small_runs import FILES, fail, quick, weights
from timebox.errors import OutputError, UsageError
from timebox.files.folders import Folder
from timebox.pipelines import train
from timebox.run import load
from timebox.run.directories import replacement
from timebox.run.directories.locks import locked_run
from timebox.run.directories.replacement import make_beside, place_of
from timebox.run.writer import RunWriter


def photo(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "a.png").write_bytes(b"of the user")
    return folder / "a.png"


def begun_replacement(data: Path, run: Path) -> Path:
    """The directory of a training that is to replace ``run``, stopped after its first checkpoint."""
    quick(data, run, steps=2)
    return cut(6, KeyboardInterrupt, quick, data, run, STEPS, seed=4, overwrite=True).path


@pytest.mark.parametrize("name", [".holiday.new-abc", ".holiday.new-0123456789abcdef", ".holiday.old-0123456789abcdef"])
def test_a_run_that_is_named_like_a_replacement_is_resumed_in_place(name: str, data: Path, tmp_path: Path) -> None:
    cut(6, KeyboardInterrupt, quick, data, tmp_path / "run", STEPS)
    (tmp_path / "run").rename(tmp_path / name)
    mine = photo(tmp_path / "holiday")
    assert train(resume=tmp_path / name).path == tmp_path / name
    assert mine.exists()
    assert names(tmp_path) == {name, "holiday"}
    assert names(tmp_path / name) == FILES


@pytest.mark.parametrize("change", ["copied", "moved", "renamed", "without its token", "with another token"])
def test_a_replacement_that_is_not_where_it_was_begun_is_resumed_in_place(
    change: str, data: Path, tmp_path: Path
) -> None:
    begun = begun_replacement(data, tmp_path / "run")
    if change in ("copied", "moved"):
        (tmp_path / "elsewhere").mkdir()
        quick(data, tmp_path / "elsewhere" / "run")
        other = tmp_path / "elsewhere" / begun.name
        shutil.copytree(begun, other) if change == "copied" else begun.rename(other)
    elif change == "renamed":
        other = begun.rename(tmp_path / ".run.new-0123456789abcdef")
    else:
        other = begun
        (begun / "replacement.txt").unlink()
        if change == "with another token":
            (begun / "replacement.txt").write_text("0" * 16 + "\n")
    neighbour = weights(load(other.parent / "run"))
    assert place_of(other) is None
    assert train(resume=other).path == other
    assert weights(load(other.parent / "run")) == neighbour


def test_a_replacement_is_resumed_from_within_its_directory(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    begun = begun_replacement(data, run)
    old = weights(load(run))
    monkeypatch.chdir(begun)
    assert train(resume=".").path == run
    assert weights(load(run)) != old
    assert names(tmp_path) == {"run"}


def test_directories_of_the_user_beside_a_run_stay(data: Path, tmp_path: Path) -> None:
    """Whatever they are called."""
    run = tmp_path / "demo"
    quick(data, run)
    kept = [
        photo(tmp_path / name)
        for name in (".demo.old-2025", ".demo.new-photos", ".demo.old-0123456789abcdef", ".demo.new-0123456789abcdef")
    ]
    shutil.copytree(run, tmp_path / ".demo.new-00112233aabbccdd")
    with Folder(run) as old, make_beside(run, old) as folder:  # ours, but a photo came in
        kept.append(photo(folder.path))
    (tmp_path / ".demo.old-1111222233334444").symlink_to(tmp_path / ".demo.old-2025")
    before = names(tmp_path)
    quick(data, run, overwrite=True)
    assert all(file.exists() for file in kept)
    assert names(tmp_path) == before


def test_what_killed_replacements_have_left_is_removed(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    begun = begun_replacement(data, run)
    quick(data, run, overwrite=True)
    assert not begun.exists()
    assert names(tmp_path) == {"run"}


def test_a_replacement_that_goes_on_is_not_removed(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    begun = begun_replacement(data, run)
    with locked_run(begun):
        quick(data, run, overwrite=True)
        assert begun.exists()


def test_a_replacement_is_not_resumed_while_its_place_is_held(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    begun = begun_replacement(data, run)
    with locked_run(run), pytest.raises(UsageError, match=r"run '.*/run' is still being trained by another process"):
        train(resume=begun)
    photo(run)
    with pytest.raises(UsageError, match=r"holds 'a\.png', which timebox has not written"):
        train(resume=begun)
    (run / "a.png").unlink()
    assert train(resume=begun).path == run


@pytest.mark.parametrize("exchanges", [True, False])
@pytest.mark.parametrize("moment", ["_exchange_names", "remove_own_files"])
def test_a_kill_while_runs_are_exchanged_leaves_one_and_no_litter(
    moment: str, exchanges: bool, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if exchanges and sys.platform != "linux":
        pytest.skip("only Linux exchanges two names at once")
    run = tmp_path / "run"
    old = weights(quick(data, run))

    def killed(*given: object) -> None:
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(RunWriter, "close_unfinished", lambda self: False)  # a kill runs no code of ours
        if not exchanges:
            patch.setattr(replacement, "_exchange_names", lambda *given: False)
        patch.setattr(replacement, moment, killed)
        with pytest.raises(KilledError):
            quick(data, run, seed=1, overwrite=True)
    assert (weights(load(run)) == old) == (moment == "_exchange_names")
    quick(data, run, seed=2, overwrite=True)
    assert names(tmp_path) == {"run"}
    assert names(run) == FILES


def test_a_kill_while_an_empty_directory_is_removed_leaves_no_litter(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old run's, that of an abandoned replacement, and that of a failed one."""
    run = tmp_path / "run"

    def killed(*given: object) -> None:
        raise KilledError

    def overwrite_and_die(**options: object) -> None:
        with monkeypatch.context() as patch, pytest.raises(KilledError):
            patch.setattr(Path, "rmdir", killed)
            quick(data, run, overwrite=True, **options)
        (left,) = (path for path in tmp_path.iterdir() if path != run)
        assert names(left) == set()

    quick(data, run)
    with monkeypatch.context() as patch:
        patch.setattr(RunWriter, "close_unfinished", lambda self: False)
        overwrite_and_die(seed=1)
    assert load(run).summary["seed"] == 1
    quick(data, run, overwrite=True)
    assert names(tmp_path) == {"run"}
    begun_replacement(data, tmp_path / "other")
    (begun,) = tmp_path.glob(".other.new-*")
    shutil.rmtree(run)
    (tmp_path / "other").rename(run)
    with Folder(run) as old, make_beside(run, old):
        pass
    shutil.rmtree(begun)
    overwrite_and_die()
    quick(data, run, overwrite=True)
    assert names(tmp_path) == {"run"}
    with monkeypatch.context() as patch:
        patch.setattr("timebox.jobs.fit.train_model", fail)
        overwrite_and_die()
    quick(data, run, overwrite=True)
    assert names(tmp_path) == {"run"}
    assert names(run) == FILES


@pytest.mark.parametrize("number", range(1, 4))
def test_a_kill_while_the_new_directory_is_made_leaves_no_litter(
    number: int, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before it has its token, while that is written, and after it."""
    run = tmp_path / "run"
    old = weights(quick(data, run))
    real, count = Folder.write_whole, 0

    def write_whole(self: Folder, name: str, content: bytes) -> None:
        nonlocal count
        count += 1
        if count == number == 2:
            (self.path / f".{name}.0123456789abcdef.tmp").write_bytes(content[:10])
        if count == number:
            raise KilledError
        real(self, name, content)

    with monkeypatch.context() as patch, pytest.raises(KilledError):
        patch.setattr(Folder, "write_whole", write_whole)
        patch.setattr(RunWriter, "close_unfinished", lambda self: False)
        quick(data, run, seed=1, overwrite=True)
    assert len(names(tmp_path)) == (1 if number == 1 else 2)
    assert weights(load(run)) == old
    quick(data, run, seed=1, overwrite=True)
    assert names(tmp_path) == {"run"}
    assert names(run) == FILES


def kept_beside(data: Path, run: Path, change: object, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Path]:
    """Overwrite a run that changes just before it is replaced: the error, and where the new run is then."""
    real = RunWriter.save_summary

    def save_summary(self: RunWriter, *given: object) -> None:
        real(self, *given)  # type: ignore[arg-type]
        change()  # type: ignore[operator]

    with monkeypatch.context() as patch, pytest.raises(OutputError) as caught:
        patch.setattr(RunWriter, "save_summary", save_summary)
        quick(data, run, seed=1, overwrite=True)
    (kept,) = run.parent.glob(".run.new-*")
    assert load(kept).summary["seed"] == 1
    assert place_of(kept) is None, "the next replacement must not remove it"
    return str(caught.value), kept


def test_a_file_that_comes_into_the_old_run_keeps_it(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    old = weights(quick(data, run))
    message, kept = kept_beside(data, run, lambda: photo(run), monkeypatch)
    assert message == (
        f"{str(run)!r} holds 'a.png', which timebox has not written, and is not replaced; the new run is kept in "
        f"{str(kept)!r}"
    )
    assert weights(load(run)) == old
    assert (run / "a.png").exists()


def test_another_directory_in_the_place_of_the_old_run_stays(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    quick(data, run)

    def swap() -> None:
        run.rename(tmp_path / "moved")
        photo(run)

    message, kept = kept_beside(data, run, swap, monkeypatch)
    assert message == (
        f"{str(run)!r} is no longer the run that was to be replaced; the new run is kept in {str(kept)!r}"
    )
    assert names(run) == {"a.png"}
    assert load(tmp_path / "moved").summary["seed"] == 0


def test_a_failed_training_leaves_nothing_beside_the_run(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick(data, tmp_path / "run")
    monkeypatch.setattr("timebox.jobs.fit.train_model", fail)
    with pytest.raises(Exception):  # noqa: B017  # an error that no code expects
        quick(data, tmp_path / "run", overwrite=True)
    assert names(tmp_path) == {"run"}
    assert names(tmp_path / "run") == FILES


def test_a_new_directory_has_the_mode_of_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir(mode=0o750)
    with Folder(tmp_path / "run") as run, make_beside(tmp_path / "run", run) as folder:
        assert run.names() == []
        assert os.stat(folder.path).st_mode & 0o777 == 0o750  # noqa: PTH116
        assert place_of(folder.path) == tmp_path / "run"
