"""Benchmarks: recipes compared in repeated, interleaved trials, and time to accuracy.

Each trial is a ``timebox train`` in a process of its own, so a trial budget has the meaning of any other budget. No
conclusion is drawn here that the paired test does not support.
"""

from timebox.benchmarking.benchmark import Benchmark, benchmark

__all__ = ["Benchmark", "benchmark"]
