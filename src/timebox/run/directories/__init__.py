"""Run directories as a whole: which files are ours, the lock of a run, where a new run may lie, and replacing one.

Nothing that timebox has not written is removed or overwritten here, and no link inside a run is followed. The content
of the files is the business of the modules above.
"""
