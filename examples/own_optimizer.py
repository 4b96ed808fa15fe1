"""An optimizer of your own, under timebox's schedule.

    python examples/own_optimizer.py photos/ 2m

The rates that you set are the highest ones: the schedule of the recipe multiplies them by 0...1 in each step.
"""

import sys

import torch
from torch import nn

import timebox


def adam_without_decay_of_biases(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    matrices = [parameter for parameter in parameters if parameter.dim() > 1]
    others = [parameter for parameter in parameters if parameter.dim() <= 1]
    return torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0, "lr": 4e-3}], lr=2e-3
    )


def main(data: str = "digits", budget: str = "12s") -> None:
    run = timebox.train(data, budget=budget, test=0.2, optimizer=adam_without_decay_of_biases)
    print(run)


if __name__ == "__main__":
    main(*sys.argv[1:])
