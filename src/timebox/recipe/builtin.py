"""The built-in recipes: functions, each returning one complete Recipe.

The first line of a docstring is what ``timebox recipes`` prints. Figures are kept in the README's table and in
``records/``.
"""

from collections.abc import Callable

from timebox.recipe.recipe import Recipe


def haet2021() -> Recipe:
    """The competition entry timebox grew from: ResNet-9, one-cycle super-convergence, mixed precision.

    Its paper fixes the network (nine layers, early max-pool, CELU(0.3), ghost batch norm with frozen scale, scaled
    logits), the one-cycle policy with momentum running the other way, label smoothing, weight averaging and mirrored
    test-time augmentation. Where it is silent, these are cifar10-fast's values, from the last section of its "bag of
    tricks" notebook:

    - batches of 512 in ghost groups of 32; highest rate 1.0 on the mean loss; biases at 64 times the rate; weight
      decay 5e-4; label smoothing 0.2; logits scaled by 1/16; crops after 4 pixels of reflection, random mirroring,
      5-pixel cutout; weights averaged over two epochs of thirteen;
    - the whitening first convolution, which the notebook adds last;
    - the rate starts at a tenth of its peak and ends at zero. Momentum falls from 0.95 to 0.85 and comes back,
      the range of Smith (arXiv 1803.09820).

    The clock replaces the number of epochs: the schedule stretches over whatever the budget buys. Where that is less
    than 400 steps, as on a CPU, the batch is halved, and the rate with it, until it is not, or the batch is 32.
    """
    return Recipe(
        name="haet2021",
        model="resnet9",
        width=64,
        whitening=True,
        celu_alpha=0.3,
        ghost_size=32,
        logit_scale=0.0625,
        batch_size=512,
        min_steps=400,
        policy="one_cycle",
        max_lr=1.0,
        start_fraction=0.1,
        end_fraction=0.0,
        peak_at=0.4,
        down_at=0.85,
        num_cycles=1,
        max_momentum=0.95,
        min_momentum=0.85,
        weight_decay=5e-4,
        bias_lr_multiplier=64.0,
        label_smoothing=0.2,
        averaging_span=0.15,
        image_size=0,
        crop_padding=4,
        flip="random",
        cutout_size=5,
        tta="mirror",
    )


def dawnbench() -> Recipe:
    """cifar10-fast as it last stood: 94 % on CIFAR-10 in ten epochs, 26 s of a V100.

    D. Page, "How to train your ResNet", its final settings: a rate that rises over the first fifth, falls to a
    tenth at four fifths and stays there while the weights are averaged; constant momentum 0.9; no cutout.
    """
    return haet2021().replace(
        name="dawnbench",
        policy="piecewise",
        start_fraction=0.0,
        end_fraction=0.1,
        peak_at=0.2,
        down_at=0.8,
        max_momentum=0.9,
        min_momentum=0.9,
        averaging_span=0.1,
        cutout_size=0,
    )


def superconvergence() -> Recipe:
    """ResNet-18 without augmentation under one large cycle of the learning rate: the entry's first experiment.

    Smith & Topin (arXiv 1708.07120) train residual networks in a fraction of the usual steps with one cycle of very
    large rates, which regularise by themselves; so there is no augmentation, no label smoothing and little weight
    decay. The rate starts at a twentieth of its peak and ends at a hundredth of its start.
    """
    return Recipe(
        name="superconvergence",
        model="resnet18",
        width=64,
        whitening=False,
        celu_alpha=0.0,
        ghost_size=0,
        logit_scale=1.0,
        batch_size=128,
        min_steps=400,
        policy="one_cycle",
        max_lr=0.4,
        start_fraction=0.05,
        end_fraction=0.0005,
        peak_at=0.45,
        down_at=0.9,
        num_cycles=1,
        max_momentum=0.95,
        min_momentum=0.85,
        weight_decay=1e-4,
        bias_lr_multiplier=1.0,
        label_smoothing=0.0,
        averaging_span=0.0,
        image_size=0,
        crop_padding=0,
        flip="none",
        cutout_size=0,
        tta="none",
    )


RECIPES: dict[str, Callable[[], Recipe]] = {
    "haet2021": haet2021,
    "dawnbench": dawnbench,
    "superconvergence": superconvergence,
}
