"""`timebox export`: writes a run's model to one file, for use without timebox."""

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING

from timebox.cli.exit_status import DONE
from timebox.cli.formatting import facts, json_line, write
from timebox.cli.parsing import VerbHelp
from timebox.cli.predict import image_files
from timebox.configs.verbs import ExportConfig
from timebox.formatting import percent, plural

if TYPE_CHECKING:
    from timebox.exporting import Exported


HELP = VerbHelp(
    ExportConfig,
    "write the model to one file, for use without timebox",
    "Writes one file that takes pixels, uint8 (N, H, W, C) of any size, and gives calibrated probabilities: "
    "resizing, cropping, normalisation and test-time augmentation are inside. Before it is written its "
    "probabilities are compared with the run's.",
    (
        "timebox export runs/demo",
        "timebox export runs/demo --format torch --output demo.pt2 --tta none",
        "timebox export runs/demo --check photos/",
        "timebox export runs/demo --int8",
    ),
)


def run(args: argparse.Namespace) -> int:
    config: ExportConfig = args.config
    files = list(image_files(config.check))

    from timebox.exporting import export

    exported = export(
        config.run,
        config.format,
        output=config.output,
        tta=config.tta,
        overwrite=config.overwrite,
        files=files,
        int8=config.int8,
        data=config.data,
        max_loss=config.max_loss,
        trust_code=config.trust_code,
    )
    write(json_line(exported.as_dict()) if args.json else facts(result_rows(exported)) + "\n")
    return DONE


def result_rows(exported: "Exported") -> Iterator[tuple[str, str]]:
    """The printed lines, as (label, value)."""
    yield "written", f"{exported.path}, {exported.num_bytes / 1e6:.1f} MB"
    yield "takes", f"images: uint8 (N, H, W, {exported.channels}), any N, H and W"
    yield "gives", f"probabilities: float32 (N, {len(exported.class_names)}), {_calibration(exported)}"
    yield "inside", f"resizing, cropping, normalisation, views: {exported.tta}"
    for check in exported.checks:
        height, width = check.size
        yield (
            "checked",
            f"{plural(check.num_images, 'image')} of {width}x{height}: probabilities differ from the "
            f"run's by at most {check.difference:.0e} of their value; up to {check.allowed:.0e} counts as rounding",
        )
    if (int8 := exported.quantization) is not None:
        yield (
            "int8",
            f"{percent(int8.accuracy)} in place of {percent(int8.float_accuracy)} of "
            f"{plural(int8.num_images, 'image')} right; {int8.num_bytes / 1e6:.1f} in place of "
            f"{int8.float_num_bytes / 1e6:.1f} MB; "
            f"{int8.images_per_second:,.0f} in place of {int8.float_images_per_second:,.0f} images/s",
        )
        if int8.num_float_layers:
            yield (
                "",
                f"the first {int8.num_float_layers} of {int8.num_layers} layers stay in float32, as they lose most",
            )
    if exported.decoder:
        decoder = exported.decoder
        yield (
            "decoder",
            f"{decoder.num_changed} of {plural(decoder.num_files, 'file')} "
            f"({percent(decoder.num_changed / decoder.num_files)}) get another class when decoded at full size; "
            f"probabilities within {decoder.difference:.0e}",
        )


def _calibration(exported: "Exported") -> str:
    if exported.uncalibrated_reason is not None:
        return f"not calibrated: {exported.uncalibrated_reason}"
    return f"calibrated with the temperature {exported.temperature:g}"
