"""Pictures to predictions: decoded in threads as ``timebox predict`` decodes files, and predicted in batches."""

import asyncio
import io
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar, TypeVarTuple

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from timebox.data.images.signatures import is_encoded_image
from timebox.errors import DataError, TimeboxError
from timebox.machine import available_threads
from timebox.run import Run
from timebox.serving.http.bodies import Picture
from timebox.serving.http.errors import RequestError
from timebox.serving.predictions.batching import Batcher

SIGNATURE_BYTES = 64

Result = TypeVar("Result")
Arguments = TypeVarTuple("Arguments")


class LabelProbability(Struct, frozen=True):
    """A class, by name, and its calibrated probability, 0...1."""

    label: str
    probability: float


class Prediction(Struct, frozen=True, omit_defaults=True):
    """The prediction for one picture; the fields of ``timebox predict --format jsonl``.

    Attributes:
        path: the name of the file, as it was sent.
        label: the most probable class.
        probability: of it, 0...1, calibrated.
        top: the most probable classes, best first.
        error: why the picture cannot be read; the other fields are missing then.
    """

    path: str = ""
    label: str | None = None
    probability: float | None = None
    top: tuple[LabelProbability, ...] | None = None
    error: str | None = None


class Unreadable(NamedTuple):
    """A picture that cannot be read: a status of HTTP, and why."""

    status: int
    reason: str


class Predictor:
    """A run that predicts the pictures of all requests.

    Args:
        tta: test-time augmentation, ``recipe`` for that of the run.
    Attributes:
        engine: that computes the predictions.
    """

    def __init__(self, run: Run, tta: str) -> None:
        self._run = run
        self._input = run.model_input
        self._threads = ThreadPoolExecutor(available_threads(), thread_name_prefix="decode")
        self._batcher = Batcher(lambda images: run.predict_proba(images, tta))
        self.engine = "torch"

    def use(self, engine: str, predict: Callable[[NDArray[np.uint8]], NDArray[np.float32]]) -> None:
        """Predict by another engine from the next batch on."""
        self.engine, self._batcher.predict = engine, predict

    async def predict(self, pictures: Sequence[Picture], top: int) -> list[Prediction]:
        """A prediction for each picture, in order. Raises RequestError where none of them can be read."""
        decoded = await asyncio.gather(*(self._in_thread(self._decode, picture) for picture in pictures))
        readable = [pixels for pixels in decoded if not isinstance(pixels, Unreadable)]
        if not readable:
            assert isinstance(decoded[0], Unreadable)
            raise RequestError(decoded[0].status, decoded[0].reason)
        rows = iter(await self._batcher(np.stack(readable)))
        return [
            Prediction(picture.name, error=pixels.reason)
            if isinstance(pixels, Unreadable)
            else self._ranked(picture.name, next(rows), top)
            for picture, pixels in zip(pictures, decoded, strict=True)
        ]

    async def explain(self, picture: Picture, label: str | None) -> tuple[str, NDArray[np.float32]]:
        """The class that is explained, the most probable one for None, and its heat map; see :meth:`Run.explain`."""
        pixels = await self.readable(picture)
        if label is None:
            label = self._run.class_names[int((await self._batcher(pixels[None]))[0].argmax())]
        return label, await self._in_thread(self._run.explain, pixels, label)

    async def readable(self, picture: Picture) -> NDArray[np.uint8]:
        """The pixels of a picture, (H, W, C). Raises RequestError where it cannot be read."""
        pixels = await self._in_thread(self._decode, picture)
        if isinstance(pixels, Unreadable):
            raise RequestError(pixels.status, pixels.reason)
        return pixels

    def close(self) -> None:
        """Finish what is waiting."""
        self._threads.shutdown()
        self._batcher.close()

    async def _in_thread(self, function: Callable[[*Arguments], Result], *arguments: *Arguments) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)

    def _decode(self, picture: Picture) -> NDArray[np.uint8] | Unreadable:
        try:
            return self._input.decode(io.BytesIO(picture.content))
        except TimeboxError as error:
            is_image = is_encoded_image(picture.content[:SIGNATURE_BYTES])
            is_readable = isinstance(error, DataError) and is_image
            return Unreadable(400 if is_readable else 415, f"the picture cannot be read: {error}")

    def _ranked(self, name: str, probabilities: NDArray[np.float32], top: int) -> Prediction:
        best = (-probabilities).argsort(kind="stable")[:top]
        ranked = tuple(LabelProbability(self._run.class_names[index], float(probabilities[index])) for index in best)
        return Prediction(name, ranked[0].label, ranked[0].probability, ranked)
