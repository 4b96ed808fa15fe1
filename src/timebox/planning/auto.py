"""The ``auto`` recipe: model scale, batch size, image sizes and augmentation from a data set, a budget and a speed."""

import math
from collections.abc import Callable, Mapping
from itertools import takewhile

from timebox.planning.dataset_profile import DatasetProfile
from timebox.planning.model_scales import (
    FITTED_RANGES,
    LEFT_OUT_LOSS,
    MAX_SIDE,
    ModelScale,
    required_epochs,
    scales_for,
)
from timebox.recipes.builtin import auto
from timebox.recipes.recipe import Multiplier, Recipe, Setting

# All effects below were measured; LOG.md has the numbers.

# Recipe whose fields are changed by planning. SGD's learning rate is proportional to the batch size; Muon's is not.
AUTO_BASE = auto()
LR_PER_IMAGE = AUTO_BASE.max_lr / AUTO_BASE.batch_size
# Pixels: smaller images are enlarged inside the network up to this side, by at most this factor.
ENLARGED_SIDE, MAX_ENLARGEMENT = 40, 1.25
# Pixels: smallest input resolution of a network.
MIN_NETWORK_SIDE = 16
# Steps that a schedule should have, and bounds of the batch size in images.
TARGET_STEPS = 300
MIN_BATCH_SIZE, MAX_BATCH_SIZE = 64, 1024
# Epochs times width from which smaller batches and more steps are more accurate.
MAX_EPOCHS_TIMES_WIDTH = 450.0
# Expected change of the logits while the head is trained, if the features stayed constant; accuracy is flat between
# half and three times this value. Bounds of the logit scale, and features of the head per channel of the width.
HEAD_TRAVEL, FEATURES_PER_CHANNEL = 40.0, 4
MIN_LOGIT_SCALE, MAX_LOGIT_SCALE = 1 / 512, 1 / 8
# Progressive resizing: first side as a fraction of the full side, and the progress from which images are full size.
START_SIZE, FULL_SIZE_AT = 0.75, 0.6
# Pixels: smaller images are not resized; three quarters of their side would not survive three halvings.
MIN_RESIZED_SIDE = 16
# Share of images under mixup by epochs times width, from a number of epochs on. It ends before the training does, as
# predictions are made on images that are not mixed.
MIXUP_BY_EPOCHS_TIMES_WIDTH, MIN_MIXUP_EPOCHS = ((1000.0, 0.25), (2000.0, 0.5)), 16.0
MIXUP_UNTIL = 0.85
# BlurPool is used from this width and number of epochs on. It costs narrow networks a fifth of their speed, which with
# few epochs loses more accuracy than BlurPool gains.
MIN_BLURPOOL_WIDTH, MIN_BLURPOOL_EPOCHS = 48, 10.0
# From this ratio of the largest to the smallest class on, classes are weighted, with this exponent.
MIN_WEIGHTED_IMBALANCE, CLASS_BALANCE = 4.0, 0.5
# Numeric fields planned from the number of images that the budget allows: a user's multiplier is applied after that.
DERIVED_FIELDS = ("batch_size", "max_lr", "logit_scale", "mixup", "mixup_until")

Candidate = tuple[ModelScale, Recipe]


def auto_recipe(
    profile: DatasetProfile,
    images_affordable: Callable[[Recipe], float],
    overrides: Mapping[str, Setting] | None = None,
) -> tuple[Recipe, list[str]]:
    """Plan a recipe: the network of ``airbench94`` with Muon, at the largest model scale that the budget allows.

    Larger scales are more accurate after enough epochs, and the budget allows fewer epochs of them. So scales are tried
    in increasing order, up to the last one for which the budget allows the epochs it requires.

    Args:
        images_affordable: training images, repeats counted, that the budget allows with a recipe.
        overrides: fields that the user set, or multiplies; all others are planned to go with them.
    Returns:
        The recipe, and four lines that explain it to the user.
    """
    overrides = overrides or {}

    def is_affordable(candidate: Candidate) -> bool:
        scale, recipe = candidate
        return images_affordable(recipe) >= required_epochs(scale, profile) * profile.num_images

    candidates = candidate_scales(profile, overrides)
    selected = max(len(list(takewhile(is_affordable, candidates))) - 1, 0)
    scale, recipe = candidates[selected]
    num_images_seen = images_affordable(recipe)
    recipe = _with_derived_fields(recipe, overrides, profile, num_images_seen)
    larger = candidates[selected + 1] if selected + 1 < len(candidates) else None
    return recipe, [
        f"{_describe_networks(recipe, profile)}: needs about {_rounded(required_epochs(scale, profile))} epochs of "
        f"{profile.num_images:,} images; the budget allows {_rounded(num_images_seen / profile.num_images)}"
        f"{'; BlurPool in place of max pooling' if recipe.blur_pool else ''}",
        f"batch size {recipe.batch_size}: about {num_images_seen / recipe.batch_size:.0f} steps"
        f"{_describe_resizing(recipe, profile)}",
        _describe_augmentation(recipe, profile),
        _describe_confidence(profile, images_affordable, larger),
    ]


