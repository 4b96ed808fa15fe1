"""`timebox export`: a run as one file that answers without timebox."""

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING

from timebox.cli.exit_status import DONE
from timebox.cli.formatting import facts, json_line, percent, plural, write
from timebox.cli.parsing import Parser, Subparsers, add_json, add_tta, add_verb
from timebox.cli.predict import image_files

if TYPE_CHECKING:
    from timebox.exporting import ExportResult

FORMATS = ("onnx", "torch")


def add_parser(subparsers: Subparsers) -> Parser:
    """Adds the options of `timebox export`."""
    parser = add_verb(
        subparsers,
        "export",
        "write the model to one file, for use without timebox",
        "Writes one file that takes pixels, uint8 (N, H, W, C) of any size, and gives calibrated probabilities: "
        "resizing, cropping, normalisation and the views are inside. Before it is written its answers are compared "
        "with the run's.",
        (
            "timebox export runs/demo",
            "timebox export runs/demo --format torch --output demo.pt2 --tta none",
            "timebox export runs/demo --check photos/",
        ),
    )
    parser.add_argument("run_dir", metavar="RUN", help="a run directory that `timebox train` wrote")
    parser.add_argument(
        "--format",
        choices=FORMATS,
        default="onnx",
        help="onnx, for onnxruntime and others (takes the extra `onnx`); torch, a program of torch.export "
        "(default: onnx)",
    )
    parser.add_argument("--output", metavar="FILE", help="where to (default: model.onnx or model.pt2 in RUN)")
    parser.add_argument("--overwrite", action="store_true", help="replace a file that is there")
    parser.add_argument(
        "--check",
        metavar="IMAGE",
        nargs="+",
        default=[],
        help="image files or folders, to see on what it makes that another program decodes them",
    )
    add_tta(parser)
    add_json(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    """Exports, and prints what was written and how it was checked."""
    files = list(image_files(args.check))

    from timebox.exporting import export

    exported = export(
        args.run_dir, args.format, output=args.output, tta=args.tta, overwrite=args.overwrite, files=files
    )
    write(json_line(exported.as_dict()) if args.json else facts(result_rows(exported)) + "\n")
    return DONE


def result_rows(exported: "ExportResult") -> Iterator[tuple[str, str]]:
    """What is printed, as (label, value)."""
    yield "written", f"{exported.path}, {exported.num_bytes / 1e6:.1f} MB"
    yield "takes", f"images: uint8 (N, H, W, {exported.channels}), any N, H and W"
    yield "gives", f"probabilities: float32 (N, {len(exported.class_names)}), {_calibration(exported)}"
    yield "inside", f"resizing, cropping, normalisation, views: {exported.tta}"
    for check in exported.checks:
        height, width = check.size
        yield (
            "checked",
            f"{plural(check.num_images, 'image')} of {width}x{height}: probabilities within {check.difference:.0e} of "
            f"their value in the run, rounding explains {check.allowed:.0e}",
        )
    if exported.decoder:
        decoder = exported.decoder
        yield (
            "decoder",
            f"{decoder.num_changed} of {plural(decoder.num_files, 'file')} "
            f"({percent(decoder.num_changed / decoder.num_files)}) get another class when they are decoded whole; "
            f"probabilities within {decoder.difference:.0e}",
        )


def _calibration(exported: "ExportResult") -> str:
    if exported.temperature == 1.0:
        return "not calibrated: the run had no validation images to fit a temperature on"
    return f"calibrated with the temperature {exported.temperature:g}"
