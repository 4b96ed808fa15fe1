"""Names of files and classes that a terminal would obey are escaped by every verb."""

import json
import re
import sys
import tomllib
import warnings
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from terminals import run_on_terminal
from timebox.cli import streams
from timebox.cli.display import progress
from timebox.cli.formatting import show, table, write
from timebox.cli.streams import GuardedStream, guard_stderr, unguarded
from timebox.errors import is_printable, one_line, without_controls
from timebox.progress.terminal import LiveReporter, steady_console
from timebox.recipes import get_recipe

from .conftest import Command

RED, TITLE, C1, OVERRIDE = "\x1b[31mred", "\x1b]0;mine\x07", "\x9b32mgreen", "\u202egnp.exe"
LINK = "\x1b]8;;file:x\x1b\\a\x07"
HOSTILE = (
    RED,
    TITLE,
    C1,
    LINK,
    "a\x1bcb",
    "\x1b_G\x1b\\",
    "\x90q\x9c",
    "a\x08b",
    "a\x7fb",
    "a\rb",
    OVERRIDE,
    "\u2066a",
)
# All that a terminal obeys, but line breaks; tabs in what is known to hold none.
OBEYED = "\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069"
# Colours that rich draws with, and the movements of its live line.
OWN = re.compile(rb"\x1b\[(?:[0-9;]*m|1A|2K|[0-9]*[ABGJK]|\?25[lh])")


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_escaped(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert re.fullmatch(rf"[^{OBEYED}\n]*", one_line(name))
    assert not is_printable(name)
    assert without_controls(f"{name}\n\t") == f"{one_line(name)}\n\t"
    write(f"{name}\n")
    show(f"  {name}", table((name, "n"), [(name, "1")]))
    assert not re.search(f"[{OBEYED}]", capsys.readouterr().out)


def test_changes_of_the_direction_of_writing_are_escaped() -> None:
    assert one_line(OVERRIDE) == "\\u202egnp.exe"
    assert one_line("\u2066a\u2069") == "\\u2066a\\u2069"
    assert one_line("صور 写真 café 👩‍👧") == "صور 写真 café 👩‍👧"


def take_stderr(monkeypatch: pytest.MonkeyPatch) -> StringIO:
    """A stream in place of stderr. Not a fixture: pytest exchanges the streams once more when a test begins."""
    stream = StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    return stream


def test_warnings_and_tracebacks_of_libraries_are_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = take_stderr(monkeypatch)
    guard_stderr()
    guard_stderr()  # once is enough
    assert unguarded(sys.stderr) is stderr
    print(warnings.formatwarning(f"odd {RED}", UserWarning, f"{TITLE}.py", 1, line=""), file=sys.stderr)
    sys.excepthook(ValueError, ValueError(f"postgresql://me:hunter2@host/x and {C1}"), None)
    sys.stderr.writelines([RED, "\n"])
    text = stderr.getvalue()
    assert "\\x1b[31mred" in text
    assert "\\x9b32mgreen" in text
    assert "hunter2" not in text
    assert not re.search(f"[{OBEYED}]", text)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_guard_lets_nothing_through_that_a_terminal_obeys(name: str) -> None:
    guard = GuardedStream(StringIO())
    guard.write(f"{name}\n")
    assert not re.search(f"[{OBEYED}]", guard.getvalue())


def test_a_guard_has_all_that_the_stream_has() -> None:
    guard = GuardedStream(StringIO())
    assert (guard.isatty(), guard.write("ab"), guard.getvalue()) == (False, 2, "ab")
    guard.flush()


def test_the_live_line_keeps_its_colours_and_what_others_write_is_guarded(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = take_stderr(monkeypatch)
    monkeypatch.setattr(stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    before = sys.stderr
    with progress() as reporter:
        assert isinstance(reporter, LiveReporter)
        reporter.phase(f"reading {RED}")
        reporter.note(f"left out: {TITLE}")
        print(f"a library says {RED} and {C1}", file=sys.stderr)
    assert sys.stderr is before
    text = stderr.getvalue()
    assert "\\x1b[31mred" in text
    assert "\\x1b]0;mine\\x07" in text
    assert not any(name in text for name in HOSTILE)
    assert streams.unguarded(before) is before
    assert steady_console(stderr).file is stderr


@pytest.mark.parametrize("name", HOSTILE)
def test_a_recipe_with_such_a_name_is_printed_as_toml_that_parses_to_it(
    timebox: Command, tmp_path: Path, name: str
) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(replace(get_recipe("haet2021"), name=name).to_toml(), encoding="utf-8")
    outcome = timebox("recipes", path)
    assert outcome.status == 0
    assert not re.search(f"[{OBEYED}]", outcome.out + outcome.err)
    assert tomllib.loads(outcome.out)["name"] == name


@pytest.mark.parametrize("name", [RED, LINK, C1, OVERRIDE])
def test_tables_escape_the_names_of_files_classes_and_columns(timebox: Command, tmp_path: Path, name: str) -> None:
    rows = []
    for number in range(8):
        file = f"{number}{name}.png".replace("\\", "")
        Image.fromarray(np.full((8, 8, 3), 20 * number + number % 2, np.uint8)).save(tmp_path / file)
        rows.append({f"path{name}": file, "label": f"{number % 2}{name}", f"more{name}": 1})
    rows.append({f"path{name}": f"missing{name}.png", "label": f"0{name}", f"more{name}": 1})
    table = tmp_path / f"t{name}.jsonl".replace("\\", "")
    table.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    for words in (("inspect", table), ("inspect", tmp_path), ("inspect", table, "--json")):
        outcome = timebox(*words)
        assert outcome.status == 0, outcome.err
        assert not re.search(f"[{OBEYED}]", outcome.out + outcome.err)
        assert "missing" in outcome.out


@pytest.mark.parametrize("extra", [(), ("--debug",), ("--json",)])
@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize(
    "verb", ["train {} --steps 1", "inspect {}", "predict {} {}", "evaluate {} {}", "{}", "--{}", "report {}"]
)
def test_refusals_escape_names(timebox: Command, verb: str, name: str, extra: tuple[str, ...]) -> None:
    outcome = timebox(*(word.replace("{}", name) for word in verb.split(" ")), *extra)
    assert outcome.status == 2
    assert not re.search(f"[{OBEYED}]", outcome.out + outcome.err)


# ---- on a terminal


def on_terminal(place: Path, *words: str) -> bytes:
    """All that `timebox WORDS` writes on a terminal."""
    return run_on_terminal([sys.executable, "-m", "timebox", *words], place, (0, 3))


def commands_in(text: bytes) -> list[bytes]:
    """All that a terminal would obey, without the colours and movements of rich."""
    rest = OWN.sub(b"", text).replace(b"\r\n", b"\n").decode(errors="replace")
    # Tabs are of no harm, and rich moves to the start of its line.
    obeyed = OBEYED.replace("\x09", "\x08").replace("\x0b-", "\x0b\x0c\x0e-")
    return [found.encode() for found in re.findall(rf"[{obeyed}].{{0,20}}", rest)]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of two classes and a broken one, in folders and files whose names a terminal would obey; a run of them."""
    place = tmp_path_factory.mktemp("terminal")
    rng = np.random.default_rng(0)
    for shade, name in enumerate((RED, C1)):
        folder = place / TITLE / name
        folder.mkdir(parents=True)
        for number in range(20):
            pixels = rng.integers(100 * shade, 100 * shade + 150, (24, 24, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{TITLE}{number}.png")
        (folder / f"{RED}-broken.png").write_bytes(b"no image")
    options = (
        "--steps",
        "2",
        "--device",
        "cpu",
        "--recipe",
        "airbench94",
        "--set",
        "width=8",
        "--max-bad-share",
        "0.5",
    )
    written = on_terminal(place, "train", TITLE, *options, "--test", "0.2", "--out", f"run{RED}")
    assert b"test accuracy" in written
    assert commands_in(written) == []
    assert b"31mred" in written
    return place


@pytest.mark.integration
@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("inspect {data}", b"31mred"),
        ("evaluate {run} {data} --split all", b"31mred"),
        ("evaluate {run} {data} --split all --json", b"31mred"),
        ("predict {run} {data}", b"31mred"),
        ("predict {run} {data} --format jsonl", b"31mred"),
        ("compare {run} {run}", b"31mred"),
        ("report {run}", b"31mred"),
        ("export {run} --format torch --output model.pt2 --check {data}", b"model.pt2"),
        ("train --replay {run} --out {run}-again", b"replay of"),
        (
            "lr-find {data} --recipe haet2021 --set width=4 --precision fp32 --out lr{run} --max-bad-share 0.5",
            b"31mred",
        ),
    ],
)
def test_nothing_of_a_name_reaches_a_terminal_raw(place: Path, command: str, says: bytes) -> None:
    words = [word.replace("{data}", TITLE).replace("{run}", f"run{RED}") for word in command.split(" ")]
    written = on_terminal(place, *words)
    assert commands_in(written) == []
    assert says in written
    assert not any(name.encode() in written for name in HOSTILE)


@pytest.mark.integration
@pytest.mark.endurance
def test_nothing_of_a_name_reaches_a_terminal_raw_from_a_benchmark(place: Path) -> None:
    options = ("--seeds", "1", "--trial-budget", "15s", "--precision", "fp32", "--device", "cpu")
    words = ("--recipe", "airbench94 width=8", "--max-bad-share", "0.5", "--out", f"b{RED}")
    written = on_terminal(place, "benchmark", TITLE, *options, *words)
    assert commands_in(written) == []
    assert b"31mred" in written
