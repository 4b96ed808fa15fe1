"""The built-in recipes: one function each, which returns a complete Recipe.

``timebox recipes`` prints the first line of each docstring. Measured accuracies are in the table of the README and in
``records/``.
"""

from collections.abc import Callable

from timebox.recipes.recipe import Recipe


def haet2021() -> Recipe:
    """The competition entry timebox grew from: ResNet-9, one-cycle super-convergence, mixed precision.

    The paper specifies the network (nine layers, early max pooling, CELU(0.3), ghost batch norm with frozen scale,
    scaled logits), the one-cycle policy with inverse momentum, label smoothing, weight averaging and test-time
    augmentation with a horizontal flip. All other values are those of cifar10-fast, from the last section of its "bag
    of tricks" notebook:

    - batch size 512 in ghost groups of 32; highest learning rate 1.0 for the mean loss, 64 times that for biases;
      weight decay 5e-4; label smoothing 0.2; logits scaled by 1/16; random crop with 4 pixels of reflection padding,
      random horizontal flip, 5-pixel cutout; weights averaged over two epochs of thirteen;
    - a whitening layer as the first convolution, which the notebook adds last;
    - a learning rate that starts at a tenth of its peak and ends at zero. Momentum falls from 0.95 to 0.85 and rises
      again, the range of Smith (arXiv 1803.09820).

    The budget replaces the number of epochs: the schedule spans all steps that the budget allows. If that is fewer
    than 400, as on a CPU, batch size and learning rate are halved until it is 400, or until the batch size is 32.
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
        norm_epsilon=0.0,
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
        loss="cross_entropy",
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
        augment="none",
        mixup=0.0,
        mixup_until=1.0,
        tta="mirror",
    )


def dawnbench() -> Recipe:
    """The final version of cifar10-fast: 94 % on CIFAR-10 in ten epochs, 26 s on a V100.

    D. Page, "How to train your ResNet", final settings: the learning rate rises over the first fifth of the training,
    falls to a tenth of its peak at four fifths and stays there while the weights are averaged; constant momentum 0.9;
    no cutout.
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
    """The speed record to beat: 94 % on CIFAR-10 in 8 epochs, 2.6 s on an A100.

    K. Jordan, "94% on CIFAR-10 in 3.29 seconds on a single GPU" (arXiv 2404.00498), in its later version with Muon on
    the convolution filters (`airbench94_muon.py` of KellerJordan/cifar10-airbench). The published learning rates
    are for the sum of the losses of 2,000 images; here they are for the mean, hence 2,000 times as large:

    - learning rates 0.67 (head, max_lr), 0.053 (biases) and 0.24 (filters: Muon, momentum 0.6); all fall linearly to 0;
    - weight decay 2e-6 × 2,000 per step at the highest learning rate, for any max_lr; none on the filters;
    - label smoothing 0.2, random crop with 2 pixels of reflection padding, every image flipped in every second epoch;
    - the bias of the whitening layer is trained in the first three of eight epochs;
    - batch norm adds 1e-3 to the variances, where the published code adds 1e-12: on drawings max pooling makes channels
      constant, and their gradients overflow;
    - test-time augmentation with six views: the image and its horizontal flip, each also shifted by a pixel up and
      left, and down and right.

    The budget replaces the number of epochs. If it allows fewer than the published 200 steps, batch size and the
    learning rates of SGD are halved until it allows them, or until the batch size is 32. The learning rate of Muon
    stays: its updates have a fixed length.
    """
    batch_size, head_lr = 2000, 0.67
    return haet2021().replace(
        name="airbench94",
        model="airbench",
        whitening_bias_until=0.375,
        identity_init=True,
        norm_epsilon=1e-3,
        celu_alpha=0.0,
        ghost_size=0,
        logit_scale=1 / 256,
        batch_size=batch_size,
        min_steps=200,
        optimizer="muon",
        policy="piecewise",
        max_lr=head_lr * batch_size,
        start_fraction=1.0,
        peak_at=0.0,
        down_at=1.0,
        max_momentum=0.85,
        min_momentum=0.85,
        weight_decay=2e-6 / head_lr,
        bias_lr_multiplier=0.053 / head_lr,
        averaging_span=0.0,
        crop_padding=2,
        flip="alternating",
        cutout_size=0,
        tta="mirror_shift",
    )


def superconvergence() -> Recipe:
    """ResNet-18 without augmentation under one large cycle of the learning rate: the entry's first experiment.

    Smith & Topin (arXiv 1708.07120) train residual networks in a fraction of the usual steps with one cycle of very
    large learning rates. These regularise by themselves, so there is no augmentation, no label smoothing and little
    weight decay. The learning rate starts at a twentieth of its peak and ends at a hundredth of its start.
    """
    return haet2021().replace(
        name="superconvergence",
        model="resnet18",
        whitening=False,
        celu_alpha=0.0,
        ghost_size=0,
        logit_scale=1.0,
        batch_size=128,
        max_lr=0.4,
        start_fraction=0.05,
        end_fraction=0.0005,
        peak_at=0.45,
        down_at=0.9,
        weight_decay=1e-4,
        bias_lr_multiplier=1.0,
        label_smoothing=0.0,
        averaging_span=0.0,
        crop_padding=0,
        flip="none",
        cutout_size=0,
        tta="none",
    )


def adamw() -> Recipe:
    """AdamW under a warm-up and a linear decay, for networks of any kind: the default for a network of your own.

    Loshchilov & Hutter, "Decoupled Weight Decay Regularization" (arXiv 1711.05101). The learning rate rises over the
    first fifth of the training and falls to zero: transformers do not learn from a high rate at once. Weights of one
    dimension, such as biases and scales of normalisation, do not decay. The network is ResNet-18 where none is given.
    """
    return superconvergence().replace(
        name="adamw",
        batch_size=64,
        min_steps=100,
        optimizer="adamw",
        policy="piecewise",
        max_lr=2e-3,
        start_fraction=0.02,
        end_fraction=0.0,
        peak_at=0.2,
        down_at=1.0,
        max_momentum=0.9,
        min_momentum=0.9,
        weight_decay=0.05,
        label_smoothing=0.1,
        averaging_span=0.05,
        crop_padding=4,
        flip="random",
        tta="mirror",
    )


def auto() -> Recipe:
    """Networks, batch, image sizes and augmentation from the data, the budget and measured throughput.

    Trains the network of ``airbench94`` with Muon, on images that grow during training. The budget decides the model
    scale: a larger one is more accurate after enough epochs, and the budget allows fewer epochs of it. Larger scales
    first see larger images, up to 64 pixels, then have wider networks, and at last are ensembles. The batch size is
    chosen so that the schedule has enough steps. Planning starts from the values below.
    """
    return airbench94().replace(name="auto")


RECIPES: dict[str, Callable[[], Recipe]] = {
    "haet2021": haet2021,
    "dawnbench": dawnbench,
    "airbench94": airbench94,
    "superconvergence": superconvergence,
    "adamw": adamw,
}
