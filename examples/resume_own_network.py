"""A training of your own network that is stopped, and goes on in the time that it had left.

    python examples/resume_own_network.py photos/ 2m

A run keeps the name of your code and its weights, but runs no code by itself: you give the network again, or say
``trust_code=True`` where it lies in a module.
"""

import sys

from torch import nn

import timebox


def perceptron(num_classes: int, image_shape: tuple[int, int, int]) -> nn.Module:
    channels, height, width = image_shape
    return nn.Sequential(
        nn.Flatten(), nn.Linear(channels * height * width, 128), nn.GELU(), nn.Linear(128, num_classes)
    )


class StopHalfway(timebox.Reporter):
    """Presses Ctrl-C for us, once half of the schedule is done."""

    def step(self, status: object) -> None:
        if getattr(status, "progress", 0) > 0.5:
            raise KeyboardInterrupt


def main(data: str = "digits", budget: str = "12s") -> None:
    stopped = timebox.train(data, budget=budget, test=0.2, network=perceptron, reporter=StopHalfway())
    print(stopped)
    finished = timebox.train(resume=stopped.path, network=perceptron)
    print(finished)


if __name__ == "__main__":
    main(*sys.argv[1:])
