"""Time to accuracy: how long a recipe trains until it classifies so well, over many trials.

The contract is that of the public speed records (fulcrumresearch/cifar-10-speedrun): what is done once per machine is
free, what is done once per trial is timed, and scoring is not. The step is the one that ``timebox train`` takes.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import ceil
from statistics import fmean
from typing import Any

import torch

from timebox.benchmarking.statistics import Figures, describe, p_above
from timebox.builders import SMALLEST_STD, build_augmentation, build_model, build_resizing, init_whitening_
from timebox.clock import now
from timebox.data import ImageDataset
from timebox.data.device.augment import batch_statistics
from timebox.data.device.loader import DeviceLoader, ResidentImages
from timebox.evaluation.inference import predict_probabilities
from timebox.evaluation.metrics import accuracy
from timebox.optim.loss import Loss
from timebox.recipe import Recipe
from timebox.run.model_config import device_name, installed_versions
from timebox.runtime.precision import Precision
from timebox.runtime.timing import cudnn_benchmark, synchronize
from timebox.training.graphed_step import GraphedSteps, build_steps
from timebox.training.pacer import StepPacer
from timebox.training.schedule import PacedSchedule
from timebox.training.state import Snapshot, TrainingState
from timebox.training.step import EagerSteps, Steps

# Steps on random images with which building ends: they load what is loaded when it is first used.
NUM_PRACTICE_STEPS = 3


class Speedrun:
    """One recipe on one data set, trained anew in each trial: :meth:`build` once, then per trial :meth:`prepare`,
    :meth:`train` and :meth:`evaluate`. Each returns its seconds, the device having finished before a clock is read.

    The uint8 images are put on the device when this is made, before any clock: every record reads its data beforehand.
    No generator of random numbers is touched.

    Args:
        train: the training images.
        num_epochs, num_steps: the length of a training; one of them is given. Epochs are rounded up to whole steps.
        precision: ``fp32``, ``bf16`` or ``fp16``.
        recorded: whether a GPU replays recorded steps, as :func:`timebox.train` does; else it takes them eagerly.
        tell: takes a sentence where steps cannot be recorded.
    """

    def __init__(
        self,
        recipe: Recipe,
        train: ImageDataset,
        *,
        num_epochs: float | None = None,
        num_steps: int | None = None,
        device: torch.device,
        precision: str,
        recorded: bool = True,
        notify: Callable[[str], None] = lambda text: None,
    ) -> None:
        if num_steps is None:
            if num_epochs is None:
                raise ValueError("num_epochs or num_steps must be given")
            num_steps = ceil(num_epochs * len(train) / recipe.batch_size - 1e-9)
        if recipe.class_balance:
            raise ValueError("class_balance must be 0: building sees nothing of the labels")
        self.recipe, self.num_steps, self.device, self.precision = recipe, num_steps, device, precision
        self._recorded, self._notify = recorded, notify
        self._shape, self._num_images, self._num_classes = train.image_shape, len(train), train.num_classes
        self._images = ResidentImages.of(train, device)
        self._state: TrainingState
        self._steps: Steps
        self._loader: DeviceLoader

    @property
    def epochs(self) -> float:
        """How often a trial sees each image."""
        return self.num_steps * self.recipe.batch_size / self._num_images

    def facts(self) -> dict[str, object]:
        """What is trained, where and how, once built; ready for JSON."""
        return {
            "recipe": self.recipe.as_dict(),
            "precision": self.precision,
            "train_images": self._num_images,
            "device": device_name(self.device),
            "recorded": isinstance(self._steps, GraphedSteps) and self._steps.num_recorded > 0,
        }

    def build(self) -> float:
        """Allocate everything and record the step: free, like every record's compilation. Sees random images of the
        data's shape, and of the data nothing but shapes."""
        synchronize(self.device)
        started = now()
        with cudnn_benchmark():
            model = self._drawn(seed=0).to(self.device).train()
            precision = Precision(self.precision, self.device)
            self._state = TrainingState(model, self.recipe, precision)
            self._at_rest = self._state.snapshot()
            loss_fn = Loss(self.recipe.label_smoothing)
            self._steps = (
                build_steps(self._state, loss_fn, self._notify) if self._recorded else EagerSteps(self._state, loss_fn)
            )
            self._begin(self._random_images(), seed=0)
            self._steps.prepare(self._loader, self.recipe.batch_size)
            self._take_steps(NUM_PRACTICE_STEPS)
        synchronize(self.device)
        return now() - started

    def prepare(self, seed: int) -> float:
        """All that is done once per trial: fresh weights, optimizer and average, statistics and whitening of the real
        images, a new order. Images are augmented while training, batch by batch."""
        synchronize(self.device)
        started = now()
        with cudnn_benchmark():
            self._begin(self._images, seed)
        synchronize(self.device)
        return now() - started

    def train(self) -> float:
        """The whole schedule, step by step."""
        synchronize(self.device)
        started = now()
        with cudnn_benchmark():
            self._take_steps(self.num_steps)
        synchronize(self.device)
        return now() - started

    def evaluate(self, test: ImageDataset, tta: str | None = None) -> float:
        """Accuracy, 0...1, of the averaged model on all test images; not timed.

        Args:
            tta: views averaged, as :func:`timebox.evaluation.inference.predict_probabilities` takes them; None for the
                recipe's.
        """
        probabilities = predict_probabilities(
            self.model,
            test.images,
            self._loader.mean,
            self._loader.std,
            tta=self.recipe.tta if tta is None else tta,
            device=self.device,
        )
        return accuracy(probabilities, test.labels)

    @property
    def model(self) -> torch.nn.Module:
        """The averaged model of the present trial."""
        return self._state.average.model

    def _begin(self, images: ResidentImages, seed: int) -> None:
        """Put everything back to the beginning of a training, in place: a recorded step knows it by its address."""
        recipe, state = self.recipe, self._state
        mean, spread = batch_statistics(images.images)
        std = spread.clamp_min(SMALLEST_STD)
        state.model.load_state_dict(self._drawn(seed).state_dict())
        init_whitening_(state.model, recipe, images.images, mean, std)
        weights = state.model.state_dict()
        fresh = {f"{part}.{name}": tensor for part in ("model", "average") for name, tensor in weights.items()}
        state.restore(Snapshot(0, 0.0, {**self._at_rest.tensors, **fresh}, {}))
        augmentation, resizing = build_augmentation(recipe), build_resizing(recipe)
        self._loader = DeviceLoader(
            images, recipe.batch_size, mean, std, augmentation, seed, self.device, resizing, recipe.ensemble_size
        )

    def _take_steps(self, num_steps: int) -> None:
        """The training loop of ``timebox train``, without what guards it and what reports on it."""
        schedule = PacedSchedule(StepPacer(num_steps), self.recipe, self.recipe.batch_size)
        while (step_plan := schedule.next(0)) is not None:
            self._steps(self._loader.batch(self._state.step, self._state.progress), step_plan)

    def _drawn(self, seed: int) -> torch.nn.Module:
        """The network with the weights that a seed draws in ``timebox train`` too, on the CPU."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return build_model(self.recipe, self._shape[2], self._num_classes)

    def _random_images(self) -> ResidentImages:
        generator = torch.Generator(self.device).manual_seed(0)
        count, device = self._num_images, self.device
        images = torch.randint(256, (count, *self._shape), generator=generator, dtype=torch.uint8, device=device)
        labels = torch.randint(self._num_classes, (count,), generator=generator, device=device)
        return ResidentImages(images, labels, self._num_classes)


@dataclass(frozen=True)
class Trial:
    """One training from fresh weights: what it took and what it reached on the whole test split."""

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
        """The trial that :func:`time_to_accuracy` has logged."""
        return cls(**{name: line[name] for name in cls.__dataclass_fields__})

    @property
    def seconds(self) -> float:
        """All that is timed."""
        return self.prepare_seconds + self.train_seconds


@dataclass(frozen=True)
class Summary:
    """The trials of one contestant.

    Attributes:
        accuracy, seconds: number, mean, spread of single trials, and the 95 % interval of the mean.
        reached: whether the mean accuracy is at or above the target.
        p: how probable so high a mean would be if the true one only just were the target (one-sided t-test); None for
            one trial.
    """

    name: str
    accuracy: Figures
    seconds: Figures
    target: float
    reached: bool
    p: float | None


def run_trial(name: str, speedrun: Speedrun, test: ImageDataset, seed: int, tta: str | None = None) -> Trial:
    """One trial of a contestant that is built."""
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
    target: float,
    seeds: Iterable[int],
    log: Callable[[Mapping[str, object]], None],
    tta: str | None = None,
    commit: str | None = None,
    enough: Callable[[], bool] = lambda: False,
) -> dict[str, list[Trial]]:
    """Trials of all contestants side by side: each seed is a round, and each round begins with the next of them, so
    that a machine that warms up or slows down favours none.

    Args:
        contestants: built, by name.
        test: the whole test split.
        target: accuracy, 0...1.
        log: takes each trial as a JSON object, with all that it takes to repeat it.
        tta: views averaged when scoring; None for each recipe's own.
        commit: of the code, where the caller knows it.
        enough: asked before each round but the first; when it says so, no other begins.
    """
    names = list(contestants)
    trials: dict[str, list[Trial]] = {name: [] for name in names}
    code = {"versions": installed_versions(), "commit": commit}
    of = {name: {**speedrun.facts(), **code} for name, speedrun in contestants.items()}
    for number, seed in enumerate(seeds):
        if number and enough():
            break
        first = number % len(names)
        for name in (*names[first:], *names[:first]):
            trial = run_trial(name, contestants[name], test, seed, tta)
            trials[name].append(trial)
            log({"kind": "trial", **asdict(trial), "target": target, "n": len(trials[name]), **of[name]})
    return trials


def summarize(name: str, trials: Sequence[Trial], target: float) -> Summary:
    """What the trials of one contestant, one or more, come to."""
    accuracies, seconds = [trial.accuracy for trial in trials], [trial.seconds for trial in trials]
    reached = fmean(accuracies) >= target
    return Summary(name, describe(accuracies), describe(seconds), target, reached, p_above(accuracies, target))
