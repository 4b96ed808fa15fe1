"""Where a run may be written: links are followed once, default names are taken by one process alone."""

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cut_runs import names
from small_runs import FILES, SMALL, quick, weights
from timebox.errors import UsageError
from timebox.pipelines import lr_find, train
from timebox.progress import SilentReporter
from timebox.run.directories.output import check_output_directory, make_default_directory, resolve_link
from timebox.run.writer import RunWriter


class Notes(SilentReporter):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def test_trainings_of_the_same_second_take_directories_of_their_own(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("timebox.run.directories.output.time.strftime", lambda form: "20300101-120000")
    runs = [train(data, steps=2, recipe="haet2021", settings=SMALL, device="cpu", seed=seed) for seed in range(3)]
    base = "colours-20300101-120000"
    assert [run.path for run in runs] == [Path("runs") / name for name in (base, f"{base}-2", f"{base}-3")]
    assert len({weights(run) for run in runs}) == 3
    assert all(names(run.path) == FILES for run in runs)


def test_a_default_name_is_taken_by_one_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("timebox.run.directories.output.time.strftime", lambda form: "now")
    with ThreadPoolExecutor(8) as pool:
        paths = list(pool.map(lambda number: make_default_directory("data"), range(40)))
    assert len(set(paths)) == 40
    assert names(tmp_path / "runs") == {"data-now", *(f"data-now-{number}" for number in range(2, 41))}


def test_a_default_name_may_be_a_file_or_a_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("timebox.run.directories.output.time.strftime", lambda form: "now")
    Path("runs").mkdir()
    Path("runs/data-now").touch()
    Path("runs/data-now-2").symlink_to("nowhere")
    assert make_default_directory("data") == Path("runs/data-now-3")


def test_a_failed_training_leaves_no_directory_in_runs(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    writer = RunWriter.new_in_runs("data")
    assert not writer.close_unfinished()
    assert not (tmp_path / "runs").exists()
    Path("runs").mkdir()
    RunWriter.new_in_runs("data").close_unfinished()
    assert names(tmp_path / "runs") == set(), "runs/ was there before"


def test_two_trainings_into_the_same_new_directory(data: Path, tmp_path: Path) -> None:
    """The second one has checked it before the first one made it."""
    first = RunWriter.new(tmp_path / "run", overwrite=False)
    with pytest.raises(UsageError, match="is not empty; give another"):
        RunWriter.new(tmp_path / "run", overwrite=False)
    first.close_unfinished()
    first.close()
    RunWriter.new(tmp_path / "run", overwrite=False).close()


@pytest.mark.parametrize("is_absolute", [True, False])
def test_an_output_that_is_a_link_is_resolved_and_told(is_absolute: bool, data: Path, tmp_path: Path) -> None:
    real, link, notes = tmp_path / "photos-1", tmp_path / "latest", Notes()
    old = weights(quick(data, real))
    link.symlink_to(real if is_absolute else "photos-1")
    with pytest.raises(UsageError) as caught:
        quick(data, link)
    assert str(caught.value) == (
        f"output directory {str(real)!r} is not empty; give another, or overwrite=True to replace a run"
    )
    run = quick(data, link, seed=1, overwrite=True, reporter=notes)
    assert f"{str(link)!r} is a link: the run is written to {str(real)!r}" in notes.notes
    assert run.path == real
    assert link.is_symlink()
    assert weights(run) == (link / "model.safetensors").read_bytes() != old
    assert names(tmp_path) == {"photos-1", "latest"}


def test_a_link_that_is_turned_meanwhile_leads_nowhere_else(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    link = tmp_path / "latest"
    link.symlink_to("one")
    real = RunWriter.save_model

    def save_model(self: RunWriter, *given: object) -> None:
        link.unlink()
        link.symlink_to("two")
        real(self, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(RunWriter, "save_model", save_model)
    assert quick(data, link).path == tmp_path / "one"
    assert names(tmp_path / "one") == FILES
    assert names(tmp_path / "two") == set()


def test_a_link_to_a_folder_of_the_user_is_as_that_folder(data: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "holiday.png").write_bytes(b"of the user")
    (tmp_path / "latest").symlink_to("mine")
    with pytest.raises(UsageError, match="holds something that is no timebox run"):
        quick(data, tmp_path / "latest", overwrite=True)
    assert names(tmp_path / "mine") == {"holiday.png"}


def test_a_link_to_itself_is_refused(tmp_path: Path, data: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(UsageError, match=re.escape(repr(str(tmp_path / "loop")))):
        quick(data, tmp_path / "loop")
    assert resolve_link(tmp_path) == tmp_path


def test_a_check_leaves_no_lock_behind(data: Path, tmp_path: Path) -> None:
    quick(data, tmp_path / "run")
    assert check_output_directory(tmp_path / "run", overwrite=True)
    assert check_output_directory(tmp_path / "run", overwrite=True)
    assert not check_output_directory(tmp_path / "new", overwrite=True)


def test_other_commands_take_directories_of_their_own(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("timebox.run.directories.output.time.strftime", lambda form: "now")
    paths = [lr_find(data, budget=20, recipe="haet2021", settings=SMALL, device="cpu").path for _ in range(2)]
    assert paths == [Path("runs/colours-lr-now"), Path("runs/colours-lr-now-2")]
