"""Whatever is typed, the parser takes it, explains itself or refuses it in one line."""

import contextlib
import io

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from timebox.cli import VERBS, parse
from timebox.errors import UsageError

# Many drawn examples.
pytestmark = pytest.mark.integration

OPTIONS = """--budget --steps --recipe --set --val --test --train-limit --test-limit --seed --device --out --overwrite
--json --debug --help --version --split --tta --max-bad-share --data-dir --coarse -h -- - --budg""".split()  # noqa: SIM905
VALUES = ["10m", "1e400", "-1", "nan", "inf", "9" * 5000, "digits", "width=4", "", "=", "\0", "\ud800", "١٢"]
WORDS = st.sampled_from([*VERBS, *OPTIONS, *VALUES]) | st.text(max_size=12) | st.integers().map(str)
JOINED = st.builds(lambda option, value: f"{option}={value}", st.sampled_from(OPTIONS), WORDS)


@settings(max_examples=300)
@given(verb=st.sampled_from([*VERBS]) | WORDS, rest=st.lists(WORDS | JOINED, max_size=6))
@example(verb="train", rest=["digits", "--steps", "9" * 5000])
@example(verb="train", rest=["digits", "--seed", "1" * 400])
@example(verb="@file", rest=[])
def test_any_command_line(verb: str, rest: list[str]) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            args = parse([verb, *rest])
        except UsageError:
            return
        except SystemExit as leaving:
            assert leaving.code == 0
            return
    assert args.verb in VERBS
