"""Forecast of the accuracy that a training of ``auto`` will reach: its middle, and an interval of 80 %.

It comes from how hard the images are for a classifier on patches, from the plan, and from a linear model fitted to the
trainings in records/ by benchmarks/fit_forecast.py. Nothing is planned here: :mod:`timebox.planning.auto` does not see
the forecast.
"""

from timebox.planning.forecast.forecast import NO_TIME, DatasetForecaster, Forecast, UnknownAccuracyError

__all__ = ["NO_TIME", "DatasetForecaster", "Forecast", "UnknownAccuracyError"]
