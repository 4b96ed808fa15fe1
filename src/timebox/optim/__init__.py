"""What moves the weights: schedules, parameter groups, weight averaging."""

from timebox.optim.averaging import WeightAverage
from timebox.optim.groups import SGD, sgd
from timebox.optim.schedules import lr_at, momentum_at

__all__ = ["SGD", "WeightAverage", "lr_at", "momentum_at", "sgd"]
