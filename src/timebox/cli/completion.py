"""`timebox completion SHELL`: prints a script with which a shell completes verbs, options, choices and files."""

import argparse
import re
from collections.abc import Mapping, Sequence

from timebox.cli.exit_status import DONE
from timebox.cli.formatting import write
from timebox.cli.parsing import VerbHelp
from timebox.configs.config import Option, options_of
from timebox.configs.verbs import CompletionConfig

HELP = VerbHelp(
    CompletionConfig,
    "print a script for completion in a shell",
    "Prints a script with which the shell completes verbs, options, their values, and files. The script is static: "
    "no completion starts timebox. Write it again after an update.",
    (
        "timebox completion bash > ~/.local/share/bash-completion/completions/timebox",
        "timebox completion zsh > ~/.zfunc/_timebox      # fpath+=~/.zfunc in ~/.zshrc",
        "timebox completion fish > ~/.config/fish/completions/timebox.fish",
    ),
    json_help=None,
)
_NAME = "timebox"
# A help text up to here, as the lists of zsh and fish have a line for each option.
_END_OF_BRIEF = re.compile(r"[;:(]| as in |, in place of ")


def run(args: argparse.Namespace) -> int:
    write(completion_script(args.config.shell))
    return DONE


def completion_script(shell: str) -> str:
    """The script for a shell, from the parser of all commands."""
    import shtab

    from timebox.cli import VERBS, make_parser

    parser, verbs = make_parser()
    for name, verb in verbs.choices.items():
        verb.description = VERBS[name].HELP.summary
        options = options_of(VERBS[name].HELP.config)
        for action in verb._actions:
            if action.help:
                action.help = _END_OF_BRIEF.split(action.help)[0].strip(" ,")
            if (one := options.get(action.dest)) is not None:
                _set_values(action, one)
    return shtab.complete(parser, shell)


def _set_values(action: argparse.Action, one: Option) -> None:
    """Tell the script the values of an option: its choices, else names that it takes, and files where it is a path."""
    from shtab import FILE

    if one.choices:
        action.choices = one.choices
    elif words := [*_names().get(one.name, ()), *_words_of(one)]:
        action.complete = _words_or_files(words)  # type: ignore[attr-defined]
    elif one.metadata.get("is_path"):
        action.complete = FILE  # type: ignore[attr-defined]


def _names() -> Mapping[str, Sequence[str]]:
    """Names that options take beside files, by option."""
    from timebox.data.named_datasets import NAMES
    from timebox.recipes import recipe_names

    recipes = recipe_names()
    return {
        "data": NAMES,
        "recipe": recipes,
        "recipes": recipes,
        "name": recipes,
        "init": ("auto", "scratch", "pretrained"),
    }


def _words_of(one: Option) -> list[str]:
    """The words among the values of an option: of ``FRACTION|PATH|rest|none``, those in small letters."""
    return [word for word in str(one.metadata.get("metavar", "")).split("|") if word.islower()]


def _words_or_files(words: Sequence[str]) -> dict[str, object]:
    """A completer, as shtab takes them, of words and of the names of files; of files alone in tcsh and PowerShell."""
    from shtab import FILE

    # shtab lets bash quote completions as names of files where the function's name ends so.
    function, text = f"_{_NAME}_{'_'.join(words).replace('-', '_')}_or_file", " ".join(words)
    bash = f'{function}() {{\n  compgen -W "{text}" -- "$1"\n  compgen -f -- "$1"\n}}'
    zsh = f"{function}() {{\n  _alternative 'names:name:({text})' 'files:file:_files'\n}}"
    fish = f"{text} {FILE['fish']}"
    return {**FILE, "bash": function, "zsh": function, "fish": fish, "preamble": {"bash": bash, "zsh": zsh}}
