"""ONNX Runtime in place of torch: it predicts single images several times as fast on a CPU.

The run is exported in a process of its own, while torch answers; that takes some 20 seconds of one core.
"""

import tempfile
import threading
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from timebox.exporting.onnx_runtime import open_model, seconds_in_turn
from timebox.exporting.parity import PredictFn
from timebox.machine import available_threads
from timebox.processes.children import DEVNULL, running_module
from timebox.run import Run

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
# Images of the batches that both are measured on, and how often.
MEASURED_SIZES, NUM_MEASUREMENTS = (1, 8), 3
# Two correct programs of the same network differ by their rounding, in probabilities by less than this.
MAX_DIFFERENCE = 1e-4
WAIT_SECONDS = 0.2


class OnnxEngine:
    """Exports a run in the background, and hands over a function that predicts by ONNX Runtime if it is faster.

    Args:
        options: of ``timebox export``, beside the run and the file.
        use: called in a thread with the function and how many times as fast as torch it predicts one image.
    """

    def __init__(self, run: Run, tta: str, options: tuple[str, ...], use: Callable[[PredictFn, float], object]) -> None:
        self._run, self._tta, self._options, self._use = run, tta, options, use
        self._is_closed = threading.Event()
        self._thread = threading.Thread(target=self._make, name="onnx", daemon=True)
        self._thread.start()

    @staticmethod
    def is_possible(run: Run) -> bool:
        """Whether ONNX Runtime and what exporting needs are installed, and the run predicts on the CPU."""
        return run.device.type == "cpu" and all(find_spec(name) for name in PACKAGES)

    def wait(self, seconds: float) -> None:
        """Wait until it has been handed over, or is not faster; so long at most."""
        self._thread.join(seconds)

    def close(self) -> None:
        """Stop exporting."""
        self._is_closed.set()
        self._thread.join()

    def _make(self) -> None:
        with tempfile.TemporaryDirectory(prefix="timebox-serve-") as folder:
            path = Path(folder) / "model.onnx"
            if not self._export(path):
                return
            predict = open_model(path, available_threads())
        speedups = [self._speedup(predict, size) for size in MEASURED_SIZES]
        if min(speedups) > 1 and not self._is_closed.is_set():
            self._use(predict, speedups[0])

    def _export(self, path: Path) -> bool:
        """Export the run in another process; whether there is a file in the end."""
        arguments = ["export", str(self._run.path), "--output", str(path), "--tta", self._tta, *self._options]
        with running_module("timebox", arguments, stdout=DEVNULL, stderr=DEVNULL) as process:
            while process.poll() is None and not self._is_closed.wait(WAIT_SECONDS):
                pass
        return path.is_file()

    def _speedup(self, predict: PredictFn, size: int) -> float:
        """How many times as fast as torch so many images are predicted; 0 where the two do not agree."""
        images = np.random.default_rng(0).integers(0, 256, (size, *self._run.preprocessing.image_shape), dtype=np.uint8)
        if float(np.abs(predict(images) - self._by_torch(images)).max()) > MAX_DIFFERENCE:
            return 0.0
        by_torch, by_onnx = seconds_in_turn((self._by_torch, predict), images, NUM_MEASUREMENTS)
        return by_torch / by_onnx

    def _by_torch(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        return self._run.predict_proba(images, self._tta)
