"""Models to ship: preprocessing inside, in formats that need no timebox."""

from timebox.exporting.check import Check
from timebox.exporting.export import DecoderEffect, Exported, export

__all__ = ["Check", "DecoderEffect", "Exported", "export"]
