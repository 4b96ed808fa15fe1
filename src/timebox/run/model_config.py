"""model.json: class names, preprocessing and recipe of a model, and the options and plan of its training."""

import platform
import re
from math import inf
from typing import Annotated, Any, Literal

import numpy as np
import torch
from msgspec import Meta, Struct, structs
from torch import Tensor

from timebox.configs.data import DataConfig
from timebox.configs.train import SCRATCH, TrainConfig
from timebox.custom import CodeRecord
from timebox.data.part import PartRead
from timebox.planning.forecast import Forecast
from timebox.planning.plan import Plan
from timebox.recipes import Recipe
from timebox.run.json_values import Count, PositiveCount, RecipeFields, Seconds, Share
from timebox.runtime.device import device_name
from timebox.version import VERSION

# Training writes no standard deviation below 1/255; a smaller one would only blow the inputs up.
MIN_STD = 1e-4

# Options of TrainConfig that model.json records under the same names.
_SHARED_OPTIONS = ("recipe", "settings", "precision", "scoring", "thumbnails", "init", "allow_partial")

Side = Annotated[int, Meta(ge=8, le=4096)]
ImageShape = tuple[Side, Side, Literal[1, 3, 4]]


class Preprocessing(Struct, frozen=True, kw_only=True):
    """How an image reaches the network: its working size, and the mean and standard deviation of the training images.

    Attributes:
        image_shape: height and width in pixels, and channels.
        mean: mean of each channel, of pixels in 0...1.
        std: standard deviation of each channel; the network sees (pixel - mean) / std.
        resize: how images of another shape are resized, in words.
        white_16bit: the value of 16-bit grey images that becomes 255.
    """

    image_shape: ImageShape
    mean: tuple[Share, ...]
    std: tuple[Annotated[float, Meta(ge=MIN_STD, le=1)], ...]
    resize: str = ""
    white_16bit: Annotated[int, Meta(ge=1, le=65_535)] = 65_535

    def __post_init__(self) -> None:
        if not len(self.mean) == len(self.std) == self.channels:
            raise ValueError(f"mean and std must have one value for each of the {self.channels} channels")

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.image_shape[:2]

    @property
    def channels(self) -> int:
        """1 for grey, 3 for RGB, 4 for RGBA."""
        return self.image_shape[2]

    @property
    def square_side(self) -> int | None:
        """The side in pixels of a square working size, None for another."""
        height, width = self.size
        return height if height == width else None

    def tensors(self) -> tuple[Tensor, Tensor]:
        """``mean`` and ``std``, float32 (C,)."""
        return torch.tensor(self.mean), torch.tensor(self.std)


class PretrainedRecord(Struct, frozen=True, kw_only=True):
    """The pretrained classifier beside the network; its tensors are in pretrained.safetensors.

    Attributes:
        name: of the network that computes the features.
        trained_on: the data set that it was trained on.
        licence: SPDX identifier of its weights' licence.
        source: where its weights were published.
        sha256: SHA-256 of the file with its weights.
        side: length in pixels to which the shorter side of an image is brought.
        num_images: number of training images that it was fitted to.
        frozen_blocks: number of its first blocks that fine-tuning left as published.
        epochs: of fine-tuning; 0 for none.
        tuned_share: share of the fine-tuned weights, 0...1; the rest are the published ones.
        accuracy: share of training images that a linear head on its published features gets right, fitted to others.
    """

    name: str
    trained_on: str
    licence: str
    source: str
    sha256: str
    side: Side
    num_images: PositiveCount
    frozen_blocks: Count
    epochs: Count
    tuned_share: Share
    accuracy: Share


class ModelConfig(Struct, frozen=True, kw_only=True):
    """The part of model.json that rebuilds the model.

    Attributes:
        class_names: names of the classes, in the order of the network's outputs.
        recipe: all fields of the recipe, by name.
        pretrained: the classifier on pretrained features beside the network; null for none.
        code: code of the user's that the recipe names, by recipe field.
    """

    class_names: Annotated[tuple[Annotated[str, Meta(min_length=1)], ...], Meta(min_length=2)]
    preprocessing: Preprocessing
    recipe: RecipeFields
    pretrained: PretrainedRecord | None = None
    code: dict[str, CodeRecord] = {}

    def __post_init__(self) -> None:
        if len(set(self.class_names)) < len(self.class_names):
            raise ValueError("class_names has a name twice")
        if any(re.search("[\ud800-\udfff]", name) for name in self.class_names):
            raise ValueError("class_names has a name that UTF-8 cannot encode")


