"""`timebox lr-find`: runs a learning-rate range test, and prints its curve and the suggested rate."""

import argparse
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from timebox.cli import display
from timebox.cli.exit_status import DONE, LATE_OR_PARTLY_WRITTEN
from timebox.cli.formatting import facts, json_line, write
from timebox.cli.parsing import VerbHelp
from timebox.cli.text_plot import sketch
from timebox.clock import Deadline
from timebox.configs.lr_find import LrFindConfig
from timebox.formatting import short
from timebox.paths import shell_quote

if TYPE_CHECKING:
    from timebox.pipelines.lr_find import LRRange

SKETCH_WIDTH, SKETCH_HEIGHT, LABEL_WIDTH = 60, 10, 9


HELP = VerbHelp(
    LrFindConfig,
    "test which learning rates a recipe learns at",
    "Takes steps at rates from far too small to far too large, and suggests a max_lr from the loss (the range "
    "test of L. Smith, arXiv 1506.01186). Writes lr_find.json and lr_find.svg.",
    ("timebox lr-find photos/", "timebox lr-find cifar10 --train-limit 5000 --recipe haet2021 --train-budget 4m"),
)


def run(args: argparse.Namespace) -> int:
    config: LrFindConfig = args.config
    deadline = Deadline.since_process_start(config.budget)
    with display.progress(deadline.budget_seconds) as reporter:
        from timebox.pipelines.lr_find import lr_find

        result = lr_find(**config.arguments(), reporter=reporter, deadline=deadline)
    if args.json:
        write(json_line({"directory": result.path, **result.as_dict()}))
    else:
        lines = (*curve_lines(result), "", facts(result_rows(result, config.data)))
        write("".join(f"{line}\n" for line in lines))
    return LATE_OR_PARTLY_WRITTEN if deadline.late else DONE


def curve_lines(result: "LRRange") -> Iterator[str]:
    """The smoothed loss over the learning rate, drawn with Braille characters."""
    test = result.test
    if len(test.lrs) < 2:
        return
    # Losses far above the first would flatten the rest of the curve.
    losses = test.smoothed.clip(max=1.1 * test.smoothed[0])
    lines = sketch(
        [(math.log10(lr), loss) for lr, loss in zip(test.lrs, losses, strict=True)], SKETCH_WIDTH, SKETCH_HEIGHT
    )
    labels = {0: short(losses.max()), SKETCH_HEIGHT - 1: short(losses.min())}
    for row, line in enumerate(lines):
        yield f"{labels.get(row, 'loss' if row == SKETCH_HEIGHT // 2 else ''):>{LABEL_WIDTH}} │{line}"
    yield f"{'':>{LABEL_WIDTH}} └{'─' * SKETCH_WIDTH}"
    yield from _axis_lines(test.lrs.tolist(), test.suggestion)


def _axis_lines(lrs: Sequence[float], suggestion: float | None) -> Iterator[str]:
    """The axis of learning rates, with a mark at the suggestion."""
    low, high = math.log10(lrs[0]), math.log10(lrs[-1])
    start, end = f"{lrs[0]:.1g}", f"{lrs[-1]:.1g}"
    yield f"{'':>{LABEL_WIDTH + 2}}{start}{'rate':^{SKETCH_WIDTH - len(start) - len(end)}}{end}"
    if suggestion is not None:
        place = round((math.log10(suggestion) - low) / (high - low) * (SKETCH_WIDTH - 1))
        yield f"{'':>{LABEL_WIDTH + 2 + place}}▲ {suggestion:.2g}"


def result_rows(result: "LRRange", data: str) -> Iterator[tuple[str, str]]:
    """The lines printed below the curve, as (label, value)."""
    test = result.test
    yield "max_lr", "no suggestion" if test.suggestion is None else f"{test.suggestion:.3g}"
    if result.filter_lr is not None:
        yield "filter_lr", f"{result.filter_lr:.3g}   filters are under Muon, whose rate rose with the others"
    yield "the recipe's", f"{result.recipe.max_lr:.3g}   {result.recipe.name}, batch {result.recipe.batch_size}"
    if test.bound is not None:
        yield "bound", f"{test.bound:.3g}"
    yield "why", f"{test.reason}   {len(test.lrs)} steps"
    yield "written", str(result.path)
    if result.settings:
        recipe = "" if result.recipe.name == "auto" else f" --recipe {result.recipe.name}"
        settings = "".join(f" --set {setting}" for setting in result.settings)
        yield "", ""
        yield "next", f"timebox train {shell_quote(data)} --budget TIME{recipe}{settings}"
