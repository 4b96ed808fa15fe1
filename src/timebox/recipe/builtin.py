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
        ensemble_size=1,
        width=64,
        input_scale=1.0,
        blur_pool=False,
        whitening=True,
        whitening_bias_until=0.0,
        identity_init=False,
        celu_alpha=0.3,
        ghost_size=32,
        logit_scale=0.0625,
        batch_size=512,
        min_steps=400,
        optimizer="sgd",
        filter_lr=0.24,
        filter_momentum=0.6,
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
        class_balance=0.0,
        averaging_span=0.15,
        image_size=0,
        image_fit="crop",
        start_size=1.0,
        full_size_at=0.0,
        crop_padding=4,
        flip="random",
        cutout_size=5,
        mixup=0.0,
        mixup_until=1.0,
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


def airbench94() -> Recipe:
    """The speed record to beat: 94 % on CIFAR-10 in 8 epochs, 2.6 s of an A100.

    K. Jordan, "94% on CIFAR-10 in 3.29 seconds on a single GPU" (arXiv 2404.00498), in its later form with Muon on the
    convolutions' filters (`airbench94_muon.py` of KellerJordan/cifar10-airbench). Its rates are written for the sum of
    the losses of 2,000 images; here they are for the mean, hence 2,000 times as large:

    - head 0.67 (max_lr), biases 0.053, filters 0.24 under Muon with momentum 0.6; all fall linearly to nothing;
    - weight decay 2e-6 × 2,000 per step at the highest rate, whatever that is; none on the filters;
    - label smoothing 0.2, crops after 2 pixels of reflection, every image mirrored every other epoch;
    - the bias behind the whitening learns in the first three of eight epochs;
    - six views when scoring: the image and its mirror, each also shifted by a pixel both ways along the diagonal.

    The clock replaces the number of epochs. Where the budget buys less than the published 200 steps, the batch is
    halved, and SGD's rates with it, until it does, or the batch is 32. Muon's rate stays: its step has a fixed length.
    """
    batch_size, head_lr = 2000, 0.67
    return haet2021().replace(
        name="airbench94",
        model="airbench",
        whitening_bias_until=0.375,
        identity_init=True,
        celu_alpha=0.0,
        ghost_size=0,
        logit_scale=1 / 256,
        batch_size=batch_size,
        min_steps=200,
        optimizer="muon",
        filter_lr=0.24,
        filter_momentum=0.6,
        policy="piecewise",
        max_lr=head_lr * batch_size,
        start_fraction=1.0,
        end_fraction=0.0,
        peak_at=0.0,
        down_at=1.0,
        max_momentum=0.85,
        min_momentum=0.85,
        weight_decay=2e-6 / head_lr,
        bias_lr_multiplier=0.053 / head_lr,
        label_smoothing=0.2,
        class_balance=0.0,
        averaging_span=0.0,
        crop_padding=2,
        flip="alternating",
        cutout_size=0,
        tta="mirror_shift",
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
        ensemble_size=1,
        width=64,
        input_scale=1.0,
        blur_pool=False,
        whitening=False,
        whitening_bias_until=0.0,
        identity_init=False,
        celu_alpha=0.0,
        ghost_size=0,
        logit_scale=1.0,
        batch_size=128,
        min_steps=400,
        optimizer="sgd",
        filter_lr=0.24,
        filter_momentum=0.6,
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
        class_balance=0.0,
        averaging_span=0.0,
        image_size=0,
        image_fit="crop",
        start_size=1.0,
        full_size_at=0.0,
        crop_padding=0,
        flip="none",
        cutout_size=0,
        mixup=0.0,
        mixup_until=1.0,
        tta="none",
    )


def auto() -> Recipe:
    """Networks, batch, image sizes and augmentation from the data, the budget and measured throughput.

    Trains the network of ``airbench94`` with Muon, on images that grow. The budget decides how large a model it takes:
    the more work a model size is, the better it does with enough epochs, and the fewer of them a budget buys. The
    network becomes wider first, then it works on larger images, then several networks are trained. The batch size
    leaves the schedule enough steps. These are the values that planning starts from.
    """
    return airbench94().replace(name="auto")


RECIPES: dict[str, Callable[[], Recipe]] = {
    "haet2021": haet2021,
    "dawnbench": dawnbench,
    "airbench94": airbench94,
    "superconvergence": superconvergence,
}
