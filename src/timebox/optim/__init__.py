"""What moves the weights: schedules, parameter groups, weight averaging."""

from timebox.optim.averaging import WeightAverage
from timebox.optim.groups import set_rates, sgd
from timebox.optim.schedules import lr_at, momentum_at

__all__ = ["WeightAverage", "lr_at", "momentum_at", "set_rates", "sgd"]
