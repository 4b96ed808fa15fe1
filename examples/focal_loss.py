"""A loss of your own: the focal loss (Lin et al., arXiv 1708.02002), which counts images that are right already less.

python examples/focal_loss.py photos/ 2m
"""

import sys

from torch import Tensor
from torch.nn import functional as F

import timebox


def focal_loss(logits: Tensor, labels: Tensor, gamma: float = 2.0) -> Tensor:
    """The loss of each image (N,). Not their mean: class weights, mixup and several processes need them one by one.

    With mixup ``labels`` are class probabilities (N, num_classes) in place of numbers (N,).
    """
    targets = labels if labels.is_floating_point() else F.one_hot(labels, logits.shape[1]).float()
    log_probabilities = logits.log_softmax(1)
    weights = (1 - log_probabilities.exp()) ** gamma
    return -(targets * weights * log_probabilities).sum(1)


def main(data: str = "digits", budget: str = "12s") -> None:
    run = timebox.train(data, budget=budget, test=0.2, loss=focal_loss)
    print(run)


if __name__ == "__main__":
    main(*sys.argv[1:])
