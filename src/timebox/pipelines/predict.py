"""``timebox predict``: labels for images, from a run."""

from collections.abc import Sequence
from pathlib import Path

from timebox.configs.call import refuse_unknown_arguments
from timebox.errors import UsageError
from timebox.run.run import Run


@refuse_unknown_arguments
def predict(run: str | Path | Run, images: object, *, tta: str = "recipe", device: str = "auto") -> list[str]:
    """The most probable class of each image, by name.

    Args:
        run: a run, or its directory.
        images: an array of images (N, H, W, C) or of one, a path, or a list; see :meth:`Run.predict_proba`.
        tta: ``recipe`` (as the run was scored), ``none``, ``mirror``, ``shift`` or ``mirror_shift``.
        device: ``auto``, ``cpu`` or ``cuda``, where ``run`` is a directory.
    Raises:
        UsageError: for no images. DataError, RunError: as of :meth:`Run.predict_proba`.

    >>> import timebox
    >>> timebox.predict("runs/demo", ["photos/red/1.png", "photos/blue/1.png"])
    ['red', 'blue']
    """
    if isinstance(images, Sequence) and not len(images):
        raise UsageError(f"images {images!r} must be one image or more: arrays, paths or PIL images")
    return Run.of(run, device).predict(images, tta)
