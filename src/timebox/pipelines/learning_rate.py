"""Learning-rate range tests of a training job, and the learning rate of a network of the user's."""

from collections.abc import Callable
from dataclasses import replace

from timebox.builders import build_augmentation, build_resizing
from timebox.custom import is_code
from timebox.data.device.loader import DeviceLoader, Sampling
from timebox.data.device.resident import ResidentImages
from timebox.jobs.context import RunContext
from timebox.jobs.fit import build_initial_network, build_job_loss
from timebox.jobs.job import TrainingJob
from timebox.runtime.precision import Precision
from timebox.training.lr_range_test import MIN_STEPS, LRRangeTest, LRSweep, SweepPacer, lr_range_test
from timebox.training.pacer import Pacer
from timebox.training.schedule import lr_and_momentum_at
from timebox.training.state import TrainingState

# A range test for a network of the user's: its share of the steps of a training, its most steps, the lowest and highest
# rate as multiples of the recipe's, and the largest change of that.
TEST_SHARE, MAX_TEST_STEPS, TESTED_FACTOR, MAX_LR_CHANGE = 0.04, 80, 100.0, 8.0


def run_range_test(
    job: TrainingJob,
    lrs: tuple[float, float],
    pacer: Pacer,
    notify: Callable[[int, float, float], None] = lambda step, lr, loss: None,
) -> LRRangeTest:
    """Run a learning-rate range test on a job's network and training images, from a low to a high rate."""
    plan, recipe = job.plan, job.plan.recipe
    state = TrainingState(build_initial_network(job, lambda text: None), recipe, Precision(plan.precision, plan.device))
    images = ResidentImages.from_dataset(job.data_splits.train, plan.device)
    sampling = Sampling(recipe.batch_size, job.config.seed)
    loader = DeviceLoader(images, job.statistics, build_augmentation(recipe), sampling, build_resizing(recipe))
    _, peak_momentum = lr_and_momentum_at(recipe, recipe.peak_at)
    sweep = LRSweep(*lrs, peak_momentum, plan.micro_batch)
    return lr_range_test(state, loader, build_job_loss(job), pacer, sweep, notify)


def with_tested_lr(job: TrainingJob, context: RunContext) -> TrainingJob:
    """The job with the learning rate that a short range test suggests, for a network of the user's.

    Where steps are counted, time is too short, the optimizer is the user's too, or the test finds no rate, the recipe's
    own rate stays.
    """
    recipe, plan, deadline = job.plan.recipe, job.plan, context.deadline
    if plan.num_steps is not None or is_code(recipe.optimizer):
        return job
    num_steps = min(MAX_TEST_STEPS, int(TEST_SHARE * plan.expected_steps))
    if num_steps < MIN_STEPS:
        return job
    test_ends = deadline.elapsed() + 1.5 * num_steps * plan.step_seconds
    pacer = SweepPacer(num_steps, lambda: test_ends - deadline.elapsed(), plan.step_seconds, deadline.elapsed)
    test = run_range_test(job, (recipe.max_lr / TESTED_FACTOR, recipe.max_lr * TESTED_FACTOR), pacer)
    if test.suggestion is None:
        return job
    lr = float(f"{min(max(test.suggestion, recipe.max_lr / MAX_LR_CHANGE), recipe.max_lr * MAX_LR_CHANGE):.2g}")
    line = f"learning rate {lr:g}, after a range test of {len(test.lrs)} steps: {test.reason}"
    context.reporter.note(line)
    return replace(job, plan=replace(plan, recipe=recipe.replace(max_lr=lr), lines=(*plan.lines, line)))
