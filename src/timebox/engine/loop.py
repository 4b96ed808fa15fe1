"""The training loop."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from itertools import count
from math import isfinite, nan

from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from timebox.clock import Deadline
from timebox.data.loader import Batch, DeviceLoader
from timebox.engine.finished import FinishedWork
from timebox.engine.pacing import Pacer
from timebox.engine.precision import Precision
from timebox.engine.reporting import Reporter, StepStatus
from timebox.errors import TimeboxError
from timebox.optim import WeightAverage, lr_at, momentum_at, set_rates, sgd
from timebox.recipe import Recipe

# How many losses in a row may be infinite or NaN. fp16 overflows now and then and recovers; the others do not.
NON_FINITE_ALLOWED = {"fp32": 0, "bf16": 0, "fp16": 50}


@dataclass(frozen=True)
class Step:
    """Where one step stands: what metrics.jsonl records of it, besides its loss."""

    step: int
    epoch: float
    progress: float
    lr: float
    momentum: float


@dataclass(frozen=True)
class Trained:
    """The outcome: the averaged model, and how it came about. ``seconds`` are spent in steps, validation left out."""

    model: nn.Module
    num_steps: int
    epochs: float
    seconds: float
    images_per_second: float
    final_lr: float


def train_model(
    model: nn.Module,
    loader: DeviceLoader,
    recipe: Recipe,
    pacer: Pacer,
    precision: Precision,
    deadline: Deadline,
    validate: Callable[[nn.Module], float] | None,
    validate_at: list[float],
    log: Callable[[Mapping[str, object]], None],
    reporter: Reporter,
) -> Trained:
    """Train until the pacer says that the schedule is at its end.

    Args:
        model: on the loader's device, in training mode; changed in place.
        validate: gives the accuracy of a model; called once progress passes each of ``validate_at``, rising in 0...1.
        log: takes each finished step and each validation as a flat mapping.
    Raises:
        TimeboxError: when the loss stops being a finite number, naming the step.
    """
    optimizer = sgd(
        model,
        lr=recipe.max_lr,
        momentum=recipe.max_momentum,
        weight_decay=recipe.weight_decay,
        bias_lr_multiplier=recipe.bias_lr_multiplier,
    )
    average = WeightAverage(model, recipe.averaging_span)
    watch = Watch(loader, recipe, pacer, precision, deadline, log, reporter)
    due = list(validate_at) if validate else []
    progress = 0.0
    for number in count():
        target = pacer.next(watch.num_pending)
        if target is None:
            break
        advance, progress = target - progress, target
        lr, momentum = rates_at(recipe, progress)
        set_rates(optimizer, lr, momentum)
        loss = training_step(model, optimizer, loader.batch(number), precision, recipe.label_smoothing)
        average.update(advance)
        watch.issued(Step(number + 1, (number + 1) * loader.batch_size / len(loader), progress, lr, momentum), loss)
        if validate and due and progress >= due[0]:
            due = [moment for moment in due if moment > progress]
            watch.validated(number + 1, progress, lambda: validate(average.model))
    _check_finite(average.model)
    return watch.trained(average.model)


def training_step(
    model: nn.Module, optimizer: Optimizer, batch: Batch, precision: Precision, label_smoothing: float
) -> Tensor:
    """One step: forward, loss, backward, update. Returns the loss, detached, on the device."""
    with precision.autocast():
        logits = model(batch.images)
    loss = F.cross_entropy(logits.float(), batch.labels, label_smoothing=label_smoothing)
    precision.backward(loss)
    precision.step(optimizer)
    optimizer.zero_grad(set_to_none=True)
    return loss.detach()


def _check_finite(model: nn.Module) -> None:
    """The last update, and overflows that fp16 is allowed, show in no loss; they show in the weights."""
    if not all(bool(tensor.isfinite().all()) for tensor in model.state_dict().values()):
        raise TimeboxError(
            "the weights are not finite numbers at the end of the training; lower the rate with --set max_lr=VALUE, or "
            "use --precision fp32"
        )


def rates_at(recipe: Recipe, progress: float) -> tuple[float, float]:
    """The recipe's learning rate and momentum at a progress of 0...1."""
    shape = {"peak_at": recipe.peak_at, "down_at": recipe.down_at}
    lr = lr_at(
        progress,
        recipe.policy,
        max_lr=recipe.max_lr,
        start_fraction=recipe.start_fraction,
        end_fraction=recipe.end_fraction,
        num_cycles=recipe.num_cycles,
        **shape,
    )
    momentum = momentum_at(
        progress,
        recipe.policy,
        max_momentum=recipe.max_momentum,
        min_momentum=recipe.min_momentum,
        num_cycles=recipe.num_cycles,
        **shape,
    )
    return lr, momentum


