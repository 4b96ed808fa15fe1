"""`timebox completion SHELL`: prints a script with which a shell completes verbs, options, choices and files."""

import argparse

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


def run(args: argparse.Namespace) -> int:
    write(completion_script(args.config.shell))
    return DONE


def completion_script(shell: str) -> str:
    """The script for a shell, from the parser of all commands."""
    import shtab

    from timebox.cli import VERBS, make_parser

    parser, verbs = make_parser()
    for name, verb in VERBS.items():
        options = options_of(verb.HELP.config)
        for action in verbs.choices[name]._actions:
            if one := options.get(action.dest):
                _set_values(action, one)
    return shtab.complete(parser, shell)


def _set_values(action: argparse.Action, one: Option) -> None:
    """Tell the script the values of an option: its choices, else files where it is a path."""
    import shtab

    if one.choices:
        action.choices = one.choices
    elif one.metadata.get("is_path"):
        action.complete = shtab.FILE  # type: ignore[attr-defined]
