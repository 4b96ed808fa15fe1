"""CUDA graphs: record a function's operations on the GPU, and replay them."""

import gc
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

import torch
from torch import Tensor

Replay = Callable[[], Tensor]


class GraphRecorder(Protocol):
    """Records operations on tensors at fixed addresses."""

    def warm_up(self) -> AbstractContextManager[None]:
        """Inside, operations run at once on the stream that records, and initialise kernels and libraries."""

    def record(self, function: Callable[[], Tensor]) -> Replay:
        """Record the operations of a function. The replay returned runs them and returns the same tensor each time."""


class CudaGraphRecorder:
    """Records CUDA graphs on one stream, with one memory pool: only one graph may run at a time."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)
        self._pool = torch.cuda.graph_pool_handle()

    @contextmanager
    def warm_up(self) -> Iterator[None]:
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        try:
            with torch.cuda.stream(self._stream):
                yield
        finally:
            current.wait_stream(self._stream)

    def record(self, function: Callable[[], Tensor]) -> Replay:
        current = torch.cuda.current_stream(self._device)
        # A graph or an event that is garbage-collected during the recording would invalidate it.
        gc.collect()
        graph = torch.cuda.CUDAGraph()
        try:
            # Another thread may copy a checkpoint to the host meanwhile, so only this thread is restricted.
            with torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local"):
                output = function()
        finally:
            # After a failed recording torch leaves the recording stream current.
            torch.cuda.set_stream(current)

        def replay() -> Tensor:
            graph.replay()
            return output

        return replay
