"""A tiny learnable data set, a tiny recipe, and a short training of it."""

from collections.abc import Callable, Mapping

import numpy as np
import torch

from timebox.builders import build_augmentation, build_model
from timebox.clock import Deadline
from timebox.data import ImageDataset
from timebox.data.device.augment import ChannelStatistics
from timebox.data.device.loader import DeviceLoader, Sampling
from timebox.data.device.resident import ResidentImages
from timebox.optim.loss import Loss
from timebox.progress import Reporter, SilentReporter
from timebox.recipes import Recipe, get_recipe
from timebox.runtime.precision import Precision
from timebox.training.checkpointer import AsyncCheckpointer
from timebox.training.loop import PeriodicValidation, TrainingComponents, TrainingResult, train_model
from timebox.training.monitor import TrainingMonitor
from timebox.training.pacer import Pacer, StepPacer
from timebox.training.rollback import RollbackGuard
from timebox.training.schedule import PacedSchedule
from timebox.training.state import TrainingState
from timebox.training.step import EagerStepRunner, StepRunner

CPU = torch.device("cpu")
Entries = list[Mapping[str, object]]
Validate = Callable[[torch.nn.Module], float]


def bands(num: int, num_classes: int = 3, side: int = 8, seed: int = 0) -> ImageDataset:
    """Noise images with a bright row, whose position is the class; rows stay apart when crops shift by a pixel."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, num_classes, num)
    images = rng.integers(0, 120, (num, side, side, 3))
    images[np.arange(num), 3 * labels] += 120
    names = tuple(f"row {i}" for i in range(num_classes))
    return ImageDataset(images.astype(np.uint8), labels, names, tuple(str(i) for i in range(num)))


def tiny_recipe(**changes: int | float | str) -> Recipe:
    small = {"width": 4, "batch_size": 16, "ghost_size": 8, "max_lr": 0.05, "crop_padding": 1, "cutout_size": 0}
    return get_recipe("haet2021").replace(**{"label_smoothing": 0.0, **small, **changes})


def tiny_training(
    num_steps: int = 20,
    *,
    recipe: Recipe | None = None,
    precision: Precision | None = None,
    pacer: Pacer | None = None,
    deadline: Deadline | None = None,
    validate: Validate | None = None,
    validate_at: list[float] | None = None,
    reporter: Reporter | None = None,
    make_step_runner: Callable[[TrainingState, Loss], StepRunner] = EagerStepRunner,
) -> tuple[TrainingResult, Entries]:
    """Train on 100 images. Returns the result and the entries of the metrics log."""
    recipe = recipe or tiny_recipe()
    data = bands(100)
    torch.manual_seed(0)
    model = build_model(recipe, 3, data.num_classes).train()
    augmentation = build_augmentation(recipe)
    half = torch.full((3,), 0.5)
    images, statistics = ResidentImages.from_dataset(data, CPU), ChannelStatistics(half, half / 2)
    loader = DeviceLoader(images, statistics, augmentation, Sampling(recipe.batch_size, seed=0))
    log: Entries = []
    deadline = deadline or Deadline(None)
    state = TrainingState(model, recipe, precision or Precision("fp32", CPU))
    schedule = PacedSchedule(pacer or StepPacer(num_steps), recipe, recipe.batch_size)
    messages: list[str] = []
    components = TrainingComponents(
        state,
        loader,
        schedule,
        make_step_runner(state, Loss(recipe.label_smoothing)),
        RollbackGuard(state, schedule, recipe, 5, messages.append),
        TrainingMonitor(loader, schedule, deadline, log.append, reporter or SilentReporter()),
        AsyncCheckpointer(lambda snapshot: None, deadline, lambda: float("inf"), messages.append),
        PeriodicValidation(validate, validate_at or [], float("inf")) if validate else None,
    )
    return train_model(components), log
