"""Models to ship: preprocessing inside, in formats that need no timebox."""

from timebox.exporting.export import Check, DecoderEffect, Exported, export

__all__ = ["Check", "DecoderEffect", "Exported", "export"]