class TrainingRequest(Struct, frozen=True, kw_only=True):
    """The other arguments of ``timebox.train`` that decide the training, and checksums of its inputs.

    Attributes:
        recipe: name of a recipe, or path of a TOML file.
        settings: ``FIELD=VALUE`` texts that change the recipe.
        precision: ``auto``, ``fp32``, ``bf16`` or ``fp16``.
        num_steps: number of steps asked for; null where the clock ended the training.
        scoring: whether the splits were scored at the end.
        thumbnails: whether the report shows images.
        init: ``auto``, ``scratch``, ``pretrained``, or the run whose weights the training began with; null for scratch.
        init_sha256: SHA-256 of the weights that the training began with.
        budget_seconds: the budget; null where the steps were counted.
        data_sha256: SHA-256 of the training images and labels, in order.
        allow_partial: whether a part of the images was to be read where there was no time for all.
        part_read: that part; null for all.
    """

    recipe: str
    settings: tuple[str, ...]
    precision: str
    num_steps: PositiveCount | None
    scoring: bool = True
    thumbnails: bool = True
    init: str | None = None
    init_sha256: str | None = None
    budget_seconds: Seconds | None = None
    data_sha256: str | None = None
    allow_partial: bool = False
    part_read: PartRead | None = None

    @classmethod
    def of(cls, config: TrainConfig, **checksums: Any) -> "TrainingRequest":
        """The record of a config; the budget and the checksums are given beside it."""
        return cls(num_steps=config.steps, **{name: getattr(config, name) for name in _SHARED_OPTIONS}, **checksums)

    def train_config(self, source: DataConfig, seed: int) -> TrainConfig:
        """The recorded config, for data in ``source``. Raises UsageError where it is damaged."""
        options = {name: getattr(self, name) for name in _SHARED_OPTIONS}
        options["init"] = self.init or SCRATCH
        return TrainConfig.of(source, seed=seed, steps=self.num_steps, **options)


class PlanRecord(Struct, frozen=True, kw_only=True):
    """The plan of a training without its recipe; :class:`timebox.planning.plan.Plan` describes the fields.

    ``scoring_seconds`` is null where no clock is read: JSON has no infinity.
    """

    device: Literal["cpu", "cuda"]
    threads: PositiveCount
    max_threads: PositiveCount | None = None
    precision: Literal["fp32", "bf16", "fp16"]
    num_steps: PositiveCount | None
    micro_batch: PositiveCount
    step_seconds: Seconds
    expected_steps: int
    scoring_seconds: Seconds | None
    saving_seconds: float
    finish_seconds: Seconds
    num_val_images: Count
    scoring_batch: PositiveCount
    forecasts: tuple[Forecast, ...] = ()
    lines: tuple[str, ...]

    @classmethod
    def of(cls, plan: Plan) -> "PlanRecord":
        """The record of a plan."""
        values = {name: getattr(plan, name) for name in cls.__struct_fields__}
        scoring_seconds = None if plan.scoring_seconds == inf else plan.scoring_seconds
        return cls(**{**values, "device": plan.device.type, "scoring_seconds": scoring_seconds})

    def plan(self, recipe: Recipe) -> Plan:
        """The plan that was recorded, for its recipe."""
        scoring_seconds = inf if self.scoring_seconds is None else self.scoring_seconds
        values = {**structs.asdict(self), "device": torch.device(self.device), "scoring_seconds": scoring_seconds}
        return Plan(recipe=recipe, **values)


class Machine(Struct, frozen=True, kw_only=True):
    """The properties of a machine that decide how floating-point sums are rounded.

    Attributes:
        device: ``cpu``, or the name of the GPU.
        threads: number of torch's threads in each process.
        processes: number of processes that trained together under torchrun; 1 without it.
        processor: architecture of the processor, such as ``x86_64``.
        instructions: instruction set that torch's CPU kernels use, such as ``AVX2``.
    """

    device: str
    threads: PositiveCount
    processes: PositiveCount = 1
    processor: str
    instructions: str

    @classmethod
    def current(cls, device: torch.device, num_processes: int = 1) -> "Machine":
        """This machine, as torch is set up in this process."""
        return cls(
            device=device_name(device),
            threads=torch.get_num_threads(),
            processes=num_processes,
            processor=platform.machine(),
            instructions=torch.backends.cpu.get_cpu_capability(),
        )


class TrainedModelConfig(ModelConfig, frozen=True, kw_only=True):
    """All of model.json: the model, and the values that its evaluation, resume and replay need.

    Attributes:
        source: the data and their splits.
        seed: random seed of the training.
        plan: how the budget was divided, and the decisions of the planner.
        machine: the properties of the machine that decide how sums are rounded.
        versions: versions of the packages that the model was computed with, by name.
    """

    source: DataConfig
    seed: Count
    training: TrainingRequest
    plan: PlanRecord
    machine: Machine
    versions: dict[str, str]


def installed_versions() -> dict[str, str]:
    """The versions of timebox, torch, numpy and Python, by name."""
    return {
        "timebox": VERSION,
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
