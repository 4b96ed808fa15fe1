"""Export of trained models with their preprocessing to ONNX and to ``torch.export`` programs.

A model is compared with the run in float64 before its file is written. Serving a model is not done here.
"""

from timebox.exporting.export import DecoderEffect, Exported, export
from timebox.exporting.parity import ParityCheck

__all__ = ["DecoderEffect", "Exported", "ParityCheck", "export"]
