"""`timebox recipes`: lists the recipes, or prints one whole."""

import argparse

from timebox.cli.exit_status import DONE
from timebox.cli.formatting import write
from timebox.cli.parsing import VerbHelp
from timebox.configs.verbs import RecipesConfig

HELP = VerbHelp(
    RecipesConfig,
    "list the recipes, or print one whole",
    "Without a name, lists the recipes. With one, prints it whole as TOML, which --recipe FILE.toml reads back.",
    ("timebox recipes", "timebox recipes haet2021 > mine.toml"),
    json_help=None,
)


def run(args: argparse.Namespace) -> int:
    from timebox.recipes import describe_recipe, get_recipe, recipe_names

    name: str | None = args.config.name
    if name is None:
        names = recipe_names()
        width = max(map(len, names)) + 2
        write("".join(f"{one:<{width}}{describe_recipe(one).splitlines()[0]}\n" for one in names))
    elif name == "auto":
        write(_commented(describe_recipe("auto")))
    else:
        recipe = get_recipe(name)
        description = describe_recipe(name) if name in recipe_names() else ""
        write(_commented(description) + recipe.to_toml())
    return DONE


def _commented(text: str) -> str:
    from inspect import cleandoc

    return "".join(f"# {line}".rstrip() + "\n" for line in cleandoc(text).splitlines())
