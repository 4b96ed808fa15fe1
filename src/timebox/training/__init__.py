"""Training: loop, step, state, schedule and pacer, monitor, checkpointer and rollback.

The loop is in ``loop.py``. The modules here take plain arguments: ``planning`` decides which network is trained for how
long, and ``jobs`` constructs the objects.
"""
