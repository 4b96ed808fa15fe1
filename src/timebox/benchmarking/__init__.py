"""Recipes compared in repeated, interleaved trials: the measuring stick of every claim."""

from timebox.benchmarking.benchmark import Benchmark, benchmark

__all__ = ["Benchmark", "benchmark"]