class Watch:
    """Keeps the books of a training: finished steps, speed, validations, and what is told to the outside."""

    def __init__(
        self,
        loader: DeviceLoader,
        recipe: Recipe,
        pacer: Pacer,
        precision: Precision,
        deadline: Deadline,
        log: Callable[[Mapping[str, object]], None],
        reporter: Reporter,
    ) -> None:
        self._batch_size = recipe.batch_size
        self._pacer, self._deadline, self._log, self._reporter = pacer, deadline, log, reporter
        self._finished: FinishedWork[Step] = FinishedWork(loader.labels.device)
        self._max_non_finite = NON_FINITE_ALLOWED[precision.name]
        self._non_finite = 0
        self._num_finished = 0
        self._last: Step | None = None
        self._loss = nan
        self._val_accuracy: float | None = None
        self._started = deadline.elapsed()
        self._paused_seconds = 0.0

    @property
    def num_pending(self) -> int:
        """Steps issued and not yet known to be finished."""
        return self._finished.num_pending

    def issued(self, step: Step, loss: Tensor) -> None:
        """Take note of a step just issued, and of those that have finished meanwhile."""
        self._finished.push(step, loss)
        self._last = step
        self._settle(drain=False)
        remaining = self._deadline.remaining()
        self._reporter.step(
            StepStatus(
                step=step.step,
                total_steps=step.step + self._pacer.steps_left,
                epoch=step.epoch,
                progress=step.progress,
                loss=self._loss,
                lr=step.lr,
                momentum=step.momentum,
                images_per_second=self._images_per_second(),
                seconds_left=None if remaining == float("inf") else remaining,
                val_accuracy=self._val_accuracy,
            )
        )

    def validated(self, step: int, progress: float, measure: Callable[[], float]) -> None:
        """Measure validation accuracy, in a phase of its own that does not count as training time."""
        self._settle(drain=True)
        before = self._deadline.elapsed()
        with self._deadline.phase("validating"):
            self._val_accuracy = measure()
        self._paused_seconds += self._deadline.elapsed() - before
        self._pacer.paused()
        self._log({"step": step, "progress": progress, "val_accuracy": self._val_accuracy})

    def trained(self, model: nn.Module) -> Trained:
        """The books, closed: waits for the last step."""
        self._settle(drain=True)
        assert self._last is not None
        return Trained(
            model=model,
            num_steps=self._last.step,
            epochs=self._last.epoch,
            seconds=self._seconds(),
            images_per_second=self._images_per_second(),
            final_lr=self._last.lr,
        )

    def _seconds(self) -> float:
        return self._deadline.elapsed() - self._started - self._paused_seconds

    def _images_per_second(self) -> float:
        return self._num_finished * self._batch_size / max(self._seconds(), 1e-9)

    def _settle(self, drain: bool) -> None:
        arrived = self._finished.poll(drain)
        self._pacer.finished(len(arrived))
        for step, loss in arrived:
            self._num_finished += 1
            self._loss = loss
            self._non_finite = 0 if isfinite(loss) else self._non_finite + 1
            if self._non_finite > self._max_non_finite:
                raise TimeboxError(
                    f"the loss became {loss} at step {step.step}, at learning rate {step.lr:.3g}; "
                    f"lower the rate, for example with --set max_lr={step.lr / 4:.2g}"
                )
            self._log({**asdict(step), "loss": loss if isfinite(loss) else None})
