"""A fake of CUDA graphs for the CPU: records the operations of a function, and runs them again.

As in a CUDA graph, the recording fixes what each operation reads and writes: tensors from outside the function are used
at their addresses, Python numbers are constants, and the recording itself changes nothing. Operations that read a value
from the device are errors.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

FORBIDDEN = (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)


@dataclass(eq=False)
class Operation:
    call: Callable[..., object]
    args: tuple[object, ...]
    kwargs: dict[str, object]
    result: object


@dataclass(eq=False)
class _Recording(TorchDispatchMode):
    operations: list[Operation] = field(default_factory=list)
    _inside: set[int] = field(default_factory=set)
    _outside: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        kwargs = kwargs or {}
        if func in FORBIDDEN:
            raise RuntimeError(f"operation not permitted when stream is capturing: {func}\nsecond line")
        for tensor in _tensors((args, kwargs)):
            if id(tensor) not in self._inside and id(tensor) not in self._outside:
                self._outside[id(tensor)] = tensor, tensor.detach().clone()
        result = func(*args, **kwargs)
        for tensor in _tensors(result):
            if id(tensor) not in self._outside:
                self._inside.add(id(tensor))
        # Keeps the arguments alive, so that their ids are not reused.
        self.operations.append(Operation(func, args, kwargs, result))
        return result

    @torch.no_grad()
    def undo(self) -> None:
        for tensor, before in self._outside.values():
            tensor.copy_(before)


class FakeGraphRecorder:
    """In place of :class:`timebox.runtime.cuda_graphs.CudaGraphRecorder`.

    Args:
        fail: raised by ``record``, as by CUDA for operations that it cannot record.
        spoil: number added to the output of each replay.
    """

    def __init__(self, fail: BaseException | None = None, spoil: float = 0.0) -> None:
        self.fail, self.spoil = fail, spoil
        self.num_warm_ups = self.num_recorded = self.num_replayed = 0

    @contextmanager
    def warm_up(self) -> Iterator[None]:
        self.num_warm_ups += 1
        yield

    def record(self, function: Callable[[], Tensor]) -> Callable[[], Tensor]:
        self.num_recorded += 1
        if self.fail:
            raise self.fail
        recording = _Recording()
        try:
            with recording:
                output = function()
        finally:
            recording.undo()

        @torch.no_grad()
        def replay() -> Tensor:
            self.num_replayed += 1
            _run_again(recording.operations, output)
            if self.spoil:
                output.add_(self.spoil)
            return output

        return replay


def _run_again(operations: list[Operation], output: Tensor) -> None:
    fresh: dict[int, Tensor] = {}

    def current(value: object) -> object:
        return fresh.get(id(value), value) if isinstance(value, Tensor) else value

    for operation in operations:
        args, kwargs = tree_map(current, operation.args), tree_map(current, operation.kwargs)
        result = operation.call(*args, **kwargs)
        inputs = {id(tensor) for tensor in _tensors((operation.args, operation.kwargs))}
        for before, after in zip(_tensors(operation.result), _tensors(result), strict=True):
            if id(before) not in inputs:
                fresh[id(before)] = after
    output.copy_(fresh[id(output)])


def _tensors(values: object) -> list[Tensor]:
    return [value for value in tree_flatten(values)[0] if isinstance(value, Tensor)]
