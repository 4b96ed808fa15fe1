"""The argument parsers: one for each verb, its options taken from the verb's config; refusals in one line."""

import argparse
import textwrap
from collections.abc import Sequence
from typing import NoReturn, TypeAlias

from timebox.configs.arguments import add_options
from timebox.configs.config import Config, did_you_mean
from timebox.errors import UsageError

JSON_HELP = "print one JSON object on stdout, and nothing else there"


class Parser(argparse.ArgumentParser):
    """An argument parser that raises a one-line :class:`UsageError` in place of printing its usage and exiting."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message)

    def _check_value(self, action: argparse.Action, value: object) -> None:
        choices = [] if action.choices is None else [str(choice) for choice in action.choices]
        if choices and value not in choices:
            raise argparse.ArgumentError(
                action, f"{value!r} is not one of {', '.join(choices)}{did_you_mean(str(value), choices)}"
            )


class VerbsHelp(argparse.HelpFormatter):
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


def add_verb(
    subparsers: Subparsers, name: str, config: type[Config], summary: str, description: str, examples: Sequence[str]
) -> Parser:
    """Adds the parser of one verb: `--debug`, and the options of its config. Option names cannot be abbreviated, so
    that a typo never becomes another option."""
    parser = subparsers.add_parser(
        name,
        help=summary,
        description=textwrap.fill(description, 78),
        epilog="\n  ".join(["examples:", *examples]),
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(config_class=config)
    parser.add_argument("--debug", action="store_true", help="show the whole traceback of an error")
    add_options(parser, config)
    return parser


def add_json(parser: Parser, help: str = JSON_HELP) -> Parser:
    """Adds `--json`, in the group of outputs if there is one."""
    groups = (group for group in parser._action_groups if group.title == "output")
    next(groups, parser).add_argument("--json", action="store_true", help=help)
    return parser
