"""Muon: momentum whose update is made orthogonal before it is applied."""

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from timebox.optim.optimizer import Number, ParameterGroup

# Newton-Schulz of the fifth order, its slope at zero as large as it can be without diverging: three rounds bring
# singular values to 0.5...1.5, which trains as well as exactly 1 (K. Jordan et al., "Muon", 2024).
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
NUM_ROUNDS = 3


def orthogonalize(matrices: Tensor, num_rounds: int = NUM_ROUNDS) -> Tensor:
    """The nearest orthogonal matrices, roughly: U V^T of each singular value decomposition U S V^T.

    Args:
        matrices: (..., rows, columns), floating point; computed in its own precision, bf16 suffices.
        num_rounds: Newton-Schulz iterations, 1 or more.
    Returns:
        The same shape: singular values between about 0.5 and 1.5, but for those that were next to nothing.
    """
    a, b, c = _COEFFICIENTS
    tall = matrices.shape[-2] > matrices.shape[-1]
    wide = matrices.mT if tall else matrices
    x = wide.reshape(-1, *wide.shape[-2:])
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(num_rounds):
        gram = x @ x.mT
        gram = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, gram, x, beta=a)
    return (x.mT if tall else x).reshape(matrices.shape)


class Sharing(Protocol):
    """Processes that all have the same gradients, and share the work on them.

    Attributes:
        rank, size: this process's number, 0...size - 1, and how many there are.
    """

    rank: int
    size: int

    def all_reduce_sum_(self, tensor: Tensor) -> None:
        """Replace a tensor by its sum over the processes."""


@dataclass(eq=False)
class MuonGroup(ParameterGroup):
    """Convolution filters under Muon.

    A filter bank (out, in, height, width) is one matrix of ``out`` rows. Before each step it is brought to the norm
    sqrt(out), so that the rate is the share of it that changes; weight decay has no place then (airbench94_muon,
    KellerJordan/cifar10-airbench). Banks of one shape are orthogonalised together.

    Attributes:
        own_momentum: Nesterov momentum, above 0 and below 1; that of the optimizer is for the other groups.
        dtype: in which the iteration is computed.
        sharing: who shares the iteration; None where each process does it for itself.
    """

    own_momentum: float = 0.6
    dtype: torch.dtype = torch.float32
    sharing: Sharing | None = None
    _alike: list[list[int]] = field(init=False)

    def __post_init__(self) -> None:
        alike = defaultdict(list)
        for position, parameter in enumerate(self.parameters):
            alike[parameter.shape].append(position)
        self._alike = list(alike.values())

    def step(self, lr: Number, momentum: Number, grad_scale: Tensor | None, found_inf: Tensor | None) -> None:
        gradients = [self._gradient(i, grad_scale, found_inf) for i in range(len(self.parameters))]
        torch._foreach_mul_(self.buffers, self.own_momentum)
        torch._foreach_add_(self.buffers, gradients)
        torch._foreach_add_(gradients, self.buffers, alpha=self.own_momentum)
        norms = torch._foreach_norm(self.parameters)
        to_length = [len(p) ** 0.5 / norm for p, norm in zip(self.parameters, norms, strict=True)]
        rate = lr
        if found_inf is not None:
            to_length = [torch.where(found_inf > 0, 1.0, factor) for factor in to_length]
            rate = torch.where(found_inf > 0, 0.0, lr)
        torch._foreach_mul_(self.parameters, to_length)
        updates = self.orthogonalized(gradients)
        torch._foreach_mul_(updates, rate)
        torch._foreach_sub_(self.parameters, [_bank(u, p.shape) for u, p in zip(updates, self.parameters, strict=True)])

    @property
    def flops_per_step(self) -> float:
        """Of the iteration: three products of matrices in each round."""
        shorter = [min(len(p), p.numel() // len(p)) for p in self.parameters]
        return sum(
            NUM_ROUNDS * (4 * side * p.numel() + 2 * side**3) for side, p in zip(shorter, self.parameters, strict=True)
        )

    def orthogonalized(self, banks: list[Tensor]) -> list[Tensor]:
        """Each bank as its orthogonal matrix, float32, in the order of the parameters."""
        if self.sharing is None:
            own = self._orthogonalized(banks, range(len(banks)))
            return [own[i] for i in range(len(banks))]
        shares = self._shares(self.sharing.size)
        own = self._orthogonalized(banks, shares[self.sharing.rank])
        empty = banks[0].new_zeros(())
        flat = torch.cat([own[i].flatten() if i in own else empty.expand(bank.numel()) for i, bank in enumerate(banks)])
        self.sharing.all_reduce_sum_(flat)
        parts = flat.split([bank.numel() for bank in banks])
        return [part.view(len(bank), -1) for part, bank in zip(parts, banks, strict=True)]

    def _orthogonalized(self, banks: list[Tensor], chosen: Collection[int]) -> dict[int, Tensor]:
        """Those of the chosen positions; banks of one shape together."""
        found: dict[int, Tensor] = {}
        for alike in self._alike:
            if positions := [i for i in alike if i in chosen]:
                matrices = torch.stack([_rows(banks[i]) for i in positions]).to(self.dtype)
                found.update(zip(positions, orthogonalize(matrices).float().unbind(), strict=True))
        return found

    def _shares(self, num_shares: int) -> list[list[int]]:
        """Positions for each process, the largest work to whoever has least."""
        shares: list[list[int]] = [[] for _ in range(num_shares)]
        loads = [0.0] * num_shares
        work = [min(len(p), p.numel() // len(p)) * p.numel() for p in self.parameters]
        for position in sorted(range(len(work)), key=lambda i: (-work[i], i)):
            least = loads.index(min(loads))
            shares[least].append(position)
            loads[least] += work[position]
        return shares

    def _gradient(self, position: int, grad_scale: Tensor | None, found_inf: Tensor | None) -> Tensor:
        """The gradient, unscaled; where it overflowed, one that leaves the momentum as it is."""
        gradient, buffer = self.parameters[position].grad, self.buffers[position]
        assert gradient is not None
        if grad_scale is not None:
            gradient = gradient / grad_scale
        if found_inf is not None:
            gradient = torch.where(found_inf > 0, (1 - self.own_momentum) * buffer, gradient)
        return gradient


def muon_group(parameters: list[Tensor], lr_multiplier: float, momentum: float, dtype: torch.dtype) -> MuonGroup:
    """A group at rest; see :class:`MuonGroup`."""
    buffers = [torch.zeros_like(parameter) for parameter in parameters]
    return MuonGroup(parameters, buffers, lr_multiplier, own_momentum=momentum, dtype=dtype)


def _rows(bank: Tensor) -> Tensor:
    """(out, in, height, width) as (out, height x width x in), which for channels_last copies nothing. The order of the
    columns makes no difference to what is orthogonal."""
    return bank.permute(0, 2, 3, 1).flatten(1)


def _bank(rows: Tensor, shape: torch.Size) -> Tensor:
    """The way back."""
    num_filters, num_inputs, height, width = shape
    return rows.view(num_filters, height, width, num_inputs).permute(0, 3, 1, 2)