def candidate_scales(profile: DatasetProfile, overrides: Mapping[str, Setting]) -> list[Candidate]:
    """The model scales that differ on this data set, in increasing order of operations, with the recipe of each.

    The derived fields of the recipes, such as the batch size, are still those of the base recipe or of the user.
    """
    later = {name for name in DERIVED_FIELDS if isinstance(overrides.get(name), Multiplier)}
    settings = {name: setting for name, setting in overrides.items() if name not in later}
    candidates: list[Candidate] = []
    for scale in scales_for(profile):
        recipe = _recipe_at(scale, profile).replace(**settings)
        if not candidates or recipe != candidates[-1][1]:
            candidates.append((scale, recipe))
    return candidates


def _recipe_at(scale: ModelScale, profile: DatasetProfile) -> Recipe:
    side: float = min(scale.side, profile.side)
    if scale.enlarged:
        side = max(side, min(ENLARGED_SIDE, MAX_ENLARGEMENT * profile.side))
    side = max(side, MIN_NETWORK_SIDE)
    return AUTO_BASE.replace(
        width=scale.width,
        ensemble_size=scale.ensemble_size,
        input_scale=min(4.0, max(0.1, round(side / profile.side, 4))),
        min_steps=20,
        crop_padding=min(64, max(1, profile.side // 16)),
        start_size=START_SIZE if profile.side >= MIN_RESIZED_SIDE else 1.0,
        full_size_at=FULL_SIZE_AT,
        class_balance=CLASS_BALANCE if profile.imbalance >= MIN_WEIGHTED_IMBALANCE else 0.0,
        flip="alternating" if profile.mirror_allowed else "none",
        tta="mirror_shift" if profile.mirror_allowed else "shift",
    )


def _with_derived_fields(
    recipe: Recipe, overrides: Mapping[str, Setting], profile: DatasetProfile, num_images_seen: float
) -> Recipe:
    """The recipe with the fields that depend on the number of images seen; each may depend on those before it."""

    def with_planned(name: str, planned: float) -> Recipe:
        setting = overrides.get(name, planned)
        return recipe.replace(**{name: setting.apply(name, planned) if isinstance(setting, Multiplier) else setting})

    num_epochs = num_images_seen / profile.num_images
    recipe = with_planned("batch_size", choose_batch_size(num_images_seen, profile.num_images, recipe.width))
    recipe = with_planned("max_lr", round(LR_PER_IMAGE * recipe.batch_size, 4))
    recipe = with_planned("logit_scale", choose_logit_scale(recipe, num_images_seen, profile.num_classes))
    recipe = with_planned("mixup", choose_mixup(num_epochs, recipe.width))
    recipe = with_planned("mixup_until", MIXUP_UNTIL if recipe.mixup else 1.0)
    return with_planned("blur_pool", recipe.width >= MIN_BLURPOOL_WIDTH and num_epochs >= MIN_BLURPOOL_EPOCHS)


def choose_batch_size(num_images_seen: float, num_images: int, width: int) -> int:
    """The power of two that comes closest to :data:`TARGET_STEPS` steps, from 64 (8 for tiny sets) to 1,024.

    Above :data:`MAX_EPOCHS_TIMES_WIDTH` the number of steps grows with the square root of epochs times width, and the
    batch with the square root of epochs divided by width.
    """
    counted = min(num_images_seen, math.sqrt(max(num_images_seen, 0.0) * MAX_EPOCHS_TIMES_WIDTH / width * num_images))
    target = min(max_batch_size(num_images), max(MIN_BATCH_SIZE, counted / TARGET_STEPS))
    return int(2 ** round(math.log2(target)))


def max_batch_size(num_images: int) -> int:
    """The largest power of two that is at most a quarter of the data, from 8 to 1,024."""
    return min(MAX_BATCH_SIZE, int(2 ** math.floor(math.log2(max(8.0, num_images / 4)))))


def choose_logit_scale(recipe: Recipe, num_images_seen: float, num_classes: int) -> float:
    """The logit scale with which a training of the head changes the logits by :data:`HEAD_TRAVEL`.

    The change is proportional to the learning rate per image, the images seen per class, the number of features, and
    the square of the logit scale, which is in both the gradient and the logits. With the scale of ``airbench94`` the
    head would hardly leave its random initialisation where classes are many, or features or time are few. The result is
    rounded to powers of the square root of two, so that similar trainings have equal scales.
    """
    lr_per_image = recipe.max_lr / recipe.batch_size
    travel = lr_per_image * max(num_images_seen, 1.0) / num_classes * FEATURES_PER_CHANNEL * recipe.width
    scale = math.pow(2, round(math.log2(HEAD_TRAVEL / travel)) / 2)
    return round(min(MAX_LOGIT_SCALE, max(MIN_LOGIT_SCALE, scale)), 5)


def choose_mixup(num_epochs: float, width: int) -> float:
    """The share of images under mixup, 0...1, which grows with how well such a network can memorise the images."""
    epochs_times_width = num_epochs * width if num_epochs >= MIN_MIXUP_EPOCHS else 0.0
    return max((share for least, share in MIXUP_BY_EPOCHS_TIMES_WIDTH if epochs_times_width >= least), default=0.0)


def largest_useful_side(num_images: int, seconds: float, images_per_second: float) -> int:
    """The largest input resolution in pixels that ``auto`` would select for a number of images and a speed.

    Args:
        images_per_second: training speed of a network of width 64 on images of 32 pixels.
    """
    profile = DatasetProfile(num_images, MAX_SIDE, num_classes=2, mirror_allowed=True)

    def images_affordable(recipe: Recipe) -> float:
        work = recipe.ensemble_size * (recipe.width / 64) ** 2 * (recipe.input_scale * MAX_SIDE / 32) ** 2
        return seconds * images_per_second / work

    recipe, _ = auto_recipe(profile, images_affordable)
    return round(recipe.input_scale * MAX_SIDE)


def _describe_networks(recipe: Recipe, profile: DatasetProfile) -> str:
    networks = f"{recipe.ensemble_size} networks" if recipe.ensemble_size > 1 else "one network"
    return f"{networks} of width {recipe.width} at {profile.side * recipe.input_scale:.0f} px"


def _describe_resizing(recipe: Recipe, profile: DatasetProfile) -> str:
    if recipe.start_size == 1.0:
        return ""
    side = profile.side * recipe.input_scale
    sides = f"from {side * recipe.start_size:.0f} px to {side:.0f} px"
    return f"; images grow {sides} in the first {_percent(recipe.full_size_at)} of training"


def _describe_augmentation(recipe: Recipe, profile: DatasetProfile) -> str:
    flip = "no horizontal flip" if recipe.flip == "none" else "horizontal flip"
    if profile.mirror_accuracies:
        original, flipped = map(_percent, profile.mirror_accuracies)
        flip += f" (nearest neighbours right: {original} as they are, {flipped} flipped)"
    mixup = f", mixup {_percent(recipe.mixup)}" if recipe.mixup else ""
    if recipe.mixup and recipe.mixup_until < 1.0:
        mixup += f" until {_percent(recipe.mixup_until)} of training"
    weights = ""
    if recipe.class_balance:
        weights = f"; class weights, as the largest class has {profile.imbalance:.0f}x the images of the smallest"
    return f"augmentation: random crop ±{recipe.crop_padding} px, {flip}{mixup}{weights}"


def _describe_confidence(
    profile: DatasetProfile, images_affordable: Callable[[Recipe], float], larger: Candidate | None
) -> str:
    """Time that the next larger scale would need, and the accuracy that the selection of scales lost when validated."""
    parts = []
    if larger:
        scale, recipe = larger
        factor = required_epochs(scale, profile) * profile.num_images / max(images_affordable(recipe), 1.0)
        parts.append(f"next larger scale: {_describe_networks(recipe, profile)}, with {factor:.1f}x the time")
    mean, worst = LEFT_OUT_LOSS
    parts.append(f"on tasks left out of its fit, this choice lost {mean:.1f} points on average, {worst:.1f} at most")
    properties = {"images": profile.num_images, "px": profile.side, "classes": profile.num_classes}
    outside = [name for name, (low, high) in FITTED_RANGES.items() if not low <= properties[name] <= high]
    if outside:
        parts.append(f"outside the range of the fit: {', '.join(f'{properties[name]:,} {name}' for name in outside)}")
    return "; ".join(parts)


def _rounded(num_epochs: float) -> str:
    return f"{num_epochs:.2g}" if num_epochs < 10 else f"{num_epochs:,.0f}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
