"""Several processes that train one network: the process group, its messages, heartbeats and rank failures.

A training on one process uses the same interface with nothing to send. What is computed between messages lives in
``training``; what the messages say, in ``jobs``.
"""
