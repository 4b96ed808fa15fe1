"""A callback that draws the loss while a training runs.

    python examples/drawing_callback.py photos/ 2m

Callbacks are called in the background and never make a training late, however long they take.
"""

import sys
from pathlib import Path

from PIL import Image, ImageDraw

import timebox

WIDTH, HEIGHT = 600, 200


class DrawLoss:
    """Writes loss.png anew every ten steps."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._points: list[tuple[float, float]] = []

    def on_step(self, info: timebox.StepInfo) -> None:
        if info.loss is not None:
            self._points.append((info.progress, info.loss))
        if info.step % 10 == 0:
            self._draw()

    def on_end(self, info: timebox.EndInfo) -> None:
        self._draw()

    def _draw(self) -> None:
        if len(self._points) < 2:
            return
        highest = max(loss for _, loss in self._points)
        image = Image.new("RGB", (WIDTH, HEIGHT), "white")
        line = [(progress * WIDTH, HEIGHT * (1 - loss / highest)) for progress, loss in self._points]
        ImageDraw.Draw(image).line(line, fill="steelblue", width=2)
        image.save(self._file)


def main(data: str = "digits", budget: str = "12s") -> None:
    run = timebox.train(data, budget=budget, test=0.2, callbacks=[DrawLoss(Path("loss.png"))])
    print(run)


if __name__ == "__main__":
    main(*sys.argv[1:])
