"""Callbacks: objects of the user's that hear of a training while it goes on, and those that write to trackers.

Events are made of what a training logs and reports, wait in a queue, and are delivered by one thread in the background,
so that a slow callback makes no run late. ``docs/guides/callbacks.md`` shows how to write one. A callback hears of a
training and cannot change it: there are no hooks into the training loop here, and nothing that a callback returns is
used.
"""
