"""Recording work as a CUDA graph, and replaying it."""

import gc
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

import torch
from torch import Tensor

Replay = Callable[[], Tensor]


class GraphRecorder(Protocol):
    """Records work on tensors at fixed addresses."""

    def aside(self) -> AbstractContextManager[None]:
        """Work inside is computed at once, where work is recorded otherwise: it warms up what a recording needs."""

    def record(self, work: Callable[[], Tensor]) -> Replay:
        """Record the work without doing it. Each call of what is returned does it, and returns the same tensor.

        Raises RuntimeError where the work cannot be recorded.
        """


class CudaGraphRecorder:
    """CUDA graphs, recorded on one stream, with one pool of memory: only one of them runs at a time."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)
        self._pool = torch.cuda.graph_pool_handle()

    @contextmanager
    def aside(self) -> Iterator[None]:
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        try:
            with torch.cuda.stream(self._stream):
                yield
        finally:
            current.wait_stream(self._stream)

    def record(self, work: Callable[[], Tensor]) -> Replay:
        current = torch.cuda.current_stream(self._device)
        # A graph or an event that is collected while another is recorded would spoil it.
        gc.collect()
        graph = torch.cuda.CUDAGraph()
        try:
            # A checkpoint may be copied to the host by another thread meanwhile: only this thread must not.
            with torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local"):
                output = work()
        finally:
            # Where recording fails, torch stays on the stream that records.
            torch.cuda.set_stream(current)

        def replay() -> Tensor:
            graph.replay()
            return output

        return replay
