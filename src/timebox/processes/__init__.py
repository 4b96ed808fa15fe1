"""Other processes that timebox starts, and the folders that this one imports from.

Every process is started here, so that no folder of data is ever searched for code. What the processes do is not known
here: a benchmark's trials are in ``benchmarking``, a search's workers in ``tuning``.
"""
