"""Muon: SGD with momentum whose updates are orthogonalised by Newton-Schulz iterations."""

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from timebox.optim.optimizer import Number, ParameterGroup

# Newton-Schulz iteration of fifth order, with the largest slope at zero that converges. Three iterations bring singular
# values to 0.5...1.5, which trains as well as exactly 1 (K. Jordan et al., "Muon", 2024).
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
NUM_ROUNDS = 3


def orthogonalize(matrices: Tensor, num_rounds: int = NUM_ROUNDS) -> Tensor:
    """Approximate the nearest semi-orthogonal matrices: U V^T of each singular value decomposition U S V^T.

    Matrices (..., rows, columns) are computed in their dtype; bf16 suffices. Singular values of the result are between
    about 0.5 and 1.5, except for those close to zero.
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


class ShardGroup(Protocol):
    """The ranks of a process group, with equal gradients, that shard the orthogonalisation among them."""

    rank: int
    size: int

    def all_reduce_sum_(self, tensor: Tensor) -> None:
        """Replace a tensor by its sum over all processes, in place."""


@dataclass(eq=False)
class MuonGroup(ParameterGroup):
    """Convolution filters under Muon.

    A weight (out, in, height, width) is a matrix of ``out`` rows. Before each step it is scaled to the norm sqrt(out),
    so that the learning rate is the relative change per step, and there is no weight decay (airbench94_muon,
    KellerJordan/cifar10-airbench). Weights of equal shape are orthogonalised in one batch.

    Attributes:
        filter_momentum: Nesterov momentum of this group, above 0 and below 1; the optimizer's is for the other groups.
        dtype: dtype of the Newton-Schulz iterations.
        shard_group: ranks that shard the orthogonalisation; None if each computes all of it.
    """

    filter_momentum: float = 0.6
    dtype: torch.dtype = torch.float32
    shard_group: ShardGroup | None = None
    _same_shape: list[list[int]] = field(init=False)

    def __post_init__(self) -> None:
        same_shape = defaultdict(list)
        for position, parameter in enumerate(self.parameters):
            same_shape[parameter.shape].append(position)
        self._same_shape = list(same_shape.values())

    def step(self, lr: Number, momentum: Number, grad_scale: Tensor | None, found_inf: Tensor | None) -> None:
        gradients = [self._gradient(i, grad_scale, found_inf) for i in range(len(self.parameters))]
        torch._foreach_mul_(self.buffers, self.filter_momentum)
        torch._foreach_add_(self.buffers, gradients)
        torch._foreach_add_(gradients, self.buffers, alpha=self.filter_momentum)
        norms = torch._foreach_norm(self.parameters)
        to_norm = [len(p) ** 0.5 / norm for p, norm in zip(self.parameters, norms, strict=True)]
        if found_inf is not None:
            to_norm = [torch.where(found_inf > 0, 1.0, factor) for factor in to_norm]
            lr = torch.where(found_inf > 0, 0.0, lr)
        torch._foreach_mul_(self.parameters, to_norm)
        updates = self.orthogonalize_filters(gradients)
        torch._foreach_mul_(updates, lr)
        torch._foreach_sub_(
            self.parameters, [_to_filters(u, p.shape) for u, p in zip(updates, self.parameters, strict=True)]
        )

    @property
    def flops_per_step(self) -> float:
        """Floating-point operations of the Newton-Schulz iterations: three matrix products each."""
        shorter = [min(len(p), p.numel() // len(p)) for p in self.parameters]
        return sum(
            NUM_ROUNDS * (4 * side * p.numel() + 2 * side**3) for side, p in zip(shorter, self.parameters, strict=True)
        )

    def orthogonalize_filters(self, filters: list[Tensor]) -> list[Tensor]:
        """Orthogonalise one tensor per parameter, of its shape. Returns float32 matrices in the same order."""
        if self.shard_group is None:
            own = self._orthogonalize_at(range(len(filters)), filters)
            return [own[i] for i in range(len(filters))]
        own = self._orthogonalize_at(self._shares(self.shard_group.size)[self.shard_group.rank], filters)
        zero = filters[0].new_zeros(())
        flat = torch.cat([own[i].flatten() if i in own else zero.expand(f.numel()) for i, f in enumerate(filters)])
        self.shard_group.all_reduce_sum_(flat)
        parts = flat.split([f.numel() for f in filters])
        return [part.view(len(f), -1) for part, f in zip(parts, filters, strict=True)]

    def _orthogonalize_at(self, positions: Collection[int], filters: list[Tensor]) -> dict[int, Tensor]:
        """Orthogonalise the filters at some positions, those of equal shape in one batch."""
        results: dict[int, Tensor] = {}
        for same_shape in self._same_shape:
            if batch := [i for i in same_shape if i in positions]:
                matrices = torch.stack([_to_matrix(filters[i]) for i in batch]).to(self.dtype)
                results.update(zip(batch, orthogonalize(matrices).float().unbind(), strict=True))
        return results

    def _shares(self, num_shares: int) -> list[list[int]]:
        """Positions for each rank: greedy, the largest parameter to the rank with the least work so far."""
        shares: list[list[int]] = [[] for _ in range(num_shares)]
        loads = [0.0] * num_shares
        work = [min(len(p), p.numel() // len(p)) * p.numel() for p in self.parameters]
        for position in sorted(range(len(work)), key=lambda i: (-work[i], i)):
            least = loads.index(min(loads))
            shares[least].append(position)
            loads[least] += work[position]
        return shares

    def _gradient(self, position: int, grad_scale: Tensor | None, found_inf: Tensor | None) -> Tensor:
        """The unscaled gradient; after an overflow, one that leaves the momentum buffer unchanged."""
        gradient, buffer = self.parameters[position].grad, self.buffers[position]
        if gradient is None:  # the filters took no part in the forward pass
            return torch.zeros_like(buffer)
        if grad_scale is not None:
            gradient = gradient / grad_scale
        if found_inf is not None:
            gradient = torch.where(found_inf > 0, (1 - self.filter_momentum) * buffer, gradient)
        return gradient


def muon_group(parameters: list[Tensor], lr_multiplier: float, momentum: float, dtype: torch.dtype) -> MuonGroup:
    """A group with zero momentum; see :class:`MuonGroup`."""
    buffers = [torch.zeros_like(parameter) for parameter in parameters]
    return MuonGroup(parameters, buffers, lr_multiplier, filter_momentum=momentum, dtype=dtype)


def _to_matrix(filters: Tensor) -> Tensor:
    """(out, in, height, width) to (out, height x width x in), in any column order: no copy for channels_last."""
    return filters.permute(0, 2, 3, 1).flatten(1)


def _to_filters(matrix: Tensor, shape: torch.Size) -> Tensor:
    """The inverse of :func:`_to_matrix`."""
    num_filters, num_inputs, height, width = shape
    return matrix.view(num_filters, height, width, num_inputs).permute(0, 3, 1, 2)
