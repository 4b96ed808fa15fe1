"""The options of every verb, each declared once as a field of a frozen config with its type, bounds and help text.

From a config come the checks of the Python function and of the command line, the command line's options and help, the
record in a run's JSON files, and the arguments of child processes. Nothing heavy is imported here.
"""
