"""Images of several callers are predicted together, and each caller gets its own back."""

import asyncio
import threading

import numpy as np
import pytest
from numpy.typing import NDArray

from timebox.serving.predictions.batching import Batcher

Images = NDArray[np.uint8]


def images(*values: int) -> Images:
    return np.array(values, np.uint8).reshape(-1, 1, 1, 1)


class Recorder:
    """Predicts an image's value, keeps the sizes of the batches, and holds the first one up until it is released."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.release = threading.Event()

    def __call__(self, batch: Images) -> NDArray[np.float32]:
        self.sizes.append(len(batch))
        self.release.wait(10)
        return batch.reshape(len(batch), 1).astype(np.float32)


def test_images_that_come_during_a_batch_make_the_next_one() -> None:
    recorder = Recorder()
    batcher = Batcher(recorder, max_batch=8)

    async def ask() -> list[NDArray[np.float32]]:
        tasks = [asyncio.create_task(batcher(images(0)))]
        while not recorder.sizes:
            await asyncio.sleep(0.001)
        tasks += [asyncio.create_task(batcher(images(*range(n, n + 3)))) for n in range(10, 14)]
        await asyncio.sleep(0.01)
        recorder.release.set()
        return await asyncio.gather(*tasks)

    answers = asyncio.run(ask())
    batcher.close()
    assert recorder.sizes == [1, 6, 6]
    assert [answer.ravel().tolist() for answer in answers] == [[0], *([n, n + 1, n + 2] for n in range(10, 14))]


def test_more_images_of_one_caller_than_a_batch_stay_together() -> None:
    recorder = Recorder()
    recorder.release.set()
    batcher = Batcher(recorder, max_batch=2)
    assert len(asyncio.run(batcher(images(*range(7))))) == 7
    batcher.close()
    assert recorder.sizes == [7]


def test_an_error_reaches_every_caller_of_its_batch_and_no_other() -> None:
    def predict(batch: Images) -> NDArray[np.float32]:
        if batch[0, 0, 0, 0] == 1:
            raise ValueError("one")
        return batch.reshape(len(batch), 1).astype(np.float32)

    batcher = Batcher(predict)

    async def ask() -> float:
        with pytest.raises(ValueError, match="one"):
            await batcher(images(1))
        return float((await batcher(images(2)))[0, 0])

    assert asyncio.run(ask()) == 2
    batcher.close()


def test_a_caller_that_has_gone_is_no_trouble() -> None:
    recorder = Recorder()
    batcher = Batcher(recorder)

    async def ask() -> float:
        leaving = asyncio.create_task(batcher(images(1)))
        await asyncio.sleep(0.01)
        leaving.cancel()
        staying = asyncio.create_task(batcher(images(2)))
        await asyncio.sleep(0.01)
        recorder.release.set()
        return float((await staying)[0, 0])

    assert asyncio.run(ask()) == 2
    batcher.close()


def test_a_closed_one_finishes_what_waits_and_takes_no_more() -> None:
    recorder = Recorder()
    recorder.release.set()
    batcher = Batcher(recorder)
    assert len(asyncio.run(batcher(images(1)))) == 1
    batcher.close()
    with pytest.raises(RuntimeError, match="closed"):
        asyncio.run(batcher(images(1)))
