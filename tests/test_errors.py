"""The public errors, and the names that messages give to options in Python and on the command line."""

import ast
import pickle
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import timebox
from timebox.cli import VERBS, main
from timebox.configs.config import options_of
from timebox.errors import flag_of, flags_in_messages, option_text, without_passwords

PACKAGE = Path(timebox.__file__).parent
KINDS = ("ArgumentError", "BudgetError", "DataError", "OutputError", "RankFailureError", "RunError", "UsageError")


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_is_public_and_a_timebox_error(name: str) -> None:
    kind = getattr(timebox, name)
    assert name in timebox.__all__
    assert name in dir(timebox)
    assert issubclass(kind, timebox.TimeboxError)
    assert kind.__doc__


def test_no_kind_is_missing() -> None:
    classes = {
        node.name for node in ast.walk(ast.parse((PACKAGE / "errors.py").read_text())) if isinstance(node, ast.ClassDef)
    }
    assert classes == {*KINDS, "TimeboxError"}


def test_kinds_are_also_those_of_python() -> None:
    assert issubclass(timebox.UsageError, ValueError)
    assert issubclass(timebox.DataError, ValueError)
    assert issubclass(timebox.BudgetError, timebox.UsageError)
    assert issubclass(timebox.ArgumentError, TypeError)
    assert issubclass(timebox.OutputError, OSError)
    assert str(pickle.loads(pickle.dumps(timebox.ArgumentError("no")))) == "no"


def test_errors_need_no_heavy_import() -> None:
    code = "import sys, timebox; timebox.TimeboxError, timebox.DataError; print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "numpy", "PIL"} & set(ast.literal_eval(done.stdout))


@pytest.mark.parametrize(
    ("name", "value", "in_python", "as_flag"),
    [
        ("val", None, "val", "--val"),
        ("val", "PATH", 'val="PATH"', "--val PATH"),
        ("steps", 1000, "steps=1000", "--steps 1000"),
        ("data_dir", None, "data_dir", "--data-dir"),
        ("overwrite", True, "overwrite=True", "--overwrite"),
        ("cache", False, "cache=False", "--no-cache"),
        ("settings", "max_lr=0.4", 'settings=["max_lr=0.4"]', "--set max_lr=0.4"),
        ("recipes", "auto", 'recipes=["auto"]', "--recipe auto"),
    ],
)
def test_options_are_named_as_the_caller_wrote_them(name: str, value: object, in_python: str, as_flag: str) -> None:
    assert option_text(name, value) == in_python
    with flags_in_messages():
        assert option_text(name, value) == as_flag
        with flags_in_messages():
            pass
        seen: list[str] = []
        thread = threading.Thread(target=lambda: seen.append(option_text(name, value)))
        thread.start()
        thread.join()
        assert seen == [as_flag]
    assert option_text(name, value) == in_python


def test_flags_are_those_of_the_command_line() -> None:
    options = [one for verb in VERBS.values() for one in options_of(verb.HELP.config).values() if not one.is_positional]
    assert len(options) >= 80
    assert all(one.flag == flag_of(one.name, one.default is True) for one in options)


def test_the_same_refusal_in_python_and_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(timebox.UsageError) as caught:
        timebox.train("digits", budget="10s", steps=3)
    assert str(caught.value) == "budget and steps exclude each other: give budget for a deadline or steps for a count"
    assert main(["train", "digits", "--budget", "10s", "--steps", "3"]) == 2
    assert capsys.readouterr().err == (
        "timebox train: error: --budget and --steps exclude each other: give --budget for a deadline or --steps for a "
        "count\n"
    )
    with pytest.raises(
        timebox.UsageError, match=r'^say how long to train, for instance budget="10m" \(or steps=1000 to'
    ):
        timebox.train("digits")


def test_later_refusals_name_flags_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.txt").touch()
    words = f"output directory {str(tmp_path)!r} is not empty; give another, or"
    with pytest.raises(timebox.UsageError) as caught:
        timebox.train("digits", steps=3, out=tmp_path)
    assert str(caught.value) == f"{words} overwrite=True to replace a run"
    assert main(["train", "digits", "--steps", "3", "--out", str(tmp_path)]) == 2
    assert f"{words} --overwrite to replace a run" in capsys.readouterr().err


def raised_texts(source: str) -> list[str]:
    """The texts in raise statements, without commands in backticks."""
    raised = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Raise)]
    texts = [one.value for node in raised for one in ast.walk(node) if isinstance(one, ast.Constant)]
    return [re.sub("`[^`]*`", "", text) for text in texts if isinstance(text, str)]


def test_no_message_is_written_with_a_flag() -> None:
    modules = [path for path in sorted(PACKAGE.rglob("*.py")) if path.relative_to(PACKAGE).parts[0] != "cli"]
    assert len(modules) >= 150
    texts = [(path.name, text) for path in modules for text in raised_texts(path.read_text(encoding="utf-8"))]
    assert len(texts) >= 300
    assert [(name, text) for name, text in texts if re.search(r"(^|\s)--[a-z]", text)] == []
    assert raised_texts('raise ValueError(f"give {x} --val, not `timebox --test`")') == ["give ", " --val, not "]


@pytest.mark.parametrize("piece", ["pass", "a:/", "?pass", "a:/b:", "x=", "@a:/b:", " a='"])
def test_passwords_are_looked_for_in_long_texts_in_little_time(piece):
    started = time.process_time()
    assert without_passwords(piece * 100_000)
    assert time.process_time() - started < 2
