"""Optimization: learning rate schedules, SGD, Muon, AdamW, optimizers of torch.optim, weight averaging and the loss.

Schedules are pure functions of the progress, and optimizers take groups of parameters. Nothing here reads a clock or a
recipe.
"""

from timebox.optim.adamw import AdamWGroup, adamw_group
from timebox.optim.averaging import WeightAverage
from timebox.optim.muon import MuonGroup, muon_group, orthogonalize
from timebox.optim.optimizer import Optimizer, ParameterGroup
from timebox.optim.sgd import SGDGroup, sgd_group

__all__ = [
    "AdamWGroup",
    "MuonGroup",
    "Optimizer",
    "ParameterGroup",
    "SGDGroup",
    "WeightAverage",
    "adamw_group",
    "muon_group",
    "orthogonalize",
    "sgd_group",
]
