"""Exit statuses of the command line."""

from timebox.errors import OutputError

DONE = 0
OWN_FAULT = 1
REFUSED = 2
LATE_OR_PARTLY_WRITTEN = 3
STOPPED = 128  # plus the number of the signal: 130 for SIGINT, 143 for SIGTERM


class PartlyWrittenError(OutputError):
    """The model is trained, but not everything about it could be written."""
