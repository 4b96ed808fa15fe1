"""Predicts the images of all clients together: while a batch is computed, the images of the next one gather."""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.uint8]
Probabilities = NDArray[np.float32]

# Images of a batch: more of them would make the first one wait, and gain nothing on a CPU.
MAX_BATCH = 32
# Seconds that the first images of a batch wait for others that are on their way.
GATHER_SECONDS = 0.005


@dataclass(eq=False)
class _Waiting:
    """Images that wait for their prediction: uint8 (N, H, W, C)."""

    images: Images
    loop: asyncio.AbstractEventLoop
    future: "asyncio.Future[Probabilities]"


@dataclass(eq=False)
class Batcher:
    """Predicts images in a thread, those of several callers in one batch.

    An image waits for the batch that is being computed and for no other: the next batch has all that came meanwhile,
    up to a number, and what comes within a few milliseconds more where several callers ask at once.

    Args:
        predict: from images uint8 (N, H, W, C) to probabilities float32 (N, num_classes). It may be exchanged at any
            time.
        max_batch: images of a batch. One caller's are never parted.
    """

    predict: Callable[[Images], Probabilities]
    max_batch: int = MAX_BATCH
    _num_callers: int = 0  # of the last batch, and those that waited then
    _waiting: deque[_Waiting] = field(default_factory=deque)
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _is_closed: bool = False

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=self._run, name="predict", daemon=True)
        self._thread.start()

    async def __call__(self, images: Images) -> Probabilities:
        """The probabilities of images, as of ``predict``; or its exception."""
        loop = asyncio.get_running_loop()
        waiting = _Waiting(images, loop, loop.create_future())
        with self._changed:
            if self._is_closed:
                raise RuntimeError("the batcher is closed")
            self._waiting.append(waiting)
            self._changed.notify()
        return await waiting.future

    def close(self) -> None:
        """Predict what is waiting, and end the thread."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while batch := self._next_batch():
            try:
                probabilities: Sequence[Probabilities] | Exception = self._predict(batch)
            except Exception as error:
                probabilities = error
            _deliver(batch, probabilities)

    def _predict(self, batch: Sequence[_Waiting]) -> Sequence[Probabilities]:
        """The probabilities of each caller's images."""
        predicted = self.predict(np.concatenate([waiting.images for waiting in batch]))
        return np.split(predicted, np.cumsum([len(waiting.images) for waiting in batch])[:-1])

    def _next_batch(self) -> list[_Waiting]:
        """Waits for images; empty once the batcher is closed and nothing waits."""
        with self._changed:
            while not self._waiting and not self._is_closed:
                self._changed.wait()
            self._gather()
            self._num_callers = len(self._waiting)
            batch, num_images = list[_Waiting](), 0
            while self._waiting and (not batch or num_images + len(self._waiting[0].images) <= self.max_batch):
                batch.append(self._waiting.popleft())
                num_images += len(batch[-1].images)
            return batch

    def _gather(self) -> None:
        """Wait a little, until as many callers are there as before: they ask again as soon as they have an answer."""
        until = time.perf_counter() + GATHER_SECONDS
        while len(self._waiting) < self._num_callers and not self._is_closed:
            if (left := until - time.perf_counter()) <= 0:
                return
            self._changed.wait(left)


def _deliver(batch: Sequence[_Waiting], probabilities: Sequence[Probabilities] | Exception) -> None:
    """Hand each caller its part, in the caller's thread."""

    def deliver(callers: Sequence[tuple[_Waiting, Probabilities | Exception]]) -> None:
        for waiting, part in callers:
            if waiting.future.done():  # the caller has gone
                continue
            if isinstance(part, Exception):
                waiting.future.set_exception(part)
            else:
                waiting.future.set_result(part)

    parts: Sequence[Probabilities | Exception] = (
        [probabilities] * len(batch) if isinstance(probabilities, Exception) else probabilities
    )
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[_Waiting, Probabilities | Exception]]] = {}
    for waiting, part in zip(batch, parts, strict=True):
        by_loop.setdefault(waiting.loop, []).append((waiting, part))
    for loop, callers in by_loop.items():
        try:
            loop.call_soon_threadsafe(deliver, callers)
        except RuntimeError:  # the loop has ended, and its callers with it
            continue
