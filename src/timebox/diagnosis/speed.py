"""How fast this machine trains: the plan of a minute on 5,000 random images, made and measured as for a training."""

import numpy as np
import torch

from timebox.clock import Deadline
from timebox.data import ImageDataset
from timebox.diagnosis.findings import TrainingSpeed
from timebox.planning.budget import ScoringLoad
from timebox.planning.planner import make_plan
from timebox.planning.selection import Hardware, PlanRequest
from timebox.recipes import AUTO
from timebox.runtime.device import device_name, resolve_device
from timebox.runtime.threads import limit_threads_to_container
from timebox.runtime.torch_state import preserve_torch_state
from timebox.runtime.write_speed import NO_WRITES

NUM_IMAGES, SIDE, NUM_CLASSES = 5000, 32, 10
BUDGET_SECONDS = 60.0


def measure_speed() -> TrainingSpeed:
    """Plan a training of a minute, as ``timebox train`` does. Takes up to five seconds; later ones use the cache."""
    device = resolve_device("auto")
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (NUM_IMAGES, SIDE, SIDE, 3), dtype=np.uint8)
    labels = np.arange(NUM_IMAGES, dtype=np.int64) % NUM_CLASSES
    dataset = ImageDataset(images, labels, tuple(map(str, range(NUM_CLASSES))), tuple(map(str, range(NUM_IMAGES))))
    with preserve_torch_state(), limit_threads_to_container():
        request = PlanRequest(AUTO, (), dataset, ScoringLoad(0, 0), Hardware(device), "random images")
        plan = make_plan(request, Deadline(BUDGET_SECONDS), None, NO_WRITES)
    recipe = plan.recipe
    side = round(SIDE * recipe.input_scale)
    return TrainingSpeed(
        device=device_name(device),
        instructions=torch.backends.cpu.get_cpu_capability(),
        cuda=torch.version.cuda,
        threads=plan.threads if device.type == "cpu" else 0,
        precision=plan.precision,
        network=f"{recipe.model}, width {recipe.width}, {side} px",
        images_per_second=recipe.batch_size / plan.step_seconds,
        epochs=plan.expected_steps * recipe.batch_size / NUM_IMAGES,
    )
