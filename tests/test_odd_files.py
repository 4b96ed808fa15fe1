"""Every file that timebox writes, with every oddity that a file can have, read by every verb that reads it.

Each ends in an error of timebox's own that names the file: never in another exception, a hang, or a result.
"""

import os
import shutil
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import numpy as np
import pytest

import timebox
from golden.conftest import HERE, unpack
from timebox.benchmarking.directory import BenchmarkDirectory
from timebox.errors import RunError, TimeboxError
from timebox.jobs.existing_run import ExistingRun
from timebox.run.ranks_file import read_ranks_record
from timebox.tuning.directory import TuneDirectory
from timebox.tuning.storage import check_journal

VERSION = "0.2.0"
Damage = Callable[[Path], object]
Verb = Callable[[Path], object]
MAX_SECONDS = 20


def write(content: bytes) -> Damage:
    return lambda path: path.write_bytes(content)


def in_its_place(make: Damage) -> Damage:
    def damage(path: Path) -> None:
        path.unlink()
        make(path)

    return damage


def make_socket(path: Path) -> None:
    # The path of a socket may have a hundred bytes, fewer than that of a test's folder.
    before = Path.cwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(before)


KINDS: dict[str, Damage] = {
    "a directory": in_its_place(lambda path: path.mkdir()),
    "a pipe": in_its_place(os.mkfifo),
    "a socket": in_its_place(make_socket),
    "a device": in_its_place(lambda path: path.symlink_to("/dev/zero")),
    "a link that leads nowhere": in_its_place(lambda path: path.symlink_to("nowhere")),
    "a link to itself": in_its_place(lambda path: path.symlink_to(path.name)),
}
# Each ends in a line break: without one, the last line of a file of lines is unfinished and does not count.
CONTENTS: dict[str, Damage] = {
    "a list": write(b"[]\n"),
    "another type": write(b'{"format": "x"}\n'),
    "a number out of range": write(b'{"format": 1e999}\n'),
    "5,000 digits": write(b'{"format": 1, "x": ' + b"9" * 5000 + b"}\n"),
    "100,000 brackets": write(b'{"x": ' + b"[" * 100_000 + b"\n"),
    "a key twice": write(b'{"format": 1, "format": 1}\n'),
    "NaN": write(b'{"x": NaN}\n'),
    "Infinity": write(b'{"x": -Infinity}\n'),
    "no UTF-8": write(b'{"x": "\xff"}\n'),
    "a lone surrogate": write(b'{"format": "\\ud800"}\n'),
    "a byte order mark": write(b'\xef\xbb\xbf{"format": 1}\n'),
    "no JSON": write(b"\x00\x01\x02\n"),
}
WHOLE: dict[str, Damage] = {
    "nothing": write(b""),
    "its first half": lambda path: os.truncate(path, path.stat().st_size // 2),
}
LINES = KINDS | CONTENTS
ALL = LINES | WHOLE


def load(run: Path) -> timebox.Run:
    return timebox.load(run, device="cpu")


def predict(run: Path) -> None:
    load(run).predict_proba(np.zeros((1, 32, 32, 3), np.uint8))


def open_search(path: Path) -> None:
    search = TuneDirectory.existing(path)
    try:
        _ = search.is_finished
    finally:
        search.close()


def open_benchmark(path: Path) -> None:
    BenchmarkDirectory.existing(path).close()


VERBS: dict[str, Verb] = {
    "load": load,
    "predict": predict,
    "evaluate": lambda run: timebox.evaluate(run, run.parent / "colours.npz", device="cpu", cache=False),
    "report": lambda run: timebox.report(run, output=run.parent / "page.html"),
    "compare": lambda run: timebox.compare([run, run]),
    "export": lambda run: timebox.export(run, "torch", output=run.parent / "model.pt2"),
    "replay": lambda run: timebox.train(replay=run, out=run.parent / "again", cache=False),
    "init": lambda run: timebox.train(run.parent / "colours.npz", init=str(run), steps=1, out=run.parent / "new"),
    "resume": lambda run: timebox.train(resume=run, cache=False),
    "ranks": read_ranks_record,
    "estimator": lambda run: timebox.TimeboxClassifier.load(run, device="cpu"),
    "search": open_search,
    "tune --resume": lambda path: timebox.tune(resume=path, budget=3600),
    "journal": lambda path: check_journal(path / "journal.log"),
    "benchmark": open_benchmark,
}
ALL_OF_A_RUN = ("load", "predict", "evaluate", "report", "compare", "export", "replay", "init")
# Golden directory, file or a pattern that one file matches, the oddities it is given, and the verbs that read it.
FILES: tuple[tuple[str, str, dict[str, Damage], tuple[str, ...]], ...] = (
    ("haet2021", "model.json", ALL, ALL_OF_A_RUN),
    ("haet2021", "model.safetensors", ALL, ("load", "predict", "evaluate", "export", "init")),
    ("haet2021", "summary.json", ALL, ("predict", "report", "compare")),
    ("haet2021", "metrics.jsonl", LINES, ("report", "compare", "replay")),
    ("haet2021", "predictions.npz", ALL, ("report", "compare")),
    ("haet2021", "examples.npz", ALL, ("report",)),
    ("haet2021", "trained_on.npy", ALL, ("evaluate",)),
    ("stopped", "model.json", ALL, ("load", "resume")),
    ("stopped", "checkpoint/manifest.json", ALL, ("load", "resume")),
    ("stopped", "checkpoint/*.safetensors", ALL, ("load", "resume")),
    ("stopped", "metrics.jsonl", LINES, ("resume",)),
    ("stopped", "trained_on.npy", KINDS, ("resume",)),
    ("launched", "group.json", ALL, ("ranks",)),
    ("estimator", "model.json", ALL, ("estimator",)),
    ("estimator", "estimator.json", ALL, ("estimator",)),
    ("estimator", "classes.npy", ALL, ("estimator",)),
    ("tuned", "tune.json", ALL, ("search", "tune --resume")),
    ("tuned", "clock.json", ALL, ("search", "tune --resume")),
    ("tuned", "summary.json", ALL, ("search",)),
    ("tuned", "trials.jsonl", LINES, ("search", "tune --resume")),
    ("tuned", "journal.log", LINES | {"nothing": write(b"")}, ("journal", "tune --resume")),
    ("benchmarked", "benchmark.json", ALL, ("benchmark",)),
    ("benchmarked", "trials.jsonl", LINES, ("benchmark",)),
)
NUM_CALLS = 890
CASES = [(directory, file, verb, oddities) for directory, file, oddities, verbs in FILES for verb in verbs]


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("golden")
    for name in {directory for directory, *_ in FILES}:
        unpack(VERSION, name, folder)
    shutil.copy(HERE / VERSION / "colours.npz", folder)
    return folder


def name_of(directory: Path, pattern: str) -> str:
    """The name, relative to a directory, of the one file in it that a pattern matches."""
    (path,) = directory.glob(pattern)
    return str(path.relative_to(directory))


class TooSlowError(BaseException):
    """No code handles it as an error of its own."""


@pytest.fixture(autouse=True)
def machine_of_the_golden_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """On any other, a replay is refused before it reads more than model.json."""
    monkeypatch.setattr(ExistingRun, "differences", lambda *rest: [])


@pytest.fixture
def time_limit() -> Iterator[None]:
    def end(number: int, frame: FrameType | None) -> None:
        raise TooSlowError

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(MAX_SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def test_the_collection_is_complete() -> None:
    assert len(KINDS) == 6
    assert len(CONTENTS) == 12
    assert len(FILES) == 23
    assert {verb for *_, verbs in FILES for verb in verbs} == set(VERBS)
    assert sum(len(oddities) for *_, oddities in CASES) == NUM_CALLS


@pytest.mark.usefixtures("time_limit")
@pytest.mark.parametrize(("directory", "file", "verb", "oddities"), CASES, ids=[" ".join(case[:3]) for case in CASES])
def test_an_odd_file_is_named_in_an_error_of_ours(
    golden: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    directory: str,
    file: str,
    verb: str,
    oddities: dict[str, Damage],
) -> None:
    shutil.copy(golden / "colours.npz", tmp_path)
    monkeypatch.chdir(tmp_path)
    faults, name = [], name_of(golden / directory, file)
    for number, (oddity, damage) in enumerate(oddities.items()):
        run = Path(shutil.copytree(golden / directory, tmp_path / f"{directory}{number}"))
        damage(run / name)
        try:
            VERBS[verb](run)
        except TimeboxError as error:
            if Path(name).name not in str(error) or str(run) not in str(error):
                faults.append(f"{oddity}: not named in: {error}")
        except Exception as error:
            faults.append(f"{oddity}: {type(error).__name__}: {error}")
        else:
            faults.append(f"{oddity}: accepted")
    assert not faults, "\n".join(faults)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read every file")
@pytest.mark.parametrize(("directory", "file", "verb"), [case[:3] for case in CASES])
def test_a_file_that_may_not_be_read_is_named(
    golden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, directory: str, file: str, verb: str
) -> None:
    if (directory, file) == ("stopped", "trained_on.npy"):
        pytest.skip("it is written by a resume and not read")
    shutil.copy(golden / "colours.npz", tmp_path)
    monkeypatch.chdir(tmp_path)
    run = Path(shutil.copytree(golden / directory, tmp_path / directory))
    name = name_of(run, file)
    (run / name).chmod(0)
    with pytest.raises(TimeboxError, match=Path(name).name):
        VERBS[verb](run)


def test_numbers_and_texts_that_no_json_of_ours_has_are_named_in_plain_words(tmp_path: Path) -> None:
    reasons = {
        b"": "it is empty",
        b"\xef\xbb\xbf{}": "it begins with a byte order mark: save it as UTF-8 without one",
        b'{"x": "\xff"}': "it is not UTF-8: byte 7 is 0xff",
        b'{"x": ' + b"9" * 4001 + b"}": "999999999999...9999999999999 is no number of JSON, or too large for one",
    }
    for content, reason in reasons.items():
        (tmp_path / "group.json").write_bytes(content)
        with pytest.raises(RunError) as caught:
            read_ranks_record(tmp_path)
        assert str(caught.value) == f"{str(tmp_path / 'group.json')!r} cannot be read: {reason}"
