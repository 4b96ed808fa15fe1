"""Throughput benchmark: seconds per image of training and scoring with a recipe, on this device and data shape."""

from collections.abc import Callable, Sequence

import torch
from torch import nn

from timebox.builders import build_loss, build_model, build_resizing
from timebox.clock import now
from timebox.custom import is_code
from timebox.data.dataset import ImageDataset
from timebox.data.device.loader import Batch
from timebox.evaluation.inference import evaluation_mode
from timebox.models import count_flops
from timebox.planning.throughput.cache import ThroughputCache
from timebox.recipes import Recipe, get_recipe
from timebox.runtime.precision import Precision
from timebox.runtime.timing import fastest_seconds, synchronize
from timebox.training.graphed_step import build_step_runner
from timebox.training.schedule import StepPlan
from timebox.training.state import TrainingState
from timebox.training.step import EagerStepRunner, StepRunner

# Two probe networks from which the speed of all widths is estimated before one is selected. On a GPU they are wider and
# have larger batches: narrower ones leave it idle most of the time, and the networks selected there are wide.
PROBE_RECIPE = get_recipe("airbench94").replace(batch_size=128)
NARROW_PROBE = {"cpu": PROBE_RECIPE.replace(width=16), "cuda": PROBE_RECIPE.replace(batch_size=1024)}
WIDE_PROBE = {"cpu": PROBE_RECIPE, "cuda": PROBE_RECIPE.replace(width=256, batch_size=256)}
# Largest batch measured on a CPU, whose time per image hardly changes beyond; a GPU measures up to the recipe's batch.
MAX_BATCH_SIZE = 128
# Operations of the first batch measured: a twentieth of a second on a slow device.
FIRST_FLOPS = {"cpu": 5e9, "cuda": 3e12}
# Images per batch when scoring is measured; a GPU must be kept busy.
SCORING_BATCH_SIZE = {"cpu": 16, "cuda": 256}
# Fields that affect the training time per image of one network.
NETWORK_FIELDS = (
    "model", "width", "input_scale", "blur_pool", "whitening", "celu_alpha", "ghost_size", "optimizer", "batch_size",
)  # fmt: skip
# Mean time of a training step, with its batch prepared, relative to the fastest of the few steps measured.
MEAN_OVER_FASTEST = 1.1


