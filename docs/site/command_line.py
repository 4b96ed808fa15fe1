"""Writes docs/reference/command-line.md from the configs of the verbs: python docs/site/command_line.py

A test fails where the page is not the one that this writes.
"""

from collections.abc import Iterator
from pathlib import Path

from timebox.cli import VERBS, Verb
from timebox.configs.config import Option, options_of

PAGE = Path(__file__).parents[1] / "reference" / "command-line.md"
BEGINNING = """\
# Command line

`timebox VERB …` or `python -m timebox VERB …`. Results go to stdout, progress and errors to stderr. Options may stand in any order and are
never abbreviated; `--no-…` turns something off. With `--json` stdout holds JSON and nothing else. `--debug` shows the whole traceback of an
error. `timebox VERB --help` prints what stands here, `timebox --version` the version.

## Exit status

| status | means | in a script |
|---|---|---|
| 0 | done | go on |
| 1 | a fault of timebox itself: the last line says where | report it, with the output of `timebox doctor` |
| 2 | nothing was done, as something in the command, the data or this machine must change: one line says what | change it |
| 3 | trained, but late, or not everything could be written: the model is there | use the model; look at `late` and `unwritten` in `summary.json` |
| 130, 143 | stopped by Ctrl-C or SIGTERM; a training has kept its last checkpoint | `timebox train --resume RUN` goes on |

"""


def main() -> None:
    PAGE.write_text(page(), encoding="utf-8")


def page() -> str:
    """The text of the page."""
    return BEGINNING + "\n".join(line for name, verb in VERBS.items() for line in section(name, verb)) + "\n"


def section(name: str, verb: Verb) -> Iterator[str]:
    """The lines about one verb."""
    options = options_of(verb.HELP.config).values()
    places = [
        f"[{one.metadata['positional']}]" if has_default(one) else one.metadata["positional"]
        for one in options
        if one.is_positional
    ]
    yield from (f"## {name}", "", f"`{' '.join(['timebox', name, *places])}`: {verb.HELP.summary}.", "")
    yield from (cell(verb.HELP.description), "")
    if options:
        yield from ("| argument | | values | default |", "|---|---|---|---|", *map(row, options), "")
    yield from ("```sh", *verb.HELP.examples, "```", "")


def has_default(one: Option) -> bool:
    return one.default is None or one.default == () or isinstance(one.default, str | int | float)


def row(one: Option) -> str:
    """The line of one option. Its default stands in the help where that says more than the value."""
    help, _, described = one.help.rpartition(" (default: ")
    default = described.removesuffix(")") if help else str(one.default) if isinstance(one.default, int | str) else ""
    is_switch = bool in one.types
    metavar = "" if is_switch or one.choices else one.metadata.get("metavar", "")
    name = one.metadata["positional"] if one.is_positional else f"{one.flag} {metavar}".strip()
    has_values = one.choices or "allowed" in one.metadata or {int, float} & one.types.keys()
    values = one.allowed.removeprefix("one of ") if has_values and not is_switch else ""
    return f"| `{cell(name)}` | {cell(help or one.help)} | {cell(values)} | {'' if is_switch else cell(default)} |"


def cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    main()
