"""The speed of whole networks on the data at hand, before any of them is trained."""

from collections.abc import Callable, Sequence

import torch
from torch import nn

from timebox.builders import build_model
from timebox.clock import now
from timebox.data.dataset import ImageDataset
from timebox.data.device.loader import Batch
from timebox.evaluation.inference import evaluation_mode
from timebox.models import count_flops
from timebox.optim.loss import Loss
from timebox.recipe import Recipe, get_recipe
from timebox.runtime.precision import Precision
from timebox.runtime.timing import fastest_seconds, synchronize
from timebox.training.graphed_step import build_step_runner
from timebox.training.schedule import StepPlan
from timebox.training.state import TrainingState
from timebox.training.step import EagerStepRunner, StepRunner

# Two networks stand for all widths when speed is measured before one is chosen. A GPU is idle most of the time with a
# narrower network or with fewer images, and in what it has time for the networks are wide.
PROBE_RECIPE = get_recipe("airbench94").replace(batch_size=128)
NARROW_PROBE = {"cpu": PROBE_RECIPE.replace(width=16), "cuda": PROBE_RECIPE.replace(batch_size=1024)}
WIDE_PROBE = {"cpu": PROBE_RECIPE, "cuda": PROBE_RECIPE.replace(width=256, batch_size=256)}
# A CPU runs small batches as fast as large ones. A GPU does not: there the recipe's own is measured.
MAX_BATCH_SIZE = 128
# The first batch measured makes up so many operations, a twentieth of a second on a slow device.
FIRST_FLOPS = {"cpu": 5e9, "cuda": 3e12}
# A GPU must be kept busy to show how fast it scores.
SCORED_AT_ONCE = {"cpu": 16, "cuda": 256}
# The fields that decide how long an image takes in one network.
NETWORK_FIELDS = (
    "model",
    "width",
    "input_scale",
    "blur_pool",
    "whitening",
    "celu_alpha",
    "ghost_size",
    "optimizer",
    "batch_size",
)
# The fastest of a few repeats is measured; over a whole training the mean counts, and batches are prepared besides.
FROM_FASTEST_TO_MEAN = 1.1