class ThroughputBenchmark:
    """Measures networks on random images of the data's shape, on one device, in one precision.

    Args:
        limit_seconds: approximate time for measuring one network.
        use_cuda_graphs: whether a GPU runs training steps as CUDA graphs, as it does for a single process.
        cache: measurements of earlier runs, used where they hold.

    Attributes:
        recording_seconds: time that the network measured last needs before its first step on images of a new size
            (selection of kernels, recording of the CUDA graph); 0 on a CPU.
        seconds_per_rank: seconds per training image of each rank alone in the latest measurement; empty for a single
            process.
    """

    def __init__(
        self,
        train: ImageDataset,
        device: torch.device,
        precision: str,
        limit_seconds: float,
        use_cuda_graphs: bool = True,
        cache: ThroughputCache | None = None,
    ) -> None:
        self._cache = cache or ThroughputCache(None)
        self._use_cuda_graphs = use_cuda_graphs
        height, width, channels = train.image_shape
        self.image_shape = (channels, height, width)
        self.num_classes = train.num_classes
        self.device, self.precision = device, precision
        self.limit_seconds = limit_seconds
        self.recording_seconds = 0.0
        self.seconds_per_rank: Sequence[float] = ()
        self._measured: dict[tuple[object, ...], float] = {}
        self._flops: dict[tuple[object, ...], float] = {}

    def seconds_by_work(self, narrow: Recipe, wide: Recipe) -> Callable[[Recipe], float]:
        """An estimate of the seconds per training image of a recipe: linear in its operations, through two recipes."""
        few, many = self.flops_per_image(narrow), self.flops_per_image(wide)
        short, long = self.training_seconds_per_image(narrow), self.training_seconds_per_image(wide)
        # After a disturbed measurement, time is assumed proportional to the operations.
        plausible = few < many and long * few / many < short < long
        slope = (long - short) / (many - few) if plausible else long / many
        offset = long - slope * many if plausible else 0.0
        return lambda recipe: self.flops_per_image(recipe) * slope + recipe.ensemble_size * offset

    def flops_per_image(self, recipe: Recipe) -> float:
        """Floating-point operations per training image, of all networks of a recipe."""
        network = _network(recipe)
        if network not in self._flops:
            self._flops[network] = count_flops(self._build(recipe.replace(ensemble_size=1)), self.image_shape)
        return recipe.ensemble_size * self._flops[network]

    def num_bytes(self, recipe: Recipe) -> int:
        """Size of the trained float32 weights of all networks of a recipe."""
        with torch.device("meta"):
            network = self._network(recipe.replace(ensemble_size=1))
        is_own = is_code(recipe.model)  # may have layers that are not trained, and are saved all the same
        weights = [weight for weight in network.parameters() if is_own or weight.requires_grad]
        return recipe.ensemble_size * sum(4 * weight.numel() for weight in weights)

    def training_seconds_per_image(self, recipe: Recipe) -> float:
        """Seconds per training image of all networks of a recipe, as known, else measured on one network."""
        known = self.known_seconds_per_image(recipe)
        return self.remeasure(recipe) if known is None else known

    def known_seconds_per_image(self, recipe: Recipe) -> float | None:
        """The same with this thread count, measured before or cached; None where it is neither."""
        seconds = self._measured.get(_work(recipe)) or self._cache.seconds(self.cache_key(recipe))
        return None if seconds is None else recipe.ensemble_size * seconds

    def is_cached(self, recipe: Recipe) -> bool:
        """Whether the cache holds the speed of a recipe with this thread count."""
        return self._cache.seconds(self.cache_key(recipe)) is not None

    def cached_or_remeasured(self, recipe: Recipe) -> float:
        """As cached, where the cache holds it; else measured again."""
        cached = self._cache.seconds(self.cache_key(recipe))
        return self.remeasure(recipe) if cached is None else recipe.ensemble_size * cached

    def remeasure(self, recipe: Recipe, is_kept: bool = True) -> float:
        """Measure again; returns the shortest time so far with this thread count, as other load only adds time.

        Args:
            is_kept: whether later runs may use the time.
        """
        work = _work(recipe)
        seconds = MEAN_OVER_FASTEST * self.fastest_seconds_per_image(recipe.replace(ensemble_size=1))
        self._measured[work] = min(seconds, self._measured.get(work, seconds))
        if is_kept:
            self._cache.record(self.cache_key(recipe), self._measured[work])
        return recipe.ensemble_size * self._measured[work]

    def cache_key(self, recipe: Recipe) -> str:
        """The network of a recipe, with all that its speed on one machine depends on."""
        return f"{self.precision} {self.network_key(recipe)}"

    def network_key(self, recipe: Recipe) -> str:
        """The same in any precision."""
        channels, *size = self.image_shape
        height, width = build_resizing(recipe).input_size(*size)
        return f"{channels}x{height}x{width} {' '.join(map(str, _work(recipe)))}"

    def scoring_seconds_per_image(self, recipe: Recipe) -> float:
        """Seconds per image of inference in float32, for one view."""
        model = self._build(recipe)
        images = self._images(SCORING_BATCH_SIZE[self.device.type], self.image_shape[1:])
        with evaluation_mode(model):
            return fastest_seconds(lambda: model(images), self.device, limit_seconds=0.1, max_repeats=3) / len(images)

    def fastest_seconds_per_image(self, recipe: Recipe) -> float:
        """Seconds per image of the fastest training step on random images, in batches of the recipe's size.

        The first batch is small, so that a network far too large for this machine is noticed in time. Then the batch
        grows by a factor of four, or else two, up to the recipe's, while the time limit allows. A GPU continues with
        the recipe's batch, if there is time: most of the time goes into kernel selection and graph recording, once for
        each batch size.
        """
        state = TrainingState(self._build(recipe).train(), recipe, Precision(self.precision, self.device))
        loss = build_loss(recipe, None)
        runner: StepRunner = EagerStepRunner(state, loss)
        if self._use_cuda_graphs:
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
            images = self._images(size, build_resizing(recipe).input_size(*self.image_shape[1:]))
            batch = Batch(images, torch.arange(size, device=self.device) % self.num_classes)
            if self.device.type == "cuda":
                before = now()
                step()
                synchronize(self.device)
                self.recording_seconds = now() - before
            seconds = fastest_seconds(step, self.device, limit_seconds=self.limit_seconds / 4, max_repeats=3)
            measured.append((size, seconds))
            # Every batch size is run at least twice.
            affordable = (self.limit_seconds - (now() - started)) / 2
            at_once = [largest] if self.device.type == "cuda" else []
            growing = [*at_once, *(min(times * size, largest) for times in (4, 2))]
            fitting = [n for n in growing if seconds * (n + update_in_images) < affordable * (size + update_in_images)]
            if size == largest or not fitting:
                return seconds_per_image(measured, recipe.batch_size, update_in_images)
            size = fitting[0]

    def _images(self, num_images: int, size: tuple[int, int]) -> torch.Tensor:
        shape = (num_images, self.image_shape[0], *size)
        return torch.rand(shape, device=self.device).to(memory_format=torch.channels_last)

    def _build(self, recipe: Recipe) -> nn.Module:
        """The recipe's network for this data; leaves torch's random state unchanged."""
        with torch.random.fork_rng(devices=[]):
            return self._network(recipe).to(self.device)

    def _network(self, recipe: Recipe) -> nn.Module:
        channels, height, width = self.image_shape
        return build_model(recipe, channels, self.num_classes, (height, width))


def seconds_per_image(measured: Sequence[tuple[int, float]], batch_size: int, update_in_images: float) -> float:
    """Extrapolate seconds per image to batches of ``batch_size``, from steps on smaller batches.

    A step takes a constant time, in which Muon updates the weights, and a time proportional to the batch size.

    Args:
        measured: (batch size, seconds of a step), in increasing order of the batch size.
        update_in_images: operations of one weight update, as a multiple of those of one image. With a single
            measurement the step's time is divided between update and images by these operations.
    """
    size, seconds = measured[-1]
    if batch_size <= size:
        return seconds / size
    shorter = [(few, short) for few, short in measured if few <= size / 2]
    if not shorter:
        return seconds / (size + update_in_images) * (1 + update_in_images / batch_size)
    few, short = shorter[-1]
    # Even if the small batch was badly timed, at most half of a step is taken to be constant.
    slope = min(1.0, max(0.5, (seconds - short) / (size - few) * size / seconds)) * seconds / size
    return slope + (seconds - slope * size) / batch_size


def _network(recipe: Recipe) -> tuple[object, ...]:
    return tuple(getattr(recipe, field) for field in NETWORK_FIELDS)


def _work(recipe: Recipe) -> tuple[object, ...]:
    return (*_network(recipe), torch.get_num_threads())
