"""The training loop and its parts: step, state, schedule and pacer, monitor, checkpointer and rollback.

The loop is in ``loop.py`` and fits a screen. Parts take plain arguments; what to train, and for how long, is decided
in ``planning`` and put together in ``jobs``.
"""