class ThroughputBenchmark:
    """Measures networks on the data's image shape, on one device, in one precision.

    Args:
        limit_seconds: about what measuring one network may take.
        recorded: whether steps are recorded on a GPU, as they are where one process trains alone.

    Attributes:
        recording_seconds: what the network measured last needs before its first step on images of a size; 0 on a CPU.
    """

    def __init__(
        self,
        train: ImageDataset,
        device: torch.device,
        precision: str,
        limit_seconds: float,
        recorded: bool = True,
    ) -> None:
        self._recorded = recorded
        height, width, channels = train.image_shape
        self.image_shape = (channels, height, width)
        self.num_classes = train.num_classes
        self.device, self.precision = device, precision
        self.limit_seconds = limit_seconds
        self.recording_seconds = 0.0
        self._measured: dict[tuple[object, ...], float] = {}
        self._flops: dict[tuple[object, ...], float] = {}

    def seconds_by_work(self, narrow: Recipe, wide: Recipe) -> Callable[[Recipe], float]:
        """Seconds per training image of recipes like these two, on a straight line through their networks: something
        for each image whatever the network, and the rest by its operations."""
        few, many = self.flops_per_image(narrow), self.flops_per_image(wide)
        short, long = self.training_seconds_per_image(narrow), self.training_seconds_per_image(wide)
        # Where a reading was disturbed, time is taken to go with the operations alone.
        plausible = few < many and long * few / many < short < long
        slope = (long - short) / (many - few) if plausible else long / many
        offset = long - slope * many if plausible else 0.0
        return lambda recipe: self.flops_per_image(recipe) * slope + recipe.ensemble_size * offset

    def flops_per_image(self, recipe: Recipe) -> float:
        """Operations of the recipe's networks per training image; one of them is built where that has not been done."""
        network = _network(recipe)
        if network not in self._flops:
            self._flops[network] = count_flops(self._build(recipe.replace(ensemble_size=1)), self.image_shape)
        return recipe.ensemble_size * self._flops[network]

    def num_bytes(self, recipe: Recipe) -> int:
        """Of the weights of the recipe's networks that are learnt, in float32."""
        with torch.device("meta"):
            network = build_model(recipe.replace(ensemble_size=1), self.image_shape[0], self.num_classes)
        return recipe.ensemble_size * sum(4 * weight.numel() for weight in network.parameters() if weight.requires_grad)

    def training_seconds_per_image(self, recipe: Recipe) -> float:
        """Seconds per image of training the recipe's own networks, one of which is measured where that has not been
        done yet."""
        measured = self._measured.get(_work(recipe))
        return self.remeasure(recipe) if measured is None else recipe.ensemble_size * measured

    def remeasure(self, recipe: Recipe) -> float:
        """The same, measured now. The least that was ever found with these threads counts: what disturbs a measurement
        only adds to it."""
        seconds, work = (
            FROM_FASTEST_TO_MEAN * self.fastest_seconds_per_image(recipe.replace(ensemble_size=1)),
            _work(recipe),
        )
        self._measured[work] = min(seconds, self._measured.get(work, seconds))
        return recipe.ensemble_size * self._measured[work]

    def scoring_seconds_per_image(self, recipe: Recipe) -> float:
        """Seconds per image of scoring with it, in one view and in float32."""
        model = self._build(recipe)
        images = self._images(SCORED_AT_ONCE[self.device.type])
        with evaluation_mode(model):
            return fastest_seconds(lambda: model(images), self.device, limit_seconds=0.1, max_repeats=3) / len(images)

    def fastest_seconds_per_image(self, recipe: Recipe) -> float:
        """Seconds per image of training steps on random images, in batches of the recipe's size, at their fastest.

        Starts with little work, so that a network far too large for this machine is known as such in time, and grows
        the batch towards the recipe's, four times or else twice, while the limit allows. On a GPU it takes the recipe's
        own next, if there is time: for each new size kernels are chosen and steps recorded, which is what takes long.
        """
        state = TrainingState(self._build(recipe).train(), recipe, Precision(self.precision, self.device))
        loss = Loss(recipe.label_smoothing)
        runner: StepRunner = EagerStepRunner(state, loss)
        if self._recorded:
            runner = build_step_runner(state, loss, notify=lambda text: None)

        def step() -> None:
            runner.run(batch, StepPlan(1.0, 1e-6 * recipe.max_lr, recipe.max_momentum, size))

        largest = recipe.batch_size if self.device.type == "cuda" else min(MAX_BATCH_SIZE, recipe.batch_size)
        first = int(FIRST_FLOPS[self.device.type] / self.flops_per_image(recipe))
        largest, started = max(4, largest), now()
        size = largest if 2 * first > largest else max(4, first)
        update_in_images = state.optimizer.flops_per_step / self.flops_per_image(recipe)
        measured: list[tuple[int, float]] = []
        while True:
            batch = Batch(self._images(size), torch.arange(size, device=self.device) % self.num_classes)
            if self.device.type == "cuda":
                before = now()
                step()
                synchronize(self.device)
                self.recording_seconds = now() - before
            seconds = fastest_seconds(step, self.device, limit_seconds=self.limit_seconds / 4, max_repeats=3)
            measured.append((size, seconds))
            # Each size is run twice.
            affordable = (self.limit_seconds - (now() - started)) / 2
            at_once = [largest] if self.device.type == "cuda" else []
            growing = [*at_once, *(min(times * size, largest) for times in (4, 2))]
            fitting = [n for n in growing if seconds * (n + update_in_images) < affordable * (size + update_in_images)]
            if size == largest or not fitting:
                return seconds_per_image(measured, recipe.batch_size, update_in_images)
            size = fitting[0]

    def _images(self, num_images: int) -> torch.Tensor:
        return torch.rand(num_images, *self.image_shape, device=self.device).to(memory_format=torch.channels_last)

    def _build(self, recipe: Recipe) -> nn.Module:
        """The recipe's network for this data, with weights that do not touch the run's random state."""
        with torch.random.fork_rng(devices=[]):
            return build_model(recipe, self.image_shape[0], self.num_classes).to(self.device)


def seconds_per_image(measured: Sequence[tuple[int, float]], batch_size: int, update_in_images: float) -> float:
    """Seconds per image in batches of ``batch_size``, from the (size, seconds) of steps on smaller ones, in order.

    A step takes something whatever its batch, as Muon does, and the rest by the image.

    Args:
        update_in_images: as many images take the operations of an update; with a single reading, its time too.
    """
    size, seconds = measured[-1]
    if batch_size <= size:
        return seconds / size
    shorter = [(few, short) for few, short in measured if few <= size / 2]
    if not shorter:
        return seconds / (size + update_in_images) * (1 + update_in_images / batch_size)
    few, short = shorter[-1]
    # However badly the small batch was timed, no more than half is taken for what a step takes anyway.
    slope = min(1.0, max(0.5, (seconds - short) / (size - few) * size / seconds)) * seconds / size
    return slope + (seconds - slope * size) / batch_size


def _network(recipe: Recipe) -> tuple[object, ...]:
    return tuple(getattr(recipe, field) for field in NETWORK_FIELDS)


def _work(recipe: Recipe) -> tuple[object, ...]:
    return (*_network(recipe), torch.get_num_threads())
