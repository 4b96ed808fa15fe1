"""Time to accuracy: the training time in which a recipe reaches a target accuracy, over many trials.

The rules are those of the public speed records (fulcrumresearch/cifar-10-speedrun): work done once per machine is not
timed, work done in every trial is, scoring is not. The training step is that of ``timebox train``.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import ceil
from statistics import fmean
from typing import Any

import torch

from timebox.benchmarking.statistics import SampleStatistics, describe, p_above
from timebox.builders import MIN_STD, build_augmentation, build_loss, build_model, build_resizing, init_whitening_
from timebox.clock import now
from timebox.data import ImageDataset
from timebox.data.device.augment import ChannelStatistics, batch_statistics
from timebox.data.device.loader import DeviceLoader, Sampling
from timebox.data.device.resident import ResidentImages
from timebox.evaluation.inference import InferenceConfig, predict_probabilities
from timebox.evaluation.metrics import accuracy
from timebox.recipes import Recipe
from timebox.run.model_config import installed_versions
from timebox.runtime.device import device_name
from timebox.runtime.precision import Precision
from timebox.runtime.timing import cudnn_benchmark, synchronize
from timebox.training.graphed_step import GraphedStepRunner, build_step_runner
from timebox.training.pacer import StepPacer
from timebox.training.schedule import PacedSchedule
from timebox.training.state import Snapshot, TrainingState
from timebox.training.step import EagerStepRunner, StepRunner

# Steps on random images at the end of building: kernels and libraries are loaded when they are first used.
NUM_PRACTICE_STEPS = 3


class Speedrun:
    """One recipe on one data set, trained anew in each trial: :meth:`build` once, then per trial :meth:`prepare`,
    :meth:`train` and :meth:`evaluate`. The first three return their seconds; the device is synchronised before the
    clock is read.

    The uint8 images are moved to the device in the constructor, untimed, as in the records. The global random number
    generators are left as they are.

    Args:
        train: the training images.
        num_steps: the length of a training, see :func:`steps_for_epochs`.
        precision: number format and device of the training.
        recorded: whether a GPU replays recorded steps, as :func:`timebox.train` does; else it takes them eagerly.
        notify: takes a line of text where steps cannot be recorded.
    """

    def __init__(
        self,
        recipe: Recipe,
        train: ImageDataset,
        num_steps: int,
        precision: Precision,
        *,
        recorded: bool = True,
        notify: Callable[[str], None] = lambda text: None,
    ) -> None:
        if recipe.class_balance:
            raise ValueError("class_balance must be 0: building sees nothing of the labels")
        self.recipe, self.num_steps, self.precision, self.device = recipe, num_steps, precision, precision.device
        self._recorded, self._notify = recorded, notify
        self._shape, self._num_images, self._num_classes = train.image_shape, len(train), train.num_classes
        self._images = ResidentImages.from_dataset(train, self.device)
        self._state: TrainingState
        self._steps: StepRunner
        self._loader: DeviceLoader

    @property
    def epochs(self) -> float:
        """Number of times that a trial sees each image."""
        return self.num_steps * self.recipe.batch_size / self._num_images

    def facts(self) -> dict[str, object]:
        """Recipe, precision, number of images and device of a built run; ready for JSON."""
        return {
            "recipe": self.recipe.as_dict(),
            "precision": self.precision.name,
            "train_images": self._num_images,
            "device": device_name(self.device),
            "recorded": isinstance(self._steps, GraphedStepRunner) and self._steps.num_recorded > 0,
        }

    def build(self) -> float:
        """Allocate all tensors and record the step, untimed like the compilation of the records. Uses random images of
        the data's shape, not the data."""
        synchronize(self.device)
        started = now()
        with cudnn_benchmark():
            model = self._initial_model(seed=0).to(self.device).train()
            self._state = TrainingState(model, self.recipe, self.precision)
            self._initial = self._state.snapshot()
            loss_fn = build_loss(self.recipe, None)
            self._steps = (
                build_step_runner(self._state, loss_fn, self._notify)
                if self._recorded
                else EagerStepRunner(self._state, loss_fn)
            )
            self._reset(self._random_images(), seed=0)
            self._steps.prepare(self._loader, self.recipe.batch_size)
            self._take_steps(NUM_PRACTICE_STEPS)
        synchronize(self.device)
        return now() - started

    def prepare(self, seed: int) -> float:
        """Begin a trial: initial weights, optimizer and average, statistics and whitening of the training images, a new
        order. Images are augmented while training, batch by batch."""
        synchronize(self.device)
        started = now()
        with cudnn_benchmark():
            self._reset(self._images, seed)
        synchronize(self.device)
        return now() - started

    def train(self) -> float:
        """Take all steps of the schedule."""
        synchronize(self.device)
        started = now()
        with cudnn_benchmark():
            self._take_steps(self.num_steps)
        synchronize(self.device)
        return now() - started

    def evaluate(self, test: ImageDataset, tta: str | None = None) -> float:
        """Accuracy, 0...1, of the averaged model on all test images; not timed.

        Args:
            tta: views averaged, as of :class:`timebox.evaluation.inference.InferenceConfig`; None for the
                recipe's.
        """
        statistics = self._loader.statistics
        config = InferenceConfig(statistics.mean, statistics.std, self.recipe.tta if tta is None else tta)
        probabilities = predict_probabilities(self.model, test.images, config, self.device)
        return accuracy(probabilities, test.labels)

    @property
    def model(self) -> torch.nn.Module:
        """The averaged model of the current trial."""
        return self._state.average.model

    def _reset(self, images: ResidentImages, seed: int) -> None:
        """Reset the state to the beginning of a training, in place: a recorded step refers to tensors by address."""
        recipe, state = self.recipe, self._state
        mean, std = batch_statistics(images.images)
        std = std.clamp_min(MIN_STD)
        state.model.load_state_dict(self._initial_model(seed).state_dict())
        init_whitening_(state.model, recipe, images.images, mean, std)
        weights = state.model.state_dict()
        fresh = {f"{part}.{name}": tensor for part in ("model", "average") for name, tensor in weights.items()}
        state.restore(Snapshot(0, 0.0, {**self._initial.tensors, **fresh}, {}))
        augmentation, resizing = build_augmentation(recipe), build_resizing(recipe)
        sampling = Sampling(recipe.batch_size, seed, recipe.ensemble_size)
        self._loader = DeviceLoader(images, ChannelStatistics(mean, std), augmentation, sampling, resizing)

    def _take_steps(self, num_steps: int) -> None:
        """The training loop of ``timebox train``, without rollbacks, checkpoints and reports."""
        schedule = PacedSchedule(StepPacer(num_steps), self.recipe, self.recipe.batch_size)
        while (step_plan := schedule.next(0)) is not None:
            self._steps.run(self._loader.batch(self._state.step, self._state.progress), step_plan)

    def _initial_model(self, seed: int) -> torch.nn.Module:
        """The network with the initial weights that ``timebox train`` draws for a seed, on the CPU."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            height, width, channels = self._shape
            return build_model(self.recipe, channels, self._num_classes, (height, width))

    def _random_images(self) -> ResidentImages:
        generator = torch.Generator(self.device).manual_seed(0)
        count, device = self._num_images, self.device
        images = torch.randint(256, (count, *self._shape), generator=generator, dtype=torch.uint8, device=device)
        labels = torch.randint(self._num_classes, (count,), generator=generator, device=device)
        return ResidentImages(images, labels, self._num_classes, count)


@dataclass(frozen=True)
class Trial:
    """The times of one training from initial weights, and its accuracy on the whole test split."""

    name: str
    seed: int
    prepare_seconds: float
    train_seconds: float
    accuracy: float
    tta: str
    steps: int
    epochs: float
    images_per_second: float

    @classmethod
    def of(cls, line: Mapping[str, Any]) -> "Trial":
        """The trial in a line that :func:`time_to_accuracy` logged."""
        return cls(**{name: line[name] for name in cls.__dataclass_fields__})

    @property
    def seconds(self) -> float:
        """Preparation and training."""
        return self.prepare_seconds + self.train_seconds


@dataclass(frozen=True)
class Summary:
    """The trials of one contestant.

    Attributes:
        accuracy, seconds: number, mean, spread of single trials, and the 95 % interval of the mean.
        reached: whether the mean accuracy is at or above the target.
        p: of the one-sided t-test that the true mean is above the target; None for one trial.
    """

    name: str
    accuracy: SampleStatistics
    seconds: SampleStatistics
    target: float
    reached: bool
    p: float | None


def steps_for_epochs(num_epochs: float, num_images: int, batch_size: int) -> int:
    """The number of steps in ``num_epochs`` epochs, rounded up."""
    return ceil(num_epochs * num_images / batch_size - 1e-9)


def run_trial(name: str, speedrun: Speedrun, test: ImageDataset, seed: int, tta: str | None = None) -> Trial:
    """One trial of a contestant, which must be built."""
    prepare_seconds, train_seconds = speedrun.prepare(seed), speedrun.train()
    return Trial(
        name=name,
        seed=seed,
        prepare_seconds=round(prepare_seconds, 5),
        train_seconds=round(train_seconds, 5),
        accuracy=speedrun.evaluate(test, tta),
        tta=speedrun.recipe.tta if tta is None else tta,
        steps=speedrun.num_steps,
        epochs=round(speedrun.epochs, 4),
        images_per_second=round(speedrun.num_steps * speedrun.recipe.batch_size / train_seconds, 1),
    )


def time_to_accuracy(
    contestants: Mapping[str, Speedrun],
    test: ImageDataset,
    *,
    seeds: Iterable[int],
    log: Callable[[Mapping[str, object]], None],
    tta: str | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> dict[str, list[Trial]]:
    """Interleaved trials of all contestants: each seed is a round, and each round begins with the next contestant, so
    that a machine that warms up or slows down favours none.

    Args:
        contestants: built, by name.
        test: the whole test split.
        log: takes each trial as a JSON object, with recipe, precision, device and versions.
        tta: views averaged when scoring; None for each recipe's own.
        should_stop: called before each round but the first; True ends the trials.
    """
    names = list(contestants)
    trials: dict[str, list[Trial]] = {name: [] for name in names}
    facts = {name: {**speedrun.facts(), "versions": installed_versions()} for name, speedrun in contestants.items()}
    for number, seed in enumerate(seeds):
        if number and should_stop():
            break
        first = number % len(names)
        for name in (*names[first:], *names[:first]):
            trial = run_trial(name, contestants[name], test, seed, tta)
            trials[name].append(trial)
            log({"kind": "trial", **asdict(trial), "n": len(trials[name]), **facts[name]})
    return trials


def summarize(name: str, trials: Sequence[Trial], target: float) -> Summary:
    """Statistics of the trials of one contestant, one or more."""
    accuracies, seconds = [trial.accuracy for trial in trials], [trial.seconds for trial in trials]
    reached = fmean(accuracies) >= target
    return Summary(name, describe(accuracies), describe(seconds), target, reached, p_above(accuracies, target))
