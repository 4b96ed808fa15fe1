"""`timebox compare`: runs side by side, on the terminal and as a page."""

import argparse

from timebox.cli.exit_status import DONE
from timebox.cli.formatting import facts, json_line, show, table, write
from timebox.cli.parsing import Parser, Subparsers, add_json, add_verb


def add_parser(subparsers: Subparsers) -> Parser:
    """Adds the options of `timebox compare`."""
    parser = add_verb(
        subparsers,
        "compare",
        "lay runs side by side",
        "Shows what runs reached, what it took, and where their recipes differ. For repeated trials and a test of what "
        "the difference means, use `timebox benchmark`.",
        ("timebox compare runs/one runs/two", "timebox compare runs/* --output comparison.html"),
    )
    parser.add_argument("run_dirs", metavar="RUN", nargs="+", help="two run directories or more")
    parser.add_argument("--output", metavar="FILE", help="write a page as well")
    add_json(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    """Prints the comparison, and writes the page if it is asked for."""
    from timebox.pipelines.compare import compare
    from timebox.reporting.comparison_page import comparison_rows, differing_fields

    compared = compare(args.run_dirs, output=args.output)
    if args.json:
        pairs = zip(compared, args.run_dirs, strict=True)
        write(json_line({"runs": [{"run": path, **one.summary} for one, path in pairs]}))
        return DONE
    names = [one.name for one in compared]
    show(table(("", *names), comparison_rows(compared)))
    if rows := differing_fields(compared):
        show(table(("recipe", *names), rows))
    if args.output:
        write(facts([("written", args.output)]) + "\n")
    return DONE
