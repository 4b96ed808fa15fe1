"""The server of `timebox watch`: the state of a training, a search or a benchmark as server-sent events.

``watcher`` reads it from the files in the directory. Nothing is written, and torch is not imported: watching must
cost a training next to nothing.
"""
