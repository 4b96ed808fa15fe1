"""Optimization: learning rate schedules, SGD, Muon, weight averaging and the loss.

Schedules are pure functions of the progress, and optimizers take groups of parameters. Nothing here reads a clock or a
recipe.
"""

from timebox.optim.averaging import WeightAverage
from timebox.optim.muon import MuonGroup, muon_group, orthogonalize
from timebox.optim.optimizer import Optimizer, ParameterGroup
from timebox.optim.sgd import SGDGroup, sgd_group

__all__ = [
    "MuonGroup",
    "Optimizer",
    "ParameterGroup",
    "SGDGroup",
    "WeightAverage",
    "muon_group",
    "orthogonalize",
    "sgd_group",
]
