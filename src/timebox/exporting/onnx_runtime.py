"""ONNX Runtime: imported without its telemetry, exported models as functions, and how fast such functions are."""

import os
import statistics
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from timebox.clock import now
from timebox.exporting.parity import PredictFn

# The input and the output of an exported model.
INPUT, OUTPUT = "images", "probabilities"

# Read once, when the library is loaded: `onnxruntime.disable_telemetry_events()` comes too late, a thread runs by then,
# and a device id and a database are in the user's cache.
TELEMETRY_SWITCH = "ORT_DISABLE_TELEMETRY"


def import_onnxruntime() -> Any:
    """The module ``onnxruntime``, imported with its telemetry off; raises ImportError where it is not installed.

    The environment is as before afterwards. Where the user has set the switch, or has imported the module before, that
    stays as it is.
    """
    if TELEMETRY_SWITCH in os.environ:
        return import_module("onnxruntime")
    os.environ[TELEMETRY_SWITCH] = "1"
    try:
        return import_module("onnxruntime")
    finally:
        del os.environ[TELEMETRY_SWITCH]


def open_model(path: Path, threads: int | None = None) -> PredictFn:
    """An exported model as a function. The file is read, and may be removed then.

    Args:
        threads: that compute it; None for ONNX Runtime's own choice.
    """
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    if threads is not None:
        options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])

    def predict(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        probabilities: NDArray[np.float32] = session.run([OUTPUT], {INPUT: images})[0]
        return probabilities

    return predict


def seconds_in_turn(functions: Sequence[PredictFn], images: NDArray[np.uint8], num_repeats: int) -> list[float]:
    """The median seconds of each function for these images, in turn, after a call of each that does not count."""
    seconds: list[list[float]] = [[] for _ in functions]
    for _ in range(1 + num_repeats):
        for function, taken in zip(functions, seconds, strict=True):
            started = now()
            function(images)
            taken.append(now() - started)
    return [statistics.median(taken[1:]) for taken in seconds]
