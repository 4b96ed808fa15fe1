"""How this machine computes: device, precision, threads, memory, CUDA graphs, micro-batches, and how fast it is.

Everything here is about hardware and torch, and takes plain arguments. Nothing here knows of plans, runs or a
training's schedule.
"""
