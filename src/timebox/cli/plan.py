"""`timebox plan`: prints what a training would do with its budget, without training."""

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING

from timebox.cli import display
from timebox.cli.exit_status import DONE
from timebox.cli.formatting import facts, json_line, write
from timebox.cli.parsing import VerbHelp
from timebox.clock import Deadline, format_duration
from timebox.configs.arguments import to_arguments
from timebox.configs.verbs import PlanConfig
from timebox.formatting import plural
from timebox.paths import shell_quote

if TYPE_CHECKING:
    from timebox.pipelines.plan import PlannedTraining


HELP = VerbHelp(
    PlanConfig,
    "show what a training would do with its budget, without training",
    "Reads the data and measures this machine for a few seconds, as the training would, and prints the network, its "
    "images, the epochs, the time for each phase and, for the recipe auto, the accuracy to expect with this and with "
    "other budgets. Writes nothing but the cache.",
    ("timebox plan photos/", "timebox plan cifar10 --train-limit 5000 --budget 4m --json"),
)


def run(args: argparse.Namespace) -> int:
    config: PlanConfig = args.config
    deadline = Deadline.since_process_start(config.budget)
    with display.progress() as reporter:
        from timebox.pipelines.plan import plan

        planned = plan(**config.arguments(), reporter=reporter, deadline=deadline)
    if args.json:
        write(json_line(planned.as_dict()))
    else:
        write(f"{facts([*result_rows(planned), ('', ''), ('next', train_command(config))])}\n")
    return DONE


def result_rows(planned: "PlannedTraining") -> Iterator[tuple[str, str]]:
    """The lines printed, as (label, value)."""
    recipe, seconds = planned.recipe, planned.seconds
    height, width, _ = planned.image_shape
    counts = ", ".join(f"{name} {count:,}" for name, count in planned.num_images.items())
    yield "data", f"{planned.data_name}: {counts}; {plural(planned.num_classes, 'class', 'classes')}"
    yield "images", f"{width}x{height} px"
    threads = f", {plural(planned.threads, 'thread')}" if planned.device == "cpu" else ""
    yield "device", f"{planned.device}, {planned.precision}{threads}"
    networks = f"{recipe.ensemble_size} networks of {recipe.model}" if recipe.ensemble_size > 1 else recipe.model
    yield "network", f"{networks}, width {recipe.width}"
    batches = f"{planned.steps:,} steps of {plural(recipe.batch_size, 'image')}"
    yield "training", f"{planned.epochs:.1f} epochs: {batches}"
    for phase, value in seconds.items():
        yield "time", f"{format_duration(value):>6}  {phase}"
    if planned.pretrained:
        yield "begins with", planned.pretrained
    from_scratch = " from scratch" if planned.pretrained else ""
    for forecast in planned.forecasts:
        yield "accuracy", f"{format_duration(forecast.budget_seconds):>6}{from_scratch}  {forecast}"
    if not planned.forecasts:
        yield "accuracy", planned.lines[-1]


def train_command(config: PlanConfig) -> str:
    """The command of the training that was planned."""
    return " ".join(map(shell_quote, ["timebox", "train", *to_arguments(config, always=("budget",))]))
