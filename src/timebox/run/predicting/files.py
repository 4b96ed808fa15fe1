"""Predictions for image files, which are decoded in threads while earlier ones are predicted."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from timebox.data.images.model_input import ModelInput
from timebox.errors import TimeboxError
from timebox.machine import available_threads

if TYPE_CHECKING:
    from timebox.run.run import Run

# Files that are decoded and predicted together: fewer where their pixels and probabilities take more bytes than this.
FILES_AT_ONCE, BYTES_AT_ONCE = 125, 1 << 28


@dataclass(frozen=True, eq=False)
class FilePrediction:
    """The prediction for one file.

    Attributes:
        probabilities: float32 (num_classes,); None for a file that cannot be read.
        error: why it cannot be read, None for a file that can.
    """

    path: str
    probabilities: NDArray[np.float32] | None
    error: str | None


def predict_files(run: "Run", paths: Iterable[str | Path], tta: str) -> Iterator[FilePrediction]:
    """See :meth:`timebox.run.Run.predict_files`."""
    remaining, model_input = iter(paths), run.model_input
    at_once = max(1, min(FILES_AT_ONCE, BYTES_AT_ONCE // (model_input.num_bytes + run.probability_bytes)))
    with ThreadPoolExecutor(available_threads()) as pool:
        started: deque[tuple[list[str | Path], Iterator[NDArray[np.uint8] | str]]] = deque()
        while True:
            while len(started) < 2 and (batch := list(islice(remaining, at_once))):
                started.append((batch, pool.map(lambda path: _decode_or_say_why_not(model_input, path), batch)))
            if not started:
                return
            batch, decoded = started.popleft()
            images = list(decoded)
            readable = [image for image in images if not isinstance(image, str)]
            rows = iter(run.predict_proba(np.stack(readable), tta) if readable else ())
            for path, image in zip(batch, images, strict=True):
                error = image if isinstance(image, str) else None
                yield FilePrediction(str(path), next(rows) if error is None else None, error)


def _decode_or_say_why_not(model_input: ModelInput, path: str | Path) -> NDArray[np.uint8] | str:
    """The pixels of a file, or the reason why it cannot be read."""
    try:
        return model_input.decode(path)
    except TimeboxError as error:
        return str(error)
