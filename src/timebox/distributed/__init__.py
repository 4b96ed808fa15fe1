"""Data-parallel processes: the process group, its messages, heartbeats and rank failures.

A training on one process uses the same interface and sends nothing. The computation between messages is in
``training``, and the contents of messages are defined in ``jobs``.
"""
