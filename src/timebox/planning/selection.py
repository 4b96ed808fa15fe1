"""Selection of recipe, precision and number of threads, by the throughput that networks reach on this machine."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial

import torch

from timebox.builders import build_resizing
from timebox.clock import now
from timebox.data.dataset import ImageDataset
from timebox.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from timebox.planning.auto import auto_recipe
from timebox.planning.batch_size import fit_batch_size, fit_batch_to_processes
from timebox.planning.budget import MIN_STEPS, Budget, ModelCost, ScoringLoad
from timebox.planning.dataset_profile import DatasetProfile, check_crop_padding, fit_to_data, profile_dataset
from timebox.planning.describe import describe_device
from timebox.planning.forecast import DatasetForecaster
from timebox.planning.throughput.benchmark import NARROW_PROBE, WIDE_PROBE, ThroughputBenchmark
from timebox.planning.throughput.cache import ThroughputCache
from timebox.planning.throughput.distributed import build_throughput_benchmark
from timebox.recipes import Recipe, RecipeSpec, parse_recipe
from timebox.runtime.precision import MAX_REPEATS, MIN_RATIO_KEPT, PRECISIONS, resolve_precision
from timebox.runtime.thread_tuner import FREE_SHARE
from timebox.runtime.threads import threads_are_fixed, tune_num_threads

# Time for measuring: a fraction of the budget, within bounds in seconds. Of the six or more networks measured, about
# three are so large that each takes all the time that a measurement may take.
PLANNING_SHARE, MIN_PLANNING_SECONDS, MAX_PLANNING_SECONDS = 0.05, 0.6, 2.0
NUM_LARGE_MEASUREMENTS = 3
# Time for the forecast of the accuracy: a fraction of the budget.
FORECAST_SHARE = 0.015
# Seconds left below which a CPU measures the narrow probe only, in fp32 only.
SHORT_BUDGET_SECONDS = 8.5
# Seconds left from which all is measured that a selection wants to know: these, and the time of MIN_STEPS small
# steps on a very slow machine, of so many FLOP/s.
LONG_BUDGET_SECONDS, SLOW_FLOPS = 30.0, 2e9
# Time limit for the first measurement on a CPU, in seconds; and how many times as long as that one all measurements of
# a plan may take on a busy machine, and those that tune the number of threads.
FIRST_MEASUREMENT_SECONDS, NUM_MEASUREMENTS, NUM_THREAD_MEASUREMENTS = 0.2, 20, 12
# A step that takes so many seconds is fastest with all threads of a free machine: its operations are large, and threads
# wait for each other after each of them only.
LARGE_STEP_SECONDS = 0.05
# A network that takes this many times as long as the probes let expect, or as few: the probes are measured again. The
# selected network is measured too, and where it is as far from what was expected, the selection is made again.
MAX_CORRECTION, MAX_SELECTIONS = 2.0, 3
# Seconds per image of inference, as a share of those of training, where there is no time to measure both.
SCORING_PER_TRAINING = 1 / 3

SecondsPerImage = Callable[[Recipe], float]
SelectRecipe = Callable[[SecondsPerImage], tuple[Recipe, list[str]]]


@dataclass(frozen=True)
class Hardware:
    """The hardware to train on. Planning runs on the main rank of the group.

    Attributes:
        threads: torch's threads before planning tunes their number.
    """

    device: torch.device
    precision: str = "auto"
    group: ProcessGroup = SINGLE_PROCESS
    threads: int = field(default_factory=torch.get_num_threads)

    @property
    def tunable_threads(self) -> int | None:
        """Largest number of threads of a step where the number may change; None where it stays."""
        is_tunable = self.device.type == "cpu" and self.group.size == 1 and not threads_are_fixed()
        return self.threads if is_tunable else None


@dataclass(frozen=True, eq=False)
class PlanRequest:
    """The training to plan; ``recipe`` and ``settings`` as of :func:`parse_recipe`, ``source`` names the data.

    ``uses_cache`` is False where throughput measured by earlier runs must not count, nor be kept for later ones. The
    accuracy of ``auto`` is forecast for the budgets of ``forecast_budgets``, in seconds. ``has_pretrained`` says that
    there is a classifier already: a budget too short to train a network in is not refused then.
    """

    recipe: str
    settings: tuple[str, ...]
    train: ImageDataset
    scoring: ScoringLoad
    hardware: Hardware
    source: str
    uses_cache: bool = True
    forecast_budgets: tuple[float, ...] = ()
    has_pretrained: bool = False

    @cached_property
    def spec(self) -> RecipeSpec:
        return fit_to_data(parse_recipe(self.recipe, self.settings), self.train)

    @property
    def has_forecast(self) -> bool:
        """Whether a forecast is asked for, and known for this recipe: it is fitted to ``auto`` without changes."""
        return bool(self.forecast_budgets) and self.spec.fixed is None and not self.spec.overrides


@dataclass(frozen=True)
class Selection:
    """A recipe, the benchmark that measured it in the precision to train in, and lines that explain both to the user.

    Attributes:
        is_quick: whether there was no time to measure more than one network.
        forecaster: of the accuracy; None where no forecast was asked for, or can be made.
    """

    recipe: Recipe
    benchmark: ThroughputBenchmark
    lines: tuple[str, ...]
    is_quick: bool = False
    forecaster: DatasetForecaster | None = None


@dataclass(frozen=True)
class QuickEstimate:
    """A first measurement of the training speed, of a recipe that was asked for or of a narrow network.

    Attributes:
        benchmark: has measured ``probe``.
        spare_seconds: time left of the budget after ``MIN_STEPS`` steps of the smallest training; negative where there
            is no time for those.
        seconds: time that the measurement took.
    """

    benchmark: ThroughputBenchmark
    probe: Recipe
    spare_seconds: float
    seconds: float

    def has_time_for(self, num_measurements: int) -> bool:
        """Whether so many more measurements leave time for the training."""
        return self.spare_seconds > num_measurements * self.seconds


def select_recipe(request: PlanRequest, budget: Budget) -> Selection:
    """Select by measured throughput; what an earlier run measured on this machine counts, where it still holds.

    On a CPU torch is left with the number of threads that is fastest. Raises UsageError for a recipe that does not fit
    the data.
    """
    started = budget.deadline.elapsed()
    cache = _cache_for(request)
    quick = None
    if request.hardware.device.type == "cpu":
        benchmark = _first_benchmark(request, cache)
        quick = _quick_estimate(request, budget, benchmark, started)
    selection = _select_quickly(request, budget, quick) if quick else _select_fully(request, budget, cache)
    cache.save()
    return selection


def _cache_for(request: PlanRequest) -> ThroughputCache:
    """The throughput cache; an empty one for a GPU or several ranks."""
    if request.hardware.device.type != "cpu" or request.hardware.group.size > 1 or not request.uses_cache:
        return ThroughputCache(None)
    return ThroughputCache.of_user()


def _first_benchmark(request: PlanRequest, cache: ThroughputCache) -> ThroughputBenchmark:
    """A benchmark for a fraction of a second, in the fastest precision that is known or in the one asked for.

    Where there is a cache, it has measured one network, and by that has found out whether the cache holds.
    """
    hardware = request.hardware

    def benchmark(precision: str) -> ThroughputBenchmark:
        limit_seconds = FIRST_MEASUREMENT_SECONDS
        return build_throughput_benchmark(
            request.train, hardware.device, precision, limit_seconds, hardware.group, cache
        )

    first = benchmark("fp32" if hardware.precision == "auto" else hardware.precision)
    if not cache.remembers:
        return first
    probe = request.spec.fixed or NARROW_PROBE["cpu"]
    cache.check(first.cache_key(probe), first.remeasure(probe, is_kept=False))
    fastest = cache.precision(first.network_key(request.spec.fixed or WIDE_PROBE["cpu"]))
    is_known = cache.holds and hardware.precision == "auto" and fastest not in (None, first.precision)
    return benchmark(str(fastest)) if is_known else first


def _select_fully(request: PlanRequest, budget: Budget, cache: ThroughputCache) -> Selection:
    """Measure the throughput, and select recipe, precision and number of threads by it.

    ``auto`` measures a probe network in each precision, and a narrower one in the fastest. It selects a recipe by the
    speed interpolated between the two, measures the network of that recipe, and selects again by the corrected speed.
    """
    hardware, wanted, fixed = request.hardware, request.hardware.precision, request.spec.fixed
    device = hardware.device
    seconds = min(MAX_PLANNING_SECONDS, max(MIN_PLANNING_SECONDS, PLANNING_SHARE * budget.total_seconds))
    benchmarks = {
        precision: build_throughput_benchmark(
            request.train, device, precision, seconds / NUM_LARGE_MEASUREMENTS, hardware.group, cache
        )
        for precision in PRECISIONS
    }
    narrow, wide = NARROW_PROBE[device.type], WIDE_PROBE[device.type]
    probe = fixed or wide
    key = benchmarks["fp32"].network_key(probe)
    if wanted == "auto" and cache.holds and (known := cache.precision(key)):
        fastest, reason = known, "as measured here earlier"
    else:
        fastest, reason = resolve_precision(wanted, device, lambda name: benchmarks[name].remeasure(probe))
        if wanted == "auto" and device.type == "cpu":
            cache.record_precision(key, fastest)
    lines, benchmark = describe_device(device, fastest, reason), benchmarks[fastest]
    if fixed:
        return Selection(fixed, benchmark, (*lines, *_tune_threads(benchmark, fixed)))
    estimate, profile = benchmark.seconds_by_work(narrow, probe), profile_dataset(request.train)

    def select(seconds_per_image: SecondsPerImage) -> tuple[Recipe, list[str]]:
        return _select_auto(request, budget, profile, seconds_per_image)

    first, _ = select(estimate)
    lines += _tune_threads(benchmark, first)
    # The estimate comes from other networks and more threads.
    correction = benchmark.training_seconds_per_image(first) / estimate(first)
    if _is_far(correction):
        # A probe was measured in a disturbed moment, now or by the run whose figure is cached.
        for one in (narrow, probe):
            benchmark.remeasure(one)
        estimate = benchmark.seconds_by_work(narrow, probe)
        first, _ = select(estimate)
        correction = benchmark.training_seconds_per_image(first) / estimate(first)

    recipe, reasons, seconds_per_image = _select_as_measured(benchmark, select, estimate, correction)
    check_crop_padding(recipe, request.train)
    if wanted == "auto" and device.type == "cpu":
        precision, more_reasons = _confirm_precision(fastest, recipe, benchmarks)
        benchmark, reasons = benchmarks[precision], [*reasons, *more_reasons]
    forecaster = None
    if request.has_forecast:
        num_scored, limit_seconds = request.scoring.num_reported, FORECAST_SHARE * budget.total_seconds
        forecaster = DatasetForecaster(request.train, profile, seconds_per_image, num_scored, limit_seconds)
    return Selection(recipe, benchmark, (*lines, *reasons), forecaster=forecaster)


def _select_as_measured(
    benchmark: ThroughputBenchmark, select: SelectRecipe, estimate: SecondsPerImage, correction: float
) -> tuple[Recipe, list[str], SecondsPerImage]:
    """The recipe that ``select`` takes for the estimated speed times a correction, its lines, and that speed.

    Other programs may have come since, or gone: while the network of the recipe is far from the speed, the correction
    is that of this network, and another recipe is selected. Where that ends nowhere, as networks compute at rates of
    their own, those that were measured are as fast as measured, and all others as slow as the slowest correction says.
    """
    known, slowest = dict[str, float](), correction
    for _ in range(MAX_SELECTIONS):
        seconds_per_image: SecondsPerImage = partial(_corrected, estimate, correction)
        recipe, reasons = select(seconds_per_image)
        expected = seconds_per_image(recipe)
        if not _is_far(benchmark.training_seconds_per_image(recipe) / expected):
            break
        if not _is_far(ratio := benchmark.remeasure(recipe) / expected):
            break
        known[benchmark.network_key(recipe)] = ratio * expected / recipe.ensemble_size
        correction *= ratio
        slowest = max(slowest, correction)
    else:
        others = partial(_corrected, estimate, slowest)
        seconds_per_image = partial(_as_measured, known, benchmark.network_key, others)
        recipe, reasons = select(seconds_per_image)
    return recipe, reasons, seconds_per_image


def _corrected(estimate: SecondsPerImage, correction: float, recipe: Recipe) -> float:
    return correction * estimate(recipe)


def _as_measured(
    known: Mapping[str, float], key_of: Callable[[Recipe], str], others: SecondsPerImage, recipe: Recipe
) -> float:
    """Seconds per image of a recipe whose network was measured; else those that ``others`` expects.

    Args:
        known: seconds per image of one network, by its key.
    """
    seconds = known.get(key_of(recipe))
    return others(recipe) if seconds is None else recipe.ensemble_size * seconds


def _is_far(ratio: float) -> bool:
    """Whether a network takes so many times as long as expected, or so few, that the expectation cannot hold."""
    return not 1 / MAX_CORRECTION <= ratio <= MAX_CORRECTION


def _select_auto(
    request: PlanRequest, budget: Budget, profile: DatasetProfile, seconds_per_image: SecondsPerImage
) -> tuple[Recipe, list[str]]:
    """The automatic recipe for the time left and a speed, and the lines that explain it."""
    training_seconds = budget.split().training_seconds

    def images_affordable(recipe: Recipe) -> float:
        return build_resizing(recipe).steps_in(training_seconds / seconds_per_image(recipe))

    return auto_recipe(profile, images_affordable, request.spec.overrides)


def _quick_estimate(
    request: PlanRequest, budget: Budget, benchmark: ThroughputBenchmark, started: float
) -> QuickEstimate | None:
    """The estimate by one network; None where the budget has time for a full selection.

    Args:
        benchmark: for a brief measurement.
        started: seconds of the deadline that had gone by when the selection began.
    """
    wanted, fixed = request.hardware.precision, request.spec.fixed
    probe = fixed or NARROW_PROBE["cpu"]
    smallest = fit_batch(request, probe, 0.0)
    work = MIN_STEPS * smallest.batch_size * benchmark.flops_per_image(smallest)
    if budget.deadline.remaining() > LONG_BUDGET_SECONDS + work / SLOW_FLOPS:
        return None
    image_seconds = benchmark.training_seconds_per_image(probe)
    seconds = budget.deadline.elapsed() - started
    model = model_cost(benchmark, smallest, SCORING_PER_TRAINING * image_seconds)
    spare_seconds = budget.split_for(model).training_seconds - MIN_STEPS * smallest.batch_size * image_seconds
    quick = QuickEstimate(benchmark, probe, spare_seconds, seconds)
    is_short = wanted == "auto" and budget.deadline.remaining() < SHORT_BUDGET_SECONDS
    return quick if is_short or not quick.has_time_for(NUM_MEASUREMENTS) else None


def _select_quickly(request: PlanRequest, budget: Budget, quick: QuickEstimate) -> Selection:
    """Select a recipe by the speed of one small network, where there is no time to measure more, and by what is known
    of another one."""
    wanted, fixed, benchmark = request.hardware.precision, request.spec.fixed, quick.benchmark
    knows_more = benchmark.known_seconds_per_image(WIDE_PROBE["cpu"]) is not None
    reason = "as asked"
    if wanted == "auto":
        reason = "as measured here earlier" if knows_more else "no time to measure more"
    recipe, reasons = fixed, list[str]()
    if recipe is None:
        estimate = benchmark.seconds_by_work(quick.probe, WIDE_PROBE["cpu"] if knows_more else quick.probe)
        recipe, reasons = _select_auto(request, budget, profile_dataset(request.train), estimate)
        check_crop_padding(recipe, request.train)
    lines = describe_device(request.hardware.device, benchmark.precision, reason)
    if quick.has_time_for(NUM_THREAD_MEASUREMENTS):
        lines += _tune_threads(benchmark, recipe)
    return Selection(recipe, benchmark, (*lines, *reasons), is_quick=True)


def _tune_threads(benchmark: ThroughputBenchmark, recipe: Recipe) -> list[str]:
    """On a CPU, leave torch with the number of threads that is fastest; a line for the user if that is not all."""
    if benchmark.device.type != "cpu":
        return []
    is_cached, started, used = benchmark.is_cached(recipe), now(), time.process_time()
    seconds = benchmark.cached_or_remeasured(recipe)
    used, elapsed = time.process_time() - used, now() - started
    is_free = is_cached or used >= FREE_SHARE * torch.get_num_threads() * elapsed
    if is_free and seconds * recipe.batch_size > LARGE_STEP_SECONDS:
        return []
    return tune_num_threads(seconds, lambda: benchmark.cached_or_remeasured(recipe))


def _confirm_precision(
    precision: str, recipe: Recipe, benchmarks: dict[str, ThroughputBenchmark]
) -> tuple[str, list[str]]:
    """Return to fp32, with a line for the user, if the selected network is slower in the precision of the probe."""
    if precision == "fp32":
        return precision, []
    fp32, other = benchmarks["fp32"], benchmarks[precision]
    speedup = fp32.training_seconds_per_image(recipe) / other.training_seconds_per_image(recipe)
    for _ in range(MAX_REPEATS):
        if speedup >= MIN_RATIO_KEPT:
            break
        speedup = fp32.remeasure(recipe) / other.remeasure(recipe)
    if speedup >= MIN_RATIO_KEPT:
        return precision, []
    return "fp32", [f"fp32 after all: {precision} runs this network at {speedup:.2g}x its speed"]


def fit_batch(request: PlanRequest, recipe: Recipe, images_affordable: float) -> Recipe:
    """The recipe with a batch size that fits the data, the budget and the number of processes."""
    is_fixed, num_images = request.spec.is_fixed("batch_size"), len(request.train)
    if not is_fixed:
        recipe = fit_batch_size(recipe, images_affordable, num_images)
    return fit_batch_to_processes(recipe, request.hardware.group.size, images_affordable, num_images, is_fixed)


def model_cost(benchmark: ThroughputBenchmark, recipe: Recipe, scoring_image_seconds: float) -> ModelCost:
    recording_seconds = len(build_resizing(recipe).stages()) * benchmark.recording_seconds
    return ModelCost(benchmark.num_bytes(recipe), scoring_image_seconds, recording_seconds, recipe.tta)
