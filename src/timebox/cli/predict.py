"""`timebox predict`: labels and probabilities for image files, as CSV or JSON lines, written as they come."""

import argparse
import io
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from timebox.cli.csv_line import csv_line
from timebox.cli.exit_status import DONE
from timebox.cli.file_list import read_names
from timebox.cli.formatting import json_line, write, write_raw
from timebox.cli.parsing import VerbHelp
from timebox.configs.verbs import PredictConfig
from timebox.errors import DataError
from timebox.formatting import plural
from timebox.paths import expand_user

STDIN = "-"  # in place of an image: a list of files on stdin

if TYPE_CHECKING:
    from timebox.run.predicting.files import FilePrediction

    Ranked = list[tuple[str, float]]


HELP = VerbHelp(
    PredictConfig,
    "label image files",
    "Labels files, and the images in folders and the folders below them. A file that cannot be read is reported in "
    "its place; the exit status is 2 only where none could be read.",
    (
        "timebox predict runs/demo photo.jpg",
        "timebox predict runs/demo photos/ --top 3 --format jsonl",
        "find / -name '*.jpg' -print0 | timebox predict runs/demo -",
    ),
    json_help="the same as --format jsonl",
)


def run(args: argparse.Namespace) -> int:
    """Writes a line for each file, in their order. Raises DataError where none could be read."""
    config: PredictConfig = args.config
    paths = image_files(config.images)

    from timebox.run.run import load

    trained = load(config.run, device=config.device, trust_code=config.trust_code)
    top = min(config.top, len(trained.class_names))
    is_csv = config.format == "csv" and not args.json
    if is_csv:
        write_raw(csv_line(["path", *_columns(top), "error"]))
    num_files = num_read = 0
    for prediction in trained.predict_files(paths, config.tta):
        num_files, num_read = num_files + 1, num_read + (prediction.error is None)
        ranked = _ranked(prediction, trained.class_names, top)
        if is_csv:
            write_raw(_as_csv(prediction, ranked, top, for_terminal=sys.stdout.isatty()))
        else:
            write(_as_json(prediction, ranked))
    if not num_read:
        raise DataError(f"no image could be read, of {plural(num_files, 'file')}; each line says why")
    return DONE


def image_files(names: Sequence[str]) -> Iterator[Path]:
    """Files as they are, those that a list on stdin names for ``-``, and of each folder all images in and below it.

    Raises DataError, before the first is yielded, for a path that does not exist, for a folder without images, and for
    an empty list.
    """
    for name in names:
        if name != STDIN and not Path(name).exists():
            raise DataError(f"no such file or folder: {name!r}")
    return chain.from_iterable([_listed() if name == STDIN else _images_at(Path(name)) for name in names])


def _listed() -> Iterator[Path]:
    """The files on stdin, and the images of the folders there. The first is read at once, the others as they come."""
    stdin = getattr(sys.stdin, "buffer", None) or io.BytesIO(sys.stdin.read().encode() if sys.stdin else b"")
    names = read_names(stdin)
    first = next(names, None)
    if first is None:
        raise DataError("the list of files on standard input is empty")
    return _files_of(chain([first], names))


def _files_of(names: Iterable[str]) -> Iterator[Path]:
    """The file of each name, or the images of a folder. A folder without any is reported in its place, as a file is."""
    for name in names:
        path = Path(expand_user(name))
        yield from (_images_in(path) if path.is_dir() else []) or [path]


def _images_at(path: Path) -> Sequence[Path]:
    """A file itself, or the images in a folder. Raises DataError for a folder without any."""
    if not path.is_dir():
        return [path]
    if not (images := _images_in(path)):
        raise DataError(f"{str(path)!r} holds no images")
    return images


def _images_in(folder: Path) -> list[Path]:
    from timebox.data.folders.tree import image_paths

    return image_paths(folder)


def _ranked(prediction: "FilePrediction", class_names: Sequence[str], top: int) -> "Ranked":
    if prediction.probabilities is None:
        return []
    best = (-prediction.probabilities).argsort(kind="stable")[:top]
    return [(class_names[index], float(prediction.probabilities[index])) for index in best]


def _columns(top: int) -> Iterator[str]:
    for place in range(1, top + 1):
        ending = "" if place == 1 else f"_{place}"
        yield from (f"label{ending}", f"probability{ending}")


def _as_csv(prediction: "FilePrediction", ranked: "Ranked", top: int, *, for_terminal: bool) -> str:
    cells = [cell for label, probability in ranked for cell in (label, f"{probability:.6f}")] or [""] * (2 * top)
    return csv_line([prediction.path, *cells, prediction.error or ""], for_terminal)


def _as_json(prediction: "FilePrediction", ranked: "Ranked") -> str:
    if prediction.error is not None:
        return json_line({"path": prediction.path, "error": prediction.error})
    label, probability = ranked[0]
    top = [{"label": label, "probability": probability} for label, probability in ranked]
    return json_line({"path": prediction.path, "label": label, "probability": probability, "top": top})
