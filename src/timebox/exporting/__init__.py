"""Export of trained models with their preprocessing to ONNX and to ``torch.export`` programs."""

from timebox.exporting.export import DecoderEffect, ExportResult, export
from timebox.exporting.parity import ParityCheck

__all__ = ["DecoderEffect", "ExportResult", "ParityCheck", "export"]
