"""Configs as argparse options: adding them to a parser, reading a parsed command line, and writing one."""

import argparse
from collections.abc import Iterable, Sequence
from typing import Any

from msgspec import NODEFAULT

from timebox.configs.config import Config, Option, did_you_mean, options_of
from timebox.errors import UsageError

MIN_OPTIONS_FOR_GROUPS = 18  # the help of a verb with fewer options is one list


def add_options(parser: argparse.ArgumentParser, cls: type[Config]) -> None:
    """Add the options of a config to a parser; many options go into the groups that they name.

    No option has a default in the parser, so that the parsed arguments hold only those of the command line.
    """
    groups: dict[str, argparse._ActionsContainer] = {"": parser}
    for one in options_of(cls).values():
        title = one.metadata.get("group", "") if len(options_of(cls)) >= MIN_OPTIONS_FOR_GROUPS else ""
        if title not in groups:
            groups[title] = parser.add_argument_group(title)
        groups[title].add_argument(*(() if one.is_positional else (one.flag,)), **_settings(one))


def _settings(one: Option) -> dict[str, Any]:
    """Keyword arguments of ``add_argument``."""
    is_many, is_required = tuple in one.types, one.default is NODEFAULT
    has_default = isinstance(one.default, str | int | float) and bool not in one.types
    text = f"{one.help} (default: {one.default})" if has_default and "(default" not in one.help else one.help
    settings: dict[str, Any] = {"help": text.replace("%", "%%"), "default": argparse.SUPPRESS, "dest": one.name}
    if bool in one.types:
        return {**settings, "action": "store_false" if one.default is True else "store_true"}
    metavar = f"{{{','.join(one.choices)}}}" if one.choices else one.metadata.get("metavar")
    if one.is_positional:
        nargs = ("+" if is_required else "*") if is_many else None if is_required else "?"
        return {**settings, "metavar": one.metadata["positional"], "nargs": nargs}
    if nargs := one.metadata.get("nargs"):
        return {**settings, "metavar": metavar, "nargs": nargs}
    return {**settings, "metavar": metavar, "required": is_required, "action": "append" if is_many else "store"}


def config_from_arguments(
    cls: type[Config], parsed: argparse.Namespace, parser: argparse.ArgumentParser, extras: Sequence[str] = ()
) -> Config:
    """The config that a command line asks for. Raises UsageError with all errors in one line, unknown options first.

    Args:
        extras: words that the parser did not know.
    """
    names, known = [word.split("=")[0] for word in extras if word[:1] == "-"], parser._option_string_actions
    errors = [UsageError(f"there is no option {name}{did_you_mean(name, known)}") for name in names]
    if extras and not errors:
        hint = f"`{parser.prog} --help` lists what is allowed"
        errors = [UsageError(f"unexpected argument {extras[0]!r}; {hint}")]
    values = {name: value for name, value in vars(parsed).items() if name in options_of(cls)}
    return cls.parse(values, is_text=True, errors=errors)


def to_arguments(config: Config, *, leave_out: Iterable[str] = (), always: Iterable[str] = ()) -> list[str]:
    """The command-line arguments that give the same config; options at their defaults are left out.

    Args:
        leave_out: names of fields to leave out. always: names of fields to state even at their defaults.
    """
    names = {*config.changed_fields(), *always}.difference(leave_out)
    changed = [(one, getattr(config, name)) for name, one in options_of(type(config)).items() if name in names]
    named = [word for one, value in changed if not one.is_positional for word in _words(one, value)]
    places = [word for one, value in changed if one.is_positional for word in _words(one, value)]
    return [*named, "--", *places] if any(word[:1] == "-" for word in places) else [*places, *named]


def _words(one: Option, value: Any) -> list[str]:
    texts = [one.metadata.get("write", str)(item) for item in (value if isinstance(value, tuple) else (value,))]
    if one.is_positional:
        return texts
    if isinstance(value, bool):
        return [one.flag]
    if "nargs" in one.metadata:
        return [one.flag, *texts]
    return [word for text in texts for word in ([f"{one.flag}={text}"] if text[:1] == "-" else [one.flag, text])]
