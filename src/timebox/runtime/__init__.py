"""Hardware and torch: device, precision, threads, memory, CUDA graphs, micro-batches, timing and write speed.

The modules here take plain arguments. They know nothing of plans, runs or schedules.
"""
