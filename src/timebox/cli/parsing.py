"""The argument parsers: one for each verb, its options taken from the verb's config; refusals in one line."""

import argparse
import textwrap
from collections.abc import Sequence
from typing import NamedTuple, NoReturn, TypeAlias

from timebox.configs.arguments import add_options
from timebox.configs.config import Config, did_you_mean
from timebox.errors import UsageError


class Parser(argparse.ArgumentParser):
    """An argument parser that raises a one-line :class:`UsageError` in place of printing its usage and exiting."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message)

    def _check_value(self, action: argparse.Action, value: object) -> None:
        choices = [str(choice) for choice in action.choices or ()]
        if choices and value not in choices:
            hint = did_you_mean(str(value), choices)
            raise argparse.ArgumentError(action, f"{value!r} is not one of {', '.join(choices)}{hint}")


class VerbsFormatter(argparse.HelpFormatter):
    """Help with each verb on the line of its summary: argparse ignores the indentation of verbs and breaks the line
    after the longest."""

    def format_help(self) -> str:
        self._action_max_length += self._indent_increment
        return super().format_help()


Subparsers: TypeAlias = "argparse._SubParsersAction[Parser]"


def join_negative_values(argv: Sequence[str]) -> list[str]:
    """Joins `--budget -10m` to `--budget=-10m`, which argparse would take for two options; up to a bare `--`."""
    joined: list[str] = []
    for place, word in enumerate(argv):
        if word == "--":
            return [*joined, *argv[place:]]
        is_negative = word[:1] == "-" and word[1:2].isdigit()
        if is_negative and joined and joined[-1].startswith("--") and "=" not in joined[-1]:
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


class VerbHelp(NamedTuple):
    """The options and the help texts of one verb.

    Attributes:
        summary: its line in `timebox --help`.
        examples: command lines, shown below the options.
        json_help: help of `--json`; None for a verb without it.
    """

    config: type[Config]
    summary: str
    description: str
    examples: Sequence[str]
    json_help: str | None = "print one JSON object on stdout, and nothing else there"


def add_verb(subparsers: Subparsers, name: str, verb: VerbHelp) -> Parser:
    """Adds the parser of one verb: `--debug`, `--json` and the options of its config. Option names cannot be
    abbreviated, so that a typo never becomes another option."""
    parser = subparsers.add_parser(
        name,
        help=verb.summary,
        description=textwrap.fill(verb.description, 78),
        epilog="\n  ".join(["examples:", *verb.examples]),
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--debug", action="store_true", help="show the whole traceback of an error")
    add_options(parser, verb.config)
    if verb.json_help:
        groups = (group for group in parser._action_groups if group.title == "output")
        next(groups, parser).add_argument("--json", action="store_true", help=verb.json_help)
    return parser
