"""Training: loop, step, state, schedule and pacer, monitor, checkpointer and rollback.

The loop is in ``loop.py`` and fits a screen. The modules here take plain arguments and decide nothing: ``planning``
chooses the network and the time, and ``jobs`` constructs the objects.
"""
