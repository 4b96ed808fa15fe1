"""`timebox lr-find`: the learning rate at which a recipe learns, and the one at which it no longer does."""

import argparse
import math
import shlex
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from timebox.cli import display
from timebox.cli.exit_status import DONE, LATE_OR_PARTLY_WRITTEN
from timebox.cli.formatting import facts, json_line, short, write
from timebox.cli.parsing import (
    Parser,
    Subparsers,
    add_cache,
    add_cut,
    add_data_dir,
    add_device,
    add_json,
    add_max_bad_share,
    add_precision,
    add_settings,
    add_verb,
    positive_number,
    whole_number,
)
from timebox.cli.text_plot import sketch
from timebox.clock import Deadline, parse_budget

if TYPE_CHECKING:
    from timebox.pipelines.lr_find import LRRange

SKETCH_WIDTH, SKETCH_HEIGHT, LABEL_WIDTH = 60, 10, 9


def add_parser(subparsers: Subparsers) -> Parser:
    """Adds the options of `timebox lr-find`."""
    parser = add_verb(
        subparsers,
        "lr-find",
        "test which learning rates a recipe learns at",
        "Takes steps at rates from far too small to far too large, and suggests a max_lr from what the loss did (the "
        "range test of L. Smith, arXiv 1506.01186). Writes lr_find.json and lr_find.svg.",
        (
            "timebox lr-find photos/",
            "timebox lr-find cifar10 --train-limit 5000 --recipe haet2021 --train-budget 4m",
        ),
    )
    parser.add_argument("data", metavar="DATA", help="a folder of class folders, a file, or a name: cifar10, digits, …")
    parser.add_argument(
        "--budget",
        metavar="TIME",
        default="55s",
        help="what the test may take, from the start of the command to its end (default: 55s)",
    )
    parser.add_argument(
        "--train-budget",
        metavar="TIME",
        default="10m",
        help="the budget of the training that the rate is for: auto and the batch follow from it (default: 10m)",
    )
    parser.add_argument("--recipe", metavar="NAME|FILE", default="auto", help="as of `timebox train` (default: auto)")
    add_settings(parser, "the recipe")
    parser.add_argument(
        "--low", metavar="LR", type=positive_number, help="the first rate (default: the recipe's max_lr / 1000)"
    )
    parser.add_argument(
        "--high", metavar="LR", type=positive_number, help="the last rate (default: 100 times the recipe's max_lr)"
    )
    parser.add_argument("--seed", metavar="N", type=whole_number(0), default=0, help="seed of the test (default: 0)")
    add_cut(parser)
    add_max_bad_share(parser)
    add_cache(parser)
    add_data_dir(parser)
    add_device(parser)
    add_precision(parser)
    parser.add_argument("--out", metavar="DIR", help="where the two files go (default: runs/<data>-lr-<date>-<time>)")
    add_json(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    """Tests the rates, and prints what they did."""
    deadline = Deadline.since_process_start(parse_budget(args.budget))
    with display.progress(deadline.budget_seconds) as reporter:
        from timebox.pipelines.lr_find import lr_find

        found = lr_find(
            args.data,
            train_budget=args.train_budget,
            recipe=args.recipe,
            settings=args.settings,
            low=args.low,
            high=args.high,
            train_limit=args.train_limit,
            split_seed=args.split_seed,
            seed=args.seed,
            device=args.device,
            precision=args.precision,
            out=args.out,
            data_dir=args.data_dir,
            coarse=args.coarse,
            max_bad_share=args.max_bad_share,
            cache=args.cache,
            reporter=reporter,
            deadline=deadline,
        )
    if args.json:
        write(json_line({"directory": found.path, **found.as_dict()}))
    else:
        write("".join(f"{line}\n" for line in (*drawn(found), "", facts(result_rows(found, args.data)))))
    return LATE_OR_PARTLY_WRITTEN if deadline.late else DONE


def drawn(found: "LRRange") -> Iterator[str]:
    """The smoothed loss over the rate, as text, with a mark below the suggestion."""
    test = found.test
    if len(test.lrs) < 2:
        return
    # What is far above the first loss would leave no room for what matters.
    losses = test.smoothed.clip(max=1.1 * test.smoothed[0])
    lines = sketch(
        [(math.log10(lr), loss) for lr, loss in zip(test.lrs, losses, strict=True)], SKETCH_WIDTH, SKETCH_HEIGHT
    )
    labels = {0: short(losses.max()), SKETCH_HEIGHT - 1: short(losses.min())}
    for row, line in enumerate(lines):
        yield f"{labels.get(row, 'loss' if row == SKETCH_HEIGHT // 2 else ''):>{LABEL_WIDTH}} │{line}"
    yield f"{'':>{LABEL_WIDTH}} └{'─' * SKETCH_WIDTH}"
    yield from _below(test.lrs.tolist(), test.suggestion)


def _below(lrs: Sequence[float], suggestion: float | None) -> Iterator[str]:
    """The axis of rates."""
    low, high = math.log10(lrs[0]), math.log10(lrs[-1])
    start, end = f"{lrs[0]:.1g}", f"{lrs[-1]:.1g}"
    yield f"{'':>{LABEL_WIDTH + 2}}{start}{'rate':^{SKETCH_WIDTH - len(start) - len(end)}}{end}"
    if suggestion is not None:
        place = round((math.log10(suggestion) - low) / (high - low) * (SKETCH_WIDTH - 1))
        yield f"{'':>{LABEL_WIDTH + 2 + place}}▲ {suggestion:.2g}"


def result_rows(found: "LRRange", data: str) -> Iterator[tuple[str, str]]:
    """What is printed below the drawing, as (label, value)."""
    test = found.test
    yield "max_lr", "no suggestion" if test.suggestion is None else f"{test.suggestion:.3g}"
    if found.filter_lr is not None:
        yield "filter_lr", f"{found.filter_lr:.3g}   filters are under Muon, whose rate rose with the others"
    yield "the recipe's", f"{found.recipe.max_lr:.3g}   {found.recipe.name}, batch {found.recipe.batch_size}"
    if test.bound is not None:
        yield "bound", f"{test.bound:.3g}"
    yield "why", f"{test.reason}   {len(test.lrs)} steps"
    yield "written", str(found.path)
    if found.settings:
        recipe = "" if found.recipe.name == "auto" else f" --recipe {found.recipe.name}"
        settings = "".join(f" --set {setting}" for setting in found.settings)
        yield "", ""
        yield "next", f"timebox train {shlex.quote(data)} --budget TIME{recipe}{settings}"
