"""The classifier on pretrained features that lies in a run directory."""

from pathlib import Path

import torch

from timebox.errors import RunError
from timebox.models.pretrained import PretrainedClassifier
from timebox.run.files import PRETRAINED
from timebox.run.tensors import check_finite, read_tensors


def read_pretrained(run: Path, num_classes: int, side: int) -> PretrainedClassifier:
    """The classifier in a run's pretrained.safetensors, on the CPU, in evaluation mode.

    Args:
        side: as model.json records it.
    Raises:
        RunError: where the file is missing or damaged.
    """
    with torch.device("meta"):
        classifier = PretrainedClassifier(num_classes, side)
    try:
        tensors = read_tensors(run / PRETRAINED, classifier.state_dict())
    except FileNotFoundError as error:
        raise RunError(f"run {str(run)!r} is damaged: it has no {PRETRAINED}") from error
    check_finite(tensors, f"the pretrained classifier of run {str(run)!r}")
    classifier.load_state_dict(tensors, assign=True)
    return classifier.eval()
