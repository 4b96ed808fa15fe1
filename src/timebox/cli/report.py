"""`timebox report`: writes the HTML page of a run again."""

import argparse

from timebox.cli.exit_status import DONE
from timebox.cli.formatting import facts, json_line, write
from timebox.cli.parsing import VerbHelp
from timebox.configs.verbs import ReportConfig

HELP = VerbHelp(
    ReportConfig,
    "write the page of a run",
    "Writes a run's page, one HTML file that needs nothing else: accuracy with its interval, time by phase, "
    "mistakes and confusions. `timebox train` writes it too.",
    ("timebox report runs/demo", "timebox report runs/demo --output demo.html --no-thumbnails"),
)


def run(args: argparse.Namespace) -> int:
    from timebox.pipelines.report import report
    from timebox.pipelines.tensorboard import tensorboard

    config: ReportConfig = args.config
    written = {"report": str(report(config.run, output=config.output, thumbnails=config.thumbnails))}
    if config.tensorboard:
        written["tensorboard"] = str(tensorboard(config.run, config.tensorboard))
    write(json_line(written) if args.json else facts(("written", path) for path in written.values()) + "\n")
    return DONE
