"""What moves the weights: schedules, optimizers, weight averaging."""

from timebox.optim.averaging import WeightAverage
from timebox.optim.muon import MuonGroup, muon_group, orthogonalize
from timebox.optim.optimizer import Optimizer, ParameterGroup, Rates
from timebox.optim.schedules import lr_at, momentum_at
from timebox.optim.sgd import SGDGroup, sgd_group

__all__ = [
    "MuonGroup",
    "Optimizer",
    "ParameterGroup",
    "Rates",
    "SGDGroup",
    "WeightAverage",
    "lr_at",
    "momentum_at",
    "muon_group",
    "orthogonalize",
    "sgd_group",
]
