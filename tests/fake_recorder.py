"""A stand-in for CUDA graphs on the CPU: it records operations as they are issued, and issues them again.

As in a CUDA graph, what a recorded operation reads and writes is decided when it is recorded: tensors from outside are
used where they lie, Python numbers stay as they were, and recording changes nothing. Reading a value back is refused.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

REFUSED = (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)


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
        if func in REFUSED:
            raise RuntimeError(f"operation not permitted when stream is capturing: {func}\nsecond line")
        for tensor in _tensors((args, kwargs)):
            if id(tensor) not in self._inside and id(tensor) not in self._outside:
                self._outside[id(tensor)] = tensor, tensor.detach().clone()
        result = func(*args, **kwargs)
        for tensor in _tensors(result):
            if id(tensor) not in self._outside:
                self._inside.add(id(tensor))
        # The arguments are kept, so that no id is given away again.
        self.operations.append(Operation(func, args, kwargs, result))
        return result

    @torch.no_grad()
    def undo(self) -> None:
        for tensor, before in self._outside.values():
            tensor.copy_(before)


class FakeGraphRecorder:
    """What :class:`timebox.runtime.cuda_graphs.CudaGraphRecorder` is on a GPU.

    Args:
        fail: raise, as CUDA does for what it cannot record.
        spoil: added to what a replay returns and to every floating tensor that its last operation writes to.
    """

    def __init__(self, fail: BaseException | None = None, spoil: float = 0.0) -> None:
        self.fail, self.spoil = fail, spoil
        self.num_warm_ups = self.num_recorded = self.num_replayed = 0

    @contextmanager
    def warm_up(self) -> Iterator[None]:
        self.num_warm_ups += 1
        yield

    def record(self, work: Callable[[], Tensor]) -> Callable[[], Tensor]:
        self.num_recorded += 1
        if self.fail:
            raise self.fail
        recording = _Recording()
        try:
            with recording:
                output = work()
        finally:
            recording.undo()

        @torch.no_grad()
        def replay() -> Tensor:
            self.num_replayed += 1
            _again(recording.operations, output)
            if self.spoil:
                output.add_(self.spoil)
            return output

        return replay


def _again(operations: list[Operation], output: Tensor) -> None:
    fresh: dict[int, Tensor] = {}

    def present(value: object) -> object:
        return fresh.get(id(value), value) if isinstance(value, Tensor) else value

    for operation in operations:
        args, kwargs = tree_map(present, operation.args), tree_map(present, operation.kwargs)
        result = operation.call(*args, **kwargs)
        given = {id(tensor) for tensor in _tensors((operation.args, operation.kwargs))}
        for before, after in zip(_tensors(operation.result), _tensors(result), strict=True):
            if id(before) not in given:
                fresh[id(before)] = after
    output.copy_(fresh[id(output)])


def _tensors(values: object) -> list[Tensor]:
    return [value for value in tree_flatten(values)[0] if isinstance(value, Tensor)]
