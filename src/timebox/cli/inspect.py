"""`timebox inspect`: prints classes, counts, sizes, bad files and duplicates of a data set, without training."""

import argparse
from collections.abc import Iterator, Mapping
from statistics import median_low
from typing import TYPE_CHECKING, Any

from timebox.cli import display
from timebox.cli.exit_status import DONE
from timebox.cli.formatting import facts, json_line, show, table, write
from timebox.cli.parsing import VerbHelp
from timebox.configs.verbs import InspectCommandConfig, InspectConfig
from timebox.formatting import percent, plural

if TYPE_CHECKING:
    from rich.console import RenderableType

    from timebox.data import Inspection

MAX_KINDS = 6
MAX_CLASS_ROWS = 40
MAX_SUSPECT_ROWS = 50


HELP = VerbHelp(
    InspectCommandConfig,
    "show what is read from data, without training",
    "Classes and their counts, sizes and modes of the images, mean and deviation of the channels, files that "
    "cannot be read, and duplicate images.",
    ("timebox inspect photos/", "timebox inspect cifar10 --json", "timebox inspect runs/demo --suspects"),
)


def run(args: argparse.Namespace) -> int:
    config: InspectCommandConfig = args.config
    if config.suspects:
        return _list_suspects(config.data, args.json)
    with display.progress() as reporter:
        from timebox.pipelines.inspect import inspect

        # Unreadable files are reported, not refused.
        arguments: dict[str, Any] = config.as_dict(InspectConfig.__struct_fields__)
        inspection = inspect(**arguments, max_bad_share=1.0, reporter=reporter)
    if args.json:
        write(json_line(inspection.as_dict()))
    else:
        show(*renderables(inspection))
    return DONE


def _list_suspects(run_path: str, is_json: bool) -> int:
    """Prints the suspect images of a run."""
    from timebox.run.results.suspects import suspect_columns
    from timebox.run.run import Run

    columns = suspect_columns(Run(run_path, "cpu"))
    rows = list(zip(*(column.tolist() for column in columns.values()), strict=True))
    if is_json:
        write(json_line({"suspects": [dict(zip(columns, row, strict=True)) for row in rows]}))
    elif not rows:
        write("the training doubts no label\n")
    else:
        lines = [(name, label, rival, f"{margin:.2f}") for name, label, rival, margin in rows[:MAX_SUSPECT_ROWS]]
        show(
            f"{plural(len(rows), 'training image')} whose label the training doubts, the most suspect first",
            table(("file", "label", "looks like", "margin"), lines),
        )
        if len(rows) > MAX_SUSPECT_ROWS:
            write(f"  … and {len(rows) - MAX_SUSPECT_ROWS:,} more (--json has all)\n")
    return DONE


def renderables(inspection: "Inspection") -> "Iterator[RenderableType]":
    """Tables and text that show an inspection on the terminal."""
    yield facts(_data_facts(inspection))
    yield from _class_table(inspection)
    closing = facts([*_duplicates(inspection), *_bad_files(inspection), *(("note", note) for note in inspection.notes)])
    if closing:
        yield closing


def _data_facts(inspection: "Inspection") -> Iterator[tuple[str, str]]:
    splits = inspection.num_images
    height, width, channels = inspection.working_size
    parts = f": {', '.join(f'{name} {count:,}' for name, count in splits.items())}" if len(splits) > 1 else ""
    yield "data", f"{inspection.name}, {inspection.format}: {inspection.why}"
    yield "images", f"{sum(splits.values()):,} in {len(inspection.class_names):,} classes{parts}"
    yield "sizes", _most_frequent(inspection.sizes)
    yield "modes", _most_frequent(inspection.modes)
    yield "read as", f"{width}x{height}, {plural(channels, 'channel')}"
    yield "mean", "  ".join(f"{value:.3f}" for value in inspection.mean)
    yield "deviation", "  ".join(f"{value:.3f}" for value in inspection.std)


def _most_frequent(counts: Mapping[str, int]) -> str:
    ordered = sorted(counts.items(), key=lambda entry: -entry[1])
    first = ", ".join(f"{kind} ({count:,})" for kind, count in ordered[:MAX_KINDS])
    return first + (f", … and {len(ordered) - MAX_KINDS:,} more" if len(ordered) > MAX_KINDS else "")


def _class_table(inspection: "Inspection") -> "Iterator[RenderableType]":
    splits = inspection.class_counts
    first = next(iter(splits.values()))
    names = list(inspection.class_names)
    if len(names) > MAX_CLASS_ROWS:
        names = sorted(names, key=lambda name: first.get(name, 0))[:MAX_CLASS_ROWS]
        sizes = sorted(first.values())
        yield (
            f"\n  the {MAX_CLASS_ROWS} smallest of {len(inspection.class_names):,} classes (--json has all): "
            f"smallest {sizes[0]:,}, median {median_low(sizes):,}, largest {sizes[-1]:,}"
        )
    rows = [(name, *(f"{counts.get(name, 0):,}" for counts in splits.values())) for name in names]
    yield table(("class", *splits), rows)


def _duplicates(inspection: "Inspection") -> Iterator[tuple[str, str]]:
    for one in inspection.duplicates:
        where = f"{'in' if ' and ' in one.where else 'within'} {one.where}"
        relabelled = f", {one.num_relabelled:,} of them under another label" if one.num_relabelled else ""
        first, again = one.examples[0]
        yield "duplicates", f"{plural(one.num_images, 'image')} {where}{relabelled}; {again} is {first}"


def _bad_files(inspection: "Inspection") -> Iterator[tuple[str, str]]:
    bad = inspection.bad_files
    if not bad:
        return
    total = len(bad) + sum(inspection.num_images.values())
    yield "unreadable", f"{len(bad):,} of {plural(total, 'file')}, {percent(len(bad) / total, 1)}"
    for file in bad:
        yield "unreadable", f"{file.path}: {file.reason}"
