"""Where an image has what speaks for a class, by the run's network."""

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from timebox.data.device.augment import batch_normalize
from timebox.errors import UsageError
from timebox.evaluation.heat_map import heat_map

if TYPE_CHECKING:
    from timebox.run.run import Run


def explain(run: "Run", image: object, label: str | None) -> NDArray[np.float32]:
    """See :meth:`timebox.run.Run.explain`."""
    if label is not None and label not in run.class_names:
        raise UsageError(f"label {label!r} is no class of the run; it has {', '.join(map(repr, run.class_names))}")
    pixels = run.model_input.convert(image)
    if len(pixels) != 1:
        raise UsageError(f"one image can be explained at a time, not {len(pixels)}")
    mean, std = (values.to(run.device) for values in run.preprocessing.tensors())
    inputs = batch_normalize(torch.from_numpy(pixels).to(run.device), mean, std)
    if label is None:
        label = run.class_names[int(run.predict_proba(pixels, "none")[0].argmax())]
    heat = heat_map(run.predictor, inputs, run.class_names.index(label))
    if heat is None:
        raise UsageError("the network of this run has no feature map with places of the image, which explaining needs")
    values: NDArray[np.float32] = heat.numpy()
    return values
