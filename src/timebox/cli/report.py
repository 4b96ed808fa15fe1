"""`timebox report`: the page of a run, written again."""

import argparse

from timebox.cli.exit_status import DONE
from timebox.cli.formatting import facts, json_line, write
from timebox.cli.parsing import Parser, Subparsers, add_json, add_verb


def add_parser(subparsers: Subparsers) -> Parser:
    """Adds the options of `timebox report`."""
    parser = add_verb(
        subparsers,
        "report",
        "write the page of a run",
        "Writes a run's page, one HTML file that needs nothing else: what it reached and how sure that is, where the "
        "time went, what it gets wrong. `timebox train` writes it too.",
        ("timebox report runs/demo", "timebox report runs/demo --output demo.html --no-thumbnails"),
    )
    parser.add_argument("run_dir", metavar="RUN", help="a run directory that `timebox train` wrote")
    parser.add_argument("--output", metavar="FILE", help="where to (default: report.html in RUN)")
    parser.add_argument(
        "--no-thumbnails", action="store_false", dest="thumbnails", help="leave images of the data out of it"
    )
    parser.add_argument(
        "--tensorboard",
        metavar="DIR",
        help="write the metrics for TensorBoard too, into a folder in DIR (takes the extra `tensorboard`)",
    )
    add_json(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    """Writes the page, and says where."""
    from timebox.pipelines.report import report
    from timebox.pipelines.tensorboard import tensorboard

    written = {"report": str(report(args.run_dir, output=args.output, thumbnails=args.thumbnails))}
    if args.tensorboard:
        written["tensorboard"] = str(tensorboard(args.run_dir, args.tensorboard))
    write(json_line(written) if args.json else facts(("written", path) for path in written.values()) + "\n")
    return DONE
