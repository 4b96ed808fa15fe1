"""One training with its data: building it, training it, scoring it, and putting the outcome into words."""

import platform
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from timebox.clock import Deadline
from timebox.data import Division, ImageDataset, LoadedData, stratified_order
from timebox.data.augment import batch_normalize
from timebox.data.loader import Augmentation, DeviceLoader
from timebox.engine.build import build_model
from timebox.engine.loop import Trained, train_model
from timebox.engine.pacing import ClockPacer, Pacer, StepPacer
from timebox.engine.plan import Plan
from timebox.engine.precision import Precision
from timebox.engine.reporting import Reporter
from timebox.engine.scoring import accuracy, predict_probabilities
from timebox.models import fit_whitening
from timebox.run.directory import RunWriter
from timebox.run.request import Request
from timebox.run.run import FORMAT
from timebox.version import VERSION

# Pixels whose patches decide the whitening filters: a million patches settle a few dozen variances, in 100 MB.
NUM_WHITENING_PIXELS = 2**20


@dataclass(frozen=True)
class Score:
    """The first part of a split, in stratified order, and what the model says of it."""

    split: str
    dataset: ImageDataset
    probabilities: NDArray[np.float32]
    num_total: int

    @property
    def accuracy(self) -> float:
        """Share of the scored images that are right."""
        return accuracy(self.probabilities, self.dataset.labels)


