"""summary.json: accuracy, settings, and the seconds of each phase, of a finished or a stopped training."""

from collections.abc import Mapping
from typing import Literal

from msgspec import UNSET, Struct, UnsetType

from timebox.configs.data import DataConfig
from timebox.data.dataset import BadFile
from timebox.data.part import PartRead
from timebox.evaluation.calibration import MIN_IMAGES
from timebox.planning.forecast import Forecast
from timebox.run.json_values import Count, PhaseSeconds, RecipeFields, Seconds, Share, Temperature, valid_values

MAX_BAD_FILES = 1000  # listed in summary.json; `timebox inspect` lists all


class DataDescription(Struct, frozen=True, kw_only=True):
    """The data as they were read: their name, their format, and why they were taken for that format."""

    name: str
    format: str
    why: str


class TrainingStatus(Struct, frozen=True, kw_only=True):
    """status.json: a training that is running, for those who watch it. Removed when the run is finished.

    Attributes:
        pid, host: of the process.
        started_at: seconds since 1970, when the budget began.
        expected_steps: null before the training is planned.
        examples: augmented training images as data URIs, each after the name of its class.
    """

    pid: Count
    host: str
    started_at: float
    budget_seconds: Seconds | None
    expected_steps: Count | None
    train_images: Count
    num_classes: Count
    device: str
    plan: tuple[str, ...]
    examples: tuple[tuple[str, str], ...] = ()


class RankSummary(Struct, frozen=True, kw_only=True):
    """One of the processes that trained together under torchrun.

    Attributes:
        started_at: start of the process, in seconds since the start of its host.
        images_per_second: the rank's own images per second, the time left out in which it waited for other ranks.
        waiting_share: share of the steps' time in which the rank waited for gradients of others; null on a GPU.
    """

    rank: Count
    host: str
    pid: Count
    started_at: float
    device: str
    threads: Count
    images_per_second: Seconds | None
    waiting_share: float | None


class BlendSummary(Struct, frozen=True):
    """How the predictions of the network and of the pretrained classifier are averaged.

    Attributes:
        share: weight of the logarithms of the pretrained classifier's probabilities; 0 where the network alone is as
            good.
        temperature: by which those of the network are divided first.
        network_val_accuracy: share of the scored validation images that the network alone gets right; null without any.
        pretrained_val_accuracy: the same of the pretrained classifier alone.
    """

    share: Share
    temperature: Temperature
    network_val_accuracy: Share | None = None
    pretrained_val_accuracy: Share | None = None


