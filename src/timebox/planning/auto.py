"""The recipe chosen for a data set and a budget: one dial, the rest follows."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile

from timebox.planning.dataset_profile import DatasetProfile
from timebox.recipe.builtin import auto
from timebox.recipe.recipe import Multiplier, Recipe, Setting


@dataclass(frozen=True)
class ModelScale:
    """So many networks of one width, working on images of one size.

    Attributes:
        epochs: how often they must see each of 5,000 images to be worth more than the rung below.
        exponent: 0...1, how this falls with the number of images. Width needs images seen, whether new or again, so
            with more of them the epochs fall nearly as fast. Beyond that it takes images seen again.
        side: in pixels, of the images inside the network: larger ones are made so small.
        enlarged: whether those that are smaller than :data:`ENLARGED_SIDE` are made larger.
    """

    width: int
    epochs: float
    exponent: float
    side: int = 64
    enlarged: bool = False
    ensemble_size: int = 1


# The epochs of 5,000 images from which width pays, and how fast they fall with the number of images. Fitted by
# benchmarks/fit_auto.py on the cells in records/.
WIDTH_EPOCHS, WIDTH_EXPONENT = 7.74, 0.8
# The same for images that are enlarged, and for what comes behind them. LOG.md has the figures.
ENLARGED_EPOCHS, ENLARGED_EXPONENT = 18.0, 0.45
FURTHER_EPOCHS, FURTHER_EXPONENT = 28.0, 0.2
# Pixels: no network works on larger images.
MAX_SIDE = 128


def model_scales(width_epochs: float = WIDTH_EPOCHS, width_exponent: float = WIDTH_EXPONENT) -> tuple[ModelScale, ...]:
    """All there are, from the least work to the most.

    What there is to see in an image comes first, up to 64 pixels: a network half as wide on images twice as large is as
    much work, and on photos it is worth far more. Then the network becomes wider, and from width 32 on photos are shown
    larger still. Small images are enlarged, which brings nothing to see but is half as much work again for more than
    twice the gain of a network half as wide again. Then come further networks.
    """

    def wide(width: int, times: float, side: int = 64) -> ModelScale:
        return ModelScale(width, times * width_epochs, width_exponent, side)

    def further(width: int, ensemble_size: int) -> ModelScale:
        return ModelScale(width, FURTHER_EPOCHS, FURTHER_EXPONENT, MAX_SIDE, enlarged=True, ensemble_size=ensemble_size)

    return (
        *(wide(8, 1, side) for side in (32, 48)),
        *(wide(width, 1) for width in (8, 12, 16, 24, 32)),
        wide(32, 3 / 2, 96),
        wide(48, 4 / 3, 96),
        wide(64, 5 / 3, 96),
        wide(64, 2, MAX_SIDE),
        ModelScale(64, ENLARGED_EPOCHS, ENLARGED_EXPONENT, MAX_SIDE, enlarged=True),
        *(further(64, size) for size in (2, 3, 4)),
        *(further(width, 4) for width in (96, 128, 192)),
        *(further(256, size) for size in (4, 6, 8)),
    )


MODEL_SCALES = model_scales()
# Images of so many pixels and more tell more each: this share of the epochs does. LOG.md has the figures.
DETAILED_SIDE, DETAILED_SHARE = 48, 0.5
# What choosing with them costs on tasks left out of the fit, in points below the best rung measured: mean and most. The
# tasks are within these bounds.
LEFT_OUT_LOSS = (0.85, 4.75)
FITTED_ON = {"images": (500, 45_000), "px": (8, 96), "classes": (2, 100)}

# Images are enlarged to so many pixels, but no further than this many times; the network gets none below the last.
ENLARGED_SIDE, MOST_ENLARGED, MIN_SIDE = 40, 1.25, 16

# The data set that the rungs' epochs are given for, and bounds for those of others.
NUM_IMAGES = 5000
MIN_EPOCHS, MAX_EPOCHS = 0.1, 80.0
# How well a network gets to know its images: their epochs times its width. What it knows better than this is better
# seen in more and smaller steps. LOG.md has the figures.
MAX_EPOCHS_TIMES_WIDTH = 450.0
# Steps that a schedule should have at least, and the batches it may take.
WANTED_STEPS = 300
MIN_BATCH_SIZE, MAX_BATCH_SIZE = 64, 1024
# What is chosen is made from this recipe. SGD's rate goes with the batch; Muon's does not.
AUTO_BASE = auto()
RATE_PER_IMAGE = AUTO_BASE.max_lr / AUTO_BASE.batch_size
# How far the logits move while the head learns, if its features stayed as they are; flat between half and three times
# as much. The factor on them is within these bounds. A head has so many features for each channel of the width.
HEAD_TRAVEL, NUM_FEATURES = 40.0, 4
MIN_LOGIT_SCALE, MAX_LOGIT_SCALE = 1 / 512, 1 / 8
# What follows from the network and the time there is for it.
DERIVED_FIELDS = ("batch_size", "max_lr", "logit_scale", "mixup", "mixup_until")
# The first images have this share of the side; from this progress on they are whole.
START_SIZE, FULL_SIZE_AT = 0.75, 0.6
# Where images are this familiar, a share of them is blended with another; with fewer epochs none. LOG.md has the
# figures. The last steps are taken on images as they are, like those that will be asked for.
MIXUP, MIN_MIXUP_EPOCHS = ((1000.0, 0.25), (2000.0, 0.5)), 16.0
MIXUP_UNTIL = 0.85
# Networks so wide blur the maxima they halve images by, where each image is seen so often. Narrow ones lose a fifth of
# their speed by it, and with few epochs that costs more than it brings. LOG.md has the figures.
BLURPOOL_WIDTH, MIN_BLURPOOL_EPOCHS = 48, 10.0
# Where the largest class has so many times the images of the smallest, those of rare classes count for more, so far.
# LOG.md has the figures.
IMBALANCED, CLASS_BALANCE = 4.0, 0.5
# Pixels: images must be so large that three quarters of them still are enough for three halvings.
MIN_RESIZED_SIDE = 16


def auto_recipe(
    profile: DatasetProfile, images_affordable: Callable[[Recipe], float], fixed: Mapping[str, Setting] | None = None
) -> tuple[Recipe, list[str]]:
    """Networks, batch, image sizes and augmentation from the data, the budget and this hardware's measured speed.

    It trains the network of ``airbench94``, with Muon, on images that grow. The budget decides how far up a ladder of
    networks it climbs: the more work a rung is, the better it does with enough epochs, and the fewer of them a budget
    buys. First the network becomes wider, then it works on larger images, then there are several of them. The batch
    leaves the schedule steps to move in.

    Args:
        images_affordable: images that a recipe's networks can be trained on in the budget, repeats counted.
        fixed: fields that the user has decided, or multiplies; the others are chosen to go with them.
    Returns:
        The recipe, and the reasons for it, a line each.
    """
    fixed = fixed or {}

    def pays(step: tuple[ModelScale, Recipe]) -> bool:
        scale, recipe = step
        return images_affordable(recipe) >= required_epochs(scale, profile) * profile.num_images

    steps = scales_for(profile, fixed)
    place = max(len(list(takewhile(pays, steps))) - 1, 0)
    scale, recipe = steps[place]
    sureness = _confidence(profile, images_affordable, steps[place + 1 : place + 2])
    num_images_seen = images_affordable(recipe)
    recipe = _decided(recipe, fixed, "batch_size", batch_for(num_images_seen, profile.num_images, recipe.width))
    recipe = _decided(recipe, fixed, "max_lr", round(RATE_PER_IMAGE * recipe.batch_size, 4))
    recipe = _decided(recipe, fixed, "logit_scale", logit_scale_for(recipe, num_images_seen, profile.num_classes))
    num_epochs = num_images_seen / profile.num_images
    recipe = _decided(recipe, fixed, "mixup", mixup_for(num_epochs, recipe.width))
    recipe = _decided(recipe, fixed, "mixup_until", MIXUP_UNTIL if recipe.mixup else 1.0)
    blurs = recipe.width >= BLURPOOL_WIDTH and num_epochs >= MIN_BLURPOOL_EPOCHS
    recipe = _decided(recipe, fixed, "blur_pool", blurs)
    mirroring = "keep their class, so they are used" if profile.mirror_allowed else "lose their class, so none is shown"
    blended = f", {recipe.mixup:.0%} of images blended with another{_ending(recipe)}" if recipe.mixup else ""
    if "flip" in fixed:
        mirroring = "are not shown" if recipe.flip == "none" else "are shown"
    return recipe, [
        f"{_networks(recipe, profile.side)}: pays from "
        f"{required_epochs(scale, profile):.2g} epochs of {profile.num_images} images on, there is time for "
        f"{num_epochs:.1f}{'; maxima are blurred' if recipe.blur_pool else ''}",
        f"batch {recipe.batch_size}: about {num_images_seen / recipe.batch_size:.0f} steps"
        f"{_sizes(recipe, profile.side)}",
        f"crops shifted by up to {recipe.crop_padding} px{blended}; mirrored images {mirroring}"
        f"{_balancing(recipe, profile)}",
        sureness,
    ]


def _decided(recipe: Recipe, fixed: Mapping[str, Setting], name: str, chosen: float) -> Recipe:
    """The recipe with a field as it is fixed, else as chosen, or as that multiple of what is chosen."""
    given = fixed.get(name, chosen)
    return recipe.replace(**{name: given.of(name, chosen) if isinstance(given, Multiplier) else given})


def _networks(recipe: Recipe, side: int) -> str:
    networks = f"{recipe.ensemble_size} networks" if recipe.ensemble_size > 1 else "one network"
    return f"{networks} of width {recipe.width} on {side * recipe.input_scale:.0f} px"


def _confidence(
    profile: DatasetProfile, images_affordable: Callable[[Recipe], float], above: Sequence[tuple[ModelScale, Recipe]]
) -> str:
    """How near the next rung is, if there is one, and what choosing like this cost where that could be checked."""
    said = [
        f"{_networks(recipe, profile.side)} would pay with "
        f"{required_epochs(scale, profile) * profile.num_images / max(images_affordable(recipe), 1.0):.1f}x the time"
        for scale, recipe in above
    ]
    mean, most = LEFT_OUT_LOSS
    said.append(f"on tasks left out of the fit choosing cost {mean:.1f} points on average, {most:.1f} at most")
    given = {"images": profile.num_images, "px": profile.side, "classes": profile.num_classes}
    beyond = [f"{given[name]} {name}" for name, (least, most) in FITTED_ON.items() if not least <= given[name] <= most]
    return f"how sure: {'; '.join(said)}" + (f"; never tried on {' or '.join(beyond)}" if beyond else "")


def logit_scale_for(recipe: Recipe, num_images_seen: float, num_classes: int) -> float:
    """The factor on the logits with which the head moves them by :data:`HEAD_TRAVEL` in a training.

    A class's weights learn from its own images above all, by the rate for an image, as many features as there are, and
    the factor, which counts twice: in the gradient and in the logits. So a head with many classes, few features or
    little time needs a larger one; with that of ``airbench94`` it would hardly leave its random start. It comes in
    steps of the square root of two, so that trainings planned alike have the same.
    """
    rate_per_image = recipe.max_lr / recipe.batch_size
    travel = rate_per_image * max(num_images_seen, 1.0) / num_classes * NUM_FEATURES * recipe.width
    scale = math.pow(2, round(math.log2(HEAD_TRAVEL / travel)) / 2)
    return round(min(MAX_LOGIT_SCALE, max(MIN_LOGIT_SCALE, scale)), 5)


def _sizes(recipe: Recipe, side: int) -> str:
    """How the images grow, as the end of a sentence."""
    if recipe.start_size == 1.0:
        return ""
    return f", the first on {side * recipe.start_size:.0f} px, from {recipe.full_size_at:.0%} of the time on whole ones"


def _ending(recipe: Recipe) -> str:
    """Until when images are blended, as the end of a sentence."""
    return f" until {recipe.mixup_until:.0%} of the time" if recipe.mixup_until < 1.0 else ""


def _balancing(recipe: Recipe, profile: DatasetProfile) -> str:
    """What is done about classes of different sizes, as the end of a sentence."""
    if not recipe.class_balance:
        return ""
    return (
        f"; the largest class has {profile.imbalance:.0f}x the images of the smallest, so rare classes count for more"
    )


def scales_for(profile: DatasetProfile, fixed: Mapping[str, Setting]) -> list[tuple[ModelScale, Recipe]]:
    """The rungs that differ on these data, and the recipe of each, all but the batch and what goes with it as it will
    be."""
    steps: list[tuple[ModelScale, Recipe]] = []
    now = {
        name: value for name, value in fixed.items() if not (isinstance(value, Multiplier) and name in DERIVED_FIELDS)
    }
    for scale in MODEL_SCALES:
        recipe = _recipe_at(scale, profile).replace(**now)
        if not steps or recipe != steps[-1][1]:
            steps.append((scale, recipe))
    return steps


def _recipe_at(scale: ModelScale, profile: DatasetProfile) -> Recipe:
    side: float = min(scale.side, profile.side)
    if scale.enlarged:
        side = max(side, min(ENLARGED_SIDE, MOST_ENLARGED * profile.side))
    side = max(side, MIN_SIDE)
    return AUTO_BASE.replace(
        width=scale.width,
        ensemble_size=scale.ensemble_size,
        input_scale=min(4.0, max(0.1, round(side / profile.side, 4))),
        min_steps=20,
        crop_padding=min(64, max(1, profile.side // 16)),
        start_size=START_SIZE if profile.side >= MIN_RESIZED_SIDE else 1.0,
        full_size_at=FULL_SIZE_AT,
        class_balance=CLASS_BALANCE if profile.imbalance >= IMBALANCED else 0.0,
        flip="alternating" if profile.mirror_allowed else "none",
        tta="mirror_shift" if profile.mirror_allowed else "shift",
    )


def mixup_for(num_epochs: float, width: int) -> float:
    """The share of images that are blended: the more, the better a network of that width gets to know them."""
    familiar = num_epochs * width if num_epochs >= MIN_MIXUP_EPOCHS else 0.0
    return max((share for least, share in MIXUP if familiar >= least), default=0.0)


def required_epochs(scale: ModelScale, profile: DatasetProfile) -> float:
    """How often each image must be seen for a rung to pay."""
    epochs = scale.epochs * math.pow(NUM_IMAGES / profile.num_images, scale.exponent)
    if profile.side >= DETAILED_SIDE:
        epochs *= DETAILED_SHARE
    return min(MAX_EPOCHS, max(MIN_EPOCHS, epochs))


def largest_useful_side(num_images: int, seconds: float, images_per_second: float) -> int:
    """The side in pixels beyond which more of an image would be of no use, before anything is known but this.

    Args:
        num_images: images to train on.
        seconds: of training.
        images_per_second: at which this hardware trains a network of width 64 on images of 32 pixels.
    """
    profile = DatasetProfile(num_images, MAX_SIDE, num_classes=2, mirror_allowed=True)

    def images_affordable(recipe: Recipe) -> float:
        work = recipe.ensemble_size * (recipe.width / 64) ** 2 * (recipe.input_scale * MAX_SIDE / 32) ** 2
        return seconds * images_per_second / work

    recipe, _ = auto_recipe(profile, images_affordable)
    return round(recipe.input_scale * MAX_SIDE)


def batch_for(num_images_seen: float, num_images: int, width: int) -> int:
    """The power of two that comes closest to :data:`WANTED_STEPS` steps, from 64 (8 for tiny sets) to the largest.

    Where epochs times width exceed :data:`MAX_EPOCHS_TIMES_WIDTH`, both the steps and the batch grow.
    """
    counted = min(num_images_seen, math.sqrt(max(num_images_seen, 0.0) * MAX_EPOCHS_TIMES_WIDTH / width * num_images))
    wanted = min(largest_batch(num_images), max(MIN_BATCH_SIZE, counted / WANTED_STEPS))
    return int(2 ** round(math.log2(wanted)))


def largest_batch(num_images: int) -> int:
    """The largest power of two that is no more than a quarter of the data, from 8 to 1024."""
    return min(MAX_BATCH_SIZE, int(2 ** math.floor(math.log2(max(8.0, num_images / 4)))))
