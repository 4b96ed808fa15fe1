"""``timebox predict``: labels for images, from a run."""

from pathlib import Path

from timebox.configs.call import refuse_unknown_arguments
from timebox.run.run import Run


@refuse_unknown_arguments
def predict(run: str | Path | Run, images: object, *, tta: str = "recipe", device: str = "auto") -> list[str]:
    """The most probable class of each image, by name.

    Args:
        run: a run, or its directory.
        images: uint8 (N, H, W, C), or a sequence of paths and PIL images; see :meth:`Run.predict_proba`.
        tta: ``recipe`` (as the run was scored), ``none``, ``mirror``, ``shift`` or ``mirror_shift``.
        device: ``auto``, ``cpu`` or ``cuda``, where ``run`` is a directory.

    >>> import timebox
    >>> timebox.predict("runs/demo", ["photos/red/1.png", "photos/blue/1.png"])
    ['red', 'blue']
    """
    return Run.of(run, device).predict(images, tta)