class FinishedSummary(Struct, frozen=True, kw_only=True):
    """summary.json of a training that came to its end.

    Attributes:
        val_accuracy: share of the scored validation images that are right; null where none was scored.
        test_accuracy: share of the scored test images that are right; null where none was scored.
        val_images, test_images: number of images scored.
        val_images_total, test_images_total: number of images in the split.
        temperature: by which logits are divided to calibrate probabilities, fitted on the validation images; 1 where
            fewer than 20 were scored, null where none was.
        tta: views that are averaged for a prediction.
        budget_seconds: the budget; null where the steps were counted.
        elapsed_seconds: time since the deadline's clock started, downloads left out.
        reserve_seconds: time that the plan left for an unforeseen stall before the deadline.
        download_seconds: time taken by downloads, which the budget leaves out.
        phases: seconds by phase; they add up to ``elapsed_seconds``.
        steps: training steps that the model is made of.
        epochs: passes over the training images.
        images_per_second: training images per second, validations left out.
        final_lr: learning rate of the last step.
        source: the data and their splits.
        recipe: all fields of the recipe, by name.
        command: the command line that asks for the same training.
        plan: the decisions of the planner, in words.
        notes: remarks about the data.
        forecast: the accuracy that the plan expected, and its interval; left out where none was forecast.
        blend: how predictions are averaged with those of a pretrained classifier; left out where there is none.
        events: events of the training, such as a rollback.
        bad_files: image files that were left out, with the reason; the first 1,000.
        num_bad_files: number of image files that were left out.
        part_read: the part of the images that was read, where there was no time for all.
        resumed_at_step: the step of the checkpoint that the training was resumed from.
        replay_of: the run that was replayed.
        identical: whether the replay came to the same weights, byte for byte.
        ranks: the processes that trained together.
        rank_failures: a line for each process that was lost.
        trained_on_other_machine: whether a part was trained on another machine, or with other versions.
        unwritten: files that could not be written.
        late: whether the deadline was missed.
    """

    val_accuracy: Share | None
    test_accuracy: Share | None
    val_images: Count
    test_images: Count
    val_images_total: Count
    test_images_total: Count
    temperature: Temperature | None
    tta: str
    budget_seconds: Seconds | None
    elapsed_seconds: Seconds
    reserve_seconds: Seconds
    download_seconds: Seconds
    phases: PhaseSeconds
    steps: Count
    epochs: Seconds
    images_per_second: Seconds
    final_lr: float
    train_images: Count
    num_classes: Count
    data: DataDescription
    device: str
    threads: Count
    precision: str
    seed: Count
    source: DataConfig
    recipe: RecipeFields
    command: str
    plan: tuple[str, ...]
    notes: tuple[str, ...]
    events: tuple[str, ...]
    bad_files: tuple[BadFile, ...]
    versions: dict[str, str]
    forecast: Forecast | UnsetType = UNSET
    blend: BlendSummary | UnsetType = UNSET
    num_bad_files: Count | UnsetType = UNSET
    part_read: PartRead | UnsetType = UNSET
    resumed_at_step: Count | UnsetType = UNSET
    replay_of: str | UnsetType = UNSET
    identical: bool | UnsetType = UNSET
    ranks: tuple[RankSummary, ...] | UnsetType = UNSET
    rank_failures: tuple[str, ...] | UnsetType = UNSET
    trained_on_other_machine: bool = False
    unwritten: tuple[str, ...] = ()
    late: bool = False


class StoppedSummary(Struct, frozen=True, kw_only=True):
    """summary.json of a training that was stopped and can be resumed.

    Attributes:
        stopped: always true.
        late: whether the deadline had passed.
        budget_seconds: the budget; null where the steps were counted.
        elapsed_seconds: time since the deadline's clock started.
        phases: seconds by phase.
        rank_failures: a line for each process that was lost.
    """

    stopped: Literal[True]
    late: bool | UnsetType = UNSET
    budget_seconds: Seconds | UnsetType | None = UNSET
    elapsed_seconds: Seconds | UnsetType = UNSET
    phases: PhaseSeconds | UnsetType = UNSET
    rank_failures: tuple[str, ...] | UnsetType = UNSET


def valid_summary(values: Mapping[str, object]) -> dict[str, object]:
    """The values of a summary.json without those that are damaged, such as an accuracy of 3. Unknown keys stay."""
    return valid_values(valid_values(values, FinishedSummary), StoppedSummary)


def uncalibrated_reason(summary: Mapping[str, object], is_scored: bool = True) -> str | None:
    """Why a run has no fitted temperature, in words; None where it has one.

    Args:
        summary: the values of its summary.json; empty where there is none.
        is_scored: whether the run was to score its splits.
    """
    num_scored, num_images = summary.get("val_images"), summary.get("val_images_total")
    if not isinstance(num_scored, int) or not isinstance(num_images, int):
        return "the run ended before it was scored" if summary.get("temperature") is None else None
    if num_scored >= MIN_IMAGES:
        return None
    if num_scored:
        return (
            f"the run scored {num_scored} of {num_images:,} validation images, and {MIN_IMAGES} or more are needed to "
            "fit a temperature"
        )
    if not is_scored:
        return "the run was trained without scoring any images"
    if num_images:
        return f"there was no time to score any of the {num_images:,} validation images"
    return "the run had no validation images to fit a temperature on"
