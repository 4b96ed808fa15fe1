"""`timebox compare`: prints runs side by side, and writes them as a page."""

import argparse

from timebox.cli.exit_status import DONE
from timebox.cli.formatting import facts, json_line, show, table, write
from timebox.cli.parsing import VerbHelp
from timebox.configs.verbs import CompareConfig

HELP = VerbHelp(
    CompareConfig,
    "lay runs side by side",
    "Shows accuracy, time and speed of runs, and where their recipes differ. For repeated trials and a test of "
    "significance, use `timebox benchmark`.",
    ("timebox compare runs/one runs/two", "timebox compare runs/* --output comparison.html"),
)


def run(args: argparse.Namespace) -> int:
    from timebox.pipelines.compare import compare
    from timebox.reporting.comparison_page import comparison_rows, differing_fields

    config: CompareConfig = args.config
    compared = compare(config.runs, output=config.output)
    if args.json:
        pairs = zip(compared, config.runs, strict=True)
        write(json_line({"runs": [{"run": path, **one.summary} for one, path in pairs]}))
        return DONE
    names = [one.name for one in compared]
    show(table(("", *names), comparison_rows(compared)))
    if rows := differing_fields(compared):
        show(table(("recipe", *names), rows))
    if config.output:
        write(facts([("written", config.output)]) + "\n")
    return DONE
