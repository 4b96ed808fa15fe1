"""What the verbs' parsers share: one-line refusals, checked values and the options that mean the same everywhere."""

import argparse
import difflib
import textwrap
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NoReturn, TypeAlias

from timebox.errors import UsageError

DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")
VIEWS = ("recipe", "none", "mirror", "shift", "mirror_shift")


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

    def refuse_unknown(self, extras: Sequence[str]) -> NoReturn:
        """Refuses the first option that this parser does not have, else the first value too many."""
        for extra in extras:
            if extra.startswith("-"):
                name = extra.split("=")[0]
                self.error(f"there is no option {name}{did_you_mean(name, self._option_string_actions)}")
        self.error(f"unexpected argument {extras[0]!r}; `{self.prog} --help` lists what is allowed")


class VerbsHelp(argparse.HelpFormatter):
    """Leaves the longest verb its line: argparse forgets that verbs are indented, and breaks after it."""

    def format_help(self) -> str:
        self._action_max_length += self._indent_increment
        return super().format_help()


Subparsers: TypeAlias = "argparse._SubParsersAction[Parser]"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'train'?` where one of `known` is close to `word`, else nothing."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


def join_negative_values(argv: Sequence[str]) -> list[str]:
    """Joins `--budget -10m` to `--budget=-10m`: argparse would take the value for an option."""
    joined: list[str] = []
    for word in argv:
        is_negative = word[:1] == "-" and word[1:2].isdigit()
        if is_negative and joined and joined[-1].startswith("--") and "=" not in joined[-1]:
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def whole_number(at_least: int) -> Callable[[str], int]:
    """The type of an option that takes a whole number; `1_000` and `1,000` are read as well."""

    def convert(text: str) -> int:
        try:
            value = int(text.replace(",", ""))
        except ValueError:
            value = at_least - 1
        if value < at_least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {at_least}")
        return value

    return convert


def positive_number(text: str) -> float:
    """The type of an option that takes a number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0, such as 0.1")
    return value


def share(text: str) -> float:
    """The type of an option that takes a fraction between 0 and 1, both included."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a fraction between 0 and 1, such as 0.1")
    return value


def split_choice(text: str) -> str | float:
    """The type of `--val` and `--test`: a number is a fraction, anything else a path or a word."""
    try:
        return float(text)
    except ValueError:
        return text


def add_verb(subparsers: Subparsers, name: str, summary: str, description: str, examples: Sequence[str]) -> Parser:
    """Adds the parser of one verb, with `--debug`. Option names must be whole: a typo never becomes a default."""
    parser = subparsers.add_parser(
        name,
        help=summary,
        description=textwrap.fill(description, 78),
        epilog="\n  ".join(["examples:", *examples]),
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--debug", action="store_true", help="show the whole traceback of an error")
    return parser


def add_json(parser: argparse._ActionsContainer) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout, and nothing else there")


def add_coarse(parser: argparse._ActionsContainer) -> None:
    parser.add_argument("--coarse", action="store_true", help="CIFAR-100: its 20 superclasses in place of 100 classes")


def add_max_bad_share(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--max-bad-share",
        metavar="FRACTION",
        type=share,
        default=0.1,
        help="largest share of unreadable files to go on with, 0 to 1 (default: 0.1)",
    )


def add_cache(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--no-cache",
        action="store_false",
        dest="cache",
        help="decode all images anew and keep none on disk (else what takes seconds to decode is kept for the next "
        "run, in $TIMEBOX_CACHE or the user cache)",
    )


def add_data_dir(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--data-dir",
        metavar="DIR",
        type=Path,
        help="where named data sets (cifar10, cifar100, mnist) lie or are downloaded to "
        "(default: $TIMEBOX_DATA, else the user cache)",
    )


def add_device(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--device", choices=DEVICES, default="auto", help="where to compute (default: auto, a GPU if there is one)"
    )


def add_precision(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="auto",
        help="arithmetic of the training (default: auto, the one measured fastest among the safe ones)",
    )


def add_settings(parser: argparse._ActionsContainer, what: str) -> None:
    parser.add_argument(
        "--set",
        metavar="FIELD=VALUE",
        action="append",
        default=[],
        dest="settings",
        help=f"change one field of {what}, as in --set max_lr=0.4, or max_lr=x2 for twice what it is; may be repeated",
    )


def add_cut(parser: argparse._ActionsContainer) -> None:
    """What decides which images are trained on."""
    parser.add_argument(
        "--train-limit",
        metavar="N",
        type=whole_number(1),
        help="use N training images, balanced over the classes, as in --train-limit 5000 (default: all)",
    )
    parser.add_argument(
        "--split-seed",
        metavar="N",
        type=whole_number(0),
        default=0,
        help="seed of cuts and splits, apart from the training's so that seeds compare on the same images (default: 0)",
    )
    add_coarse(parser)


def add_tta(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--tta",
        choices=VIEWS,
        default="recipe",
        help="test-time augmentation, views whose probabilities are averaged: as the recipe says; none; the image and "
        "its mirror image; both, and both shifted by a pixel (default: recipe)",
    )
