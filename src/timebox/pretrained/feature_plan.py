"""How many images have their pretrained features computed in the time there is, at which side; and how many epochs of
fine-tuning follow."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import torch

from timebox.clock import format_duration
from timebox.machine import available_memory, available_threads
from timebox.models.efficientnet_lite import FROZEN_BLOCKS
from timebox.pretrained.fine_tuning import BATCH_SIZE

# Pixels to which the images' shorter sides are brought: the largest that there is time for, as the backbone was trained
# on 224 px, and the smallest where no clock is read.
BACKBONE_SIDES = (224, 192, 160, 128)
SMALLEST_SIDE = BACKBONE_SIDES[-1]
# Epochs of fine-tuning as a rule. Few images need more of them, to make so many steps.
NUM_EPOCHS, MIN_STEPS, MAX_EPOCHS = 6, 96, 24
# Where all images would not fit otherwise, so many epochs at least, by the number of blocks that are left as they are.
# The fewer these are, the better the classifier, and the longer an epoch takes.
MIN_EPOCHS = {11: 4, 13: 3, 15: 3}
NOT_TUNED = 15
# Planned time as a multiple of the measured one.
MARGIN = 1.1
# Images of a held-out split, at least, and of val, at most; and the share of the rest that training images have first.
MIN_HELD_OUT, MAX_VAL_IMAGES, TRAIN_SHARE = 100, 1000, 0.6
# Assumed seconds of an image at the smallest side, features and fine-tuning, on a thread of a server CPU of 2023 and on
# a data-centre GPU. Constants, so that a machine always reads the same data at the same size.
SECONDS_PER_THREAD, SECONDS_PER_GPU = 0.044, 0.0005
# Where they would take longer than so many times what they may, images are read as small as the network takes them.
MAX_OVERRUN = 4.0
# Bytes that the images may take, and the share of the memory that is available.
MAX_IMAGE_BYTES, IMAGE_MEMORY_SHARE = 1 << 30, 0.1
# Bytes that the activations of all images may take, and the share of the memory that is available.
MAX_BYTES, MEMORY_SHARE = 2 << 30, 0.25


class NotAffordableError(Exception):
    """There is no time for pretrained features; the message says how much there is."""


@dataclass(frozen=True)
class FeatureCosts:
    """Measured seconds of an image at the smallest side; 0 where no clock is read.

    Attributes:
        features: once.
        epoch: in each epoch of fine-tuning, by the number of blocks that are left as they are.
    """

    features: float
    epoch: Mapping[int, float]


@dataclass(frozen=True)
class FeaturePlan:
    """Number of images whose features are computed, and how the classifier is fine-tuned.

    Attributes:
        num_images: by split; ``train`` is one of them.
        side: in pixels.
        num_frozen: number of first blocks that are left as they are.
        epochs: of fine-tuning; 0 for none.
    """

    num_images: Mapping[str, int]
    side: int = SMALLEST_SIDE
    num_frozen: int = NOT_TUNED
    epochs: int = 0

    def seconds(self, costs: FeatureCosts) -> float:
        """Seconds to plan for it."""
        area, num_train = (self.side / SMALLEST_SIDE) ** 2, self.num_images.get("train", 0)
        epochs_seconds = costs.epoch.get(self.num_frozen, 0.0) * self.epochs * num_train
        return MARGIN * area * (costs.features * sum(self.num_images.values()) + epochs_seconds)

    @property
    def num_bytes(self) -> int:
        """Bytes of the activations, in float32, of square images."""
        channels, stride = FROZEN_BLOCKS[self.num_frozen]
        return sum(self.num_images.values()) * int((self.side // stride) ** 2 * channels * 4)


def plan_features(
    wanted: Mapping[str, int], least_train: int, costs: FeatureCosts, seconds: float | None, is_tuned: bool
) -> FeaturePlan:
    """The plan with the best classifier that there is time for.

    Args:
        wanted: number of images by split: ``train``, and those that are scored.
        least_train: number of training images below which nothing is planned.
        seconds: that all of it may take; None for no limit, which means the smallest side.
        is_tuned: whether fine-tuning follows.
    Raises:
        NotAffordableError: where there is no time for the least number of images.
    """
    most = max_images(len(wanted))
    wanted = {name: min(number, most, MAX_VAL_IMAGES if name == "val" else most) for name, number in wanted.items()}
    if seconds is None:
        return FeaturePlan(wanted, epochs=_num_epochs(wanted["train"]) if is_tuned else 0)
    *better, fastest = _plans(wanted, is_tuned)
    for plan in better:
        if plan.seconds(costs) <= seconds and plan.num_bytes <= max_bytes():
            return plan
    least = {name: min(number, MIN_HELD_OUT) for name, number in wanted.items()} | {"train": least_train}
    fewest = replace(fastest, num_images=least)
    if (needed := fewest.seconds(costs)) > seconds:
        raise NotAffordableError(
            f"the pretrained features of {sum(least.values()):,} images would take {format_duration(needed)}, and they "
            f"may take {format_duration(max(seconds, 0.0))} of this budget"
        )
    return _with_more_images(fewest, wanted, costs, seconds)


def largest_side_for_features(seconds: float | None, device: torch.device) -> Callable[[int], int]:
    """A function from the number of images to the side, in pixels, to which larger ones are shrunk for their features.

    It is 0 where there is time for the features of few of them, or memory for small images alone.

    Args:
        seconds: that features and fine-tuning may take; None where no clock is read.
    """
    each = SECONDS_PER_GPU if device.type == "cuda" else SECONDS_PER_THREAD / available_threads()
    room = _bytes_within(MAX_IMAGE_BYTES, IMAGE_MEMORY_SHARE)

    def largest_side(num_images: int) -> int:
        area = 1.0 if seconds is None else seconds / (max(num_images, 1) * each)
        if area < 1 / MAX_OVERRUN:
            return 0
        largest, *smaller = BACKBONE_SIDES
        useful = min((side for side in smaller if side**2 >= area * SMALLEST_SIDE**2), default=largest)
        return max((side for side in BACKBONE_SIDES if side <= useful and num_images * side**2 * 3 <= room), default=0)

    return largest_side


def max_bytes() -> int:
    """Bytes that the activations of all images may take here."""
    return _bytes_within(MAX_BYTES, MEMORY_SHARE)


def _bytes_within(most: int, share: float) -> int:
    """At most so many bytes, and this share of the memory that is available."""
    available = available_memory()
    return most if available is None else min(most, int(share * available))


def max_images(num_splits: int) -> int:
    """Images of each split whose activations fit into memory at the smallest side; a batch at least."""
    return max(max_bytes() // (num_splits * FeaturePlan({"train": 1}).num_bytes), BATCH_SIZE)


def _plans(wanted: Mapping[str, int], is_tuned: bool) -> Iterator[FeaturePlan]:
    """Plans for all images, from the best to the fastest."""
    if not is_tuned:
        yield from (FeaturePlan(wanted, side) for side in BACKBONE_SIDES)
        return
    most = _num_epochs(wanted["train"])
    for num_frozen, least in MIN_EPOCHS.items():
        yield from (FeaturePlan(wanted, side, num_frozen, most) for side in BACKBONE_SIDES)
        yield from (FeaturePlan(wanted, SMALLEST_SIDE, num_frozen, epochs) for epochs in range(most - 1, least - 1, -1))


def _num_epochs(num_train: int) -> int:
    return min(max(NUM_EPOCHS, MIN_STEPS // -(-num_train // BATCH_SIZE)), MAX_EPOCHS)


def _with_more_images(plan: FeaturePlan, wanted: Mapping[str, int], costs: FeatureCosts, seconds: float) -> FeaturePlan:
    """A plan with as many of the wanted images as there is time for, val first."""
    numbers, left = dict(plan.num_images), seconds - plan.seconds(costs)
    for name, share in (("val", 1.0), ("train", TRAIN_SHARE), ("test", 1.0), ("train", 1.0)):
        if name in numbers and (each := replace(plan, num_images={name: 1}).seconds(costs)):
            more = min(wanted[name] - numbers[name], int(share * left / each))
            numbers[name] += more
            left -= more * each
    return replace(plan, num_images=numbers)