@dataclass(frozen=True, eq=False)
class Task:
    """One training: the request, its plan, its data and their statistics (mean, std: float32 (C,))."""

    request: Request
    plan: Plan
    division: Division
    mean: torch.Tensor
    std: torch.Tensor

    def train(self, writer: RunWriter, deadline: Deadline, reporter: Reporter) -> Trained:
        """Build the network and train it to the end of its schedule."""
        plan, recipe, data = self.plan, self.plan.recipe, self.division.train
        # Weights are drawn on the CPU, whatever device trains; no other generator is touched.
        torch.default_generator.manual_seed(self.request.seed)
        model = build_model(recipe, data.image_shape[2], data.num_classes).to(plan.device).train()
        height, width, _ = data.image_shape
        every = max(1, len(data) * height * width // NUM_WHITENING_PIXELS)
        sample = torch.from_numpy(data.images[::every]).to(plan.device)
        fit_whitening(model, batch_normalize(sample, self.mean.to(plan.device), self.std.to(plan.device)))
        augmentation = Augmentation(recipe.crop_padding, recipe.flip, recipe.cutout_size)
        loader = DeviceLoader(
            data, recipe.batch_size, self.mean, self.std, augmentation, self.request.seed, plan.device
        )
        return train_model(
            model,
            loader,
            recipe,
            self._pacer(deadline),
            Precision(plan.precision, plan.device),
            deadline,
            self._validator(),
            plan.validate_at,
            writer.log,
            reporter,
        )

    def score(self, trained: Trained, deadline: Deadline) -> list[Score]:
        """Score validation and test images, as many as the time set aside allows, each split getting its share."""
        splits = [("val", self.division.val), ("test", self.division.test)]
        present = [(name, dataset) for name, dataset in splits if dataset is not None]
        scoring_ends = min(
            deadline.elapsed() + self.plan.scoring_seconds,
            deadline.elapsed() + deadline.remaining() - self.plan.finish_seconds,
        )
        scores = []
        for position, (name, dataset) in enumerate(present):
            to_come = sum(len(later) for _, later in present[position:])
            seconds = (scoring_ends - deadline.elapsed()) * len(dataset) / to_come
            scores.append(self._scored(name, dataset, trained.model, deadline, deadline.elapsed() + seconds))
        return scores

    def _scored(self, name: str, dataset: ImageDataset, model: nn.Module, deadline: Deadline, until: float) -> Score:
        """Score images in an order whose every beginning is stratified, until ``until`` seconds have elapsed."""
        ordered = self._ordered(dataset)
        probabilities = predict_probabilities(
            model,
            ordered.images,
            self.mean,
            self.std,
            tta=self.plan.recipe.tta,
            device=self.plan.device,
            stop=Until(deadline, until),
        )
        return Score(name, ordered.take(np.arange(len(probabilities))), probabilities, len(dataset))

    def config(self) -> dict[str, object]:
        """model.json: all that is needed to rebuild the model, and to find its held-out images again."""
        request = self.request
        return {
            "format": FORMAT,
            "class_names": list(self.division.train.class_names),
            "preprocessing": {
                "image_shape": list(self.division.train.image_shape),
                "mean": self.mean.tolist(),
                "std": self.std.tolist(),
                "resize": "shorter side scaled to the working size, centre cropped",
            },
            "recipe": self.plan.recipe.as_dict(),
            "source": request.source.as_dict(),
            "seed": request.seed,
            "versions": versions(),
        }

    def summary(
        self, loaded: LoadedData, trained: Trained, scores: list[Score], deadline: Deadline
    ) -> dict[str, object]:
        """summary.json: what was reached, with what, and where the time went."""
        by_split = {score.split: score for score in scores}
        plan, request = self.plan, self.request
        return {
            **{f"{split}_accuracy": _accuracy_of(by_split.get(split)) for split in ("val", "test")},
            **{f"{split}_images": _count(by_split.get(split)) for split in ("val", "test")},
            **{f"{split}_images_total": _total(by_split.get(split)) for split in ("val", "test")},
            "tta": plan.recipe.tta,
            "late": deadline.late,
            "budget_seconds": deadline.budget_seconds,
            "elapsed_seconds": round(deadline.elapsed(), 3),
            "download_seconds": round(loaded.download_seconds, 3),
            "phases": {name: round(seconds, 3) for name, seconds in deadline.phases_so_far().items()},
            "steps": trained.num_steps,
            "epochs": round(trained.epochs, 3),
            "images_per_second": round(trained.images_per_second, 1),
            "final_lr": trained.final_lr,
            "train_images": len(self.division.train),
            "num_classes": self.division.train.num_classes,
            "data": {"name": loaded.name, "format": loaded.format},
            "device": _device_name(plan.device),
            "threads": torch.get_num_threads(),
            "precision": plan.precision,
            "seed": request.seed,
            "source": request.source.as_dict(),
            "recipe": plan.recipe.as_dict(),
            "plan": list(plan.lines),
            "notes": list(loaded.notes),
            "bad_files": [{"path": bad.path, "reason": bad.reason} for bad in loaded.bad_files],
            "versions": versions(),
        }

    def _pacer(self, deadline: Deadline) -> Pacer:
        if self.plan.num_steps is not None:
            return StepPacer(self.plan.num_steps)
        kept = self.plan.scoring_seconds + self.plan.finish_seconds
        return ClockPacer(lambda: deadline.remaining() - kept, self.plan.step_seconds, deadline.elapsed)

    def _validator(self) -> "Validator | None":
        if self.division.val is None or not self.plan.num_val_images:
            return None
        dataset = self._ordered(self.division.val).take(np.arange(self.plan.num_val_images))
        return Validator(dataset, self.mean, self.std, self.plan.device)

    def _ordered(self, dataset: ImageDataset) -> ImageDataset:
        """In an order whose every beginning is stratified, so that scoring may stop anywhere."""
        return dataset.take(stratified_order(dataset.labels, self.request.source.split_seed))


class Until:
    """Says when to stop: when work like the longest piece so far would last beyond ``until``, in seconds elapsed."""

    def __init__(self, deadline: Deadline, until: float) -> None:
        self._deadline, self._until = deadline, until
        self._last, self._longest = deadline.elapsed(), 0.0

    def __call__(self) -> bool:
        moment = self._deadline.elapsed()
        self._longest = max(self._longest, moment - self._last)
        self._last = moment
        return moment + self._longest > self._until


@dataclass(frozen=True, eq=False)
class Validator:
    """Measures the accuracy of a model on some validation images, in one view."""

    dataset: ImageDataset
    mean: torch.Tensor
    std: torch.Tensor
    device: torch.device

    def __call__(self, model: nn.Module) -> float:
        probabilities = predict_probabilities(
            model, self.dataset.images, self.mean, self.std, tta="none", device=self.device
        )
        return accuracy(probabilities, self.dataset.labels)


def versions() -> dict[str, str]:
    """Versions of what computes."""
    return {
        "timebox": VERSION,
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def prediction_columns(scores: list[Score]) -> dict[str, NDArray[np.generic]]:
    return {
        "split": np.concatenate([np.full(len(score.dataset), score.split) for score in scores]),
        "id": np.array([name for score in scores for name in score.dataset.ids]),
        "label": np.concatenate([score.dataset.labels for score in scores]),
        "probabilities": np.concatenate([score.probabilities for score in scores]),
    }


def _accuracy_of(score: Score | None) -> float | None:
    return None if score is None else score.accuracy


def _count(score: Score | None) -> int:
    return 0 if score is None else len(score.dataset)


def _total(score: Score | None) -> int:
    return 0 if score is None else score.num_total


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
