"""Types, bounds and help texts of the options that several verbs share, and the choices that have names."""

from decimal import Decimal
from typing import Annotated, Any, Literal

from msgspec import Meta

from timebox.clock import format_duration, parse_budget
from timebox.configs.config import option
from timebox.errors import BudgetError, UsageError

# Choices. The first is the default.
Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
Tta = Literal["recipe", "none", "mirror", "shift", "mirror_shift"]
Split = Literal["test", "val", "train", "all"]

DEFAULT_MAX_BAD_SHARE = 0.1

MAX_INT = 2**63 - 1
MAX_FLOAT = 1.7976931348623157e308  # refuses infinity
Count = Annotated[int, Meta(ge=1, le=MAX_INT)]
Natural = Annotated[int, Meta(ge=0, le=MAX_INT)]
Fraction = Annotated[float, Meta(ge=0, le=1)]
Positive = Annotated[float, Meta(gt=0, le=MAX_FLOAT)]
Text = Annotated[str, Meta(min_length=1)]


def read_seconds(budget: Any) -> float:
    """Seconds of a budget such as ``"10m"`` or 600. Raises BudgetError without the word "budget", for any option."""
    is_number = isinstance(budget, int | float) and not isinstance(budget, bool)
    try:
        return parse_budget(budget_text(float(budget)) if is_number else budget)
    except BudgetError as error:
        raise BudgetError(str(error).removeprefix("budget ")) from error


def read_budget_text(budget: Any) -> str:
    """A budget as text: as it was written, a number of seconds as people write it. Raises BudgetError."""
    seconds = read_seconds(budget)
    if isinstance(budget, str) and not budget.replace(".", "").isdigit():
        return budget.strip()
    return budget_text(seconds) if seconds % 60 else format_duration(seconds)


def budget_text(seconds: float) -> str:
    """``1234567.5`` as ``1234567.5s``: every digit, without an exponent, so that :func:`read_seconds` takes it."""
    return f"{Decimal(repr(seconds)):f}".removesuffix(".0") + "s"


def read_split_size(value: Any) -> Any:
    """A fraction given as text becomes a number; paths and words stay as they are."""
    try:
        return value if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return value


def check_test_split(config: Any) -> None:
    """Raise UsageError for ``test="rest"``."""
    if config.test == "rest":
        raise UsageError("test cannot be 'rest', as val can: give a fraction, a path or 'none'")


Data = Annotated[
    Text, option("a folder of class folders, a file, or a name: cifar10, digits, …", positional="DATA", is_path=True)
]
OptionalData = Annotated[
    Text | None,
    option(
        "a folder of class folders, a file, or a name: cifar10, digits, …; not needed with --resume",
        positional="DATA",
        is_path=True,
    ),
]
RunDirectory = Annotated[Text, option("a run directory that `timebox train` wrote", positional="RUN", is_path=True)]
Budget = Annotated[Positive | None, option("", metavar="TIME", read=read_seconds, write=budget_text)]
BudgetText = Annotated[Text, option("", metavar="TIME", read=read_budget_text)]
OutputDirectory = Annotated[Text | None, option("", metavar="DIR", group="output", is_path=True)]
Recipe = Annotated[Text, option("", metavar="NAME|FILE", group="method", is_path=True)]
Settings = Annotated[
    tuple[str, ...],
    option(
        "change one field of the recipe, as in --set max_lr=0.4, or max_lr=x2 to double it; may be repeated",
        metavar="FIELD=VALUE",
        group="method",
    ),
]
_CODE = "MODULE:FUNCTION"
Network = Annotated[
    Text | None,
    option(
        "train a network of your own: a function or class that is called with the number of classes, and with the "
        "shape (channels, height, width) of the images where it takes two",
        metavar=_CODE,
        group="your own code",
    ),
]
Augment = Annotated[
    Text | None,
    option(
        "a further augmentation: from a batch of images, float32 (N, C, H, W) in 0...1, and a torch.Generator where it "
        "takes two, to such a batch",
        metavar=_CODE,
        group="your own code",
    ),
]
Loss = Annotated[
    Text | None,
    option(
        "a loss of your own: from logits and labels to one loss for each image", metavar=_CODE, group="your own code"
    ),
]
Optimizer = Annotated[
    Text | None,
    option(
        "an optimizer of your own: from the list of parameters to a torch.optim.Optimizer, whose rates follow the "
        "schedule",
        metavar=_CODE,
        group="your own code",
    ),
]
TrustCode = Annotated[
    bool,
    option(
        "import the code that a run, a recipe file or a search names, such as its network: only where you trust it",
        group="your own code",
    ),
]
SplitSize = Annotated[float, Meta(gt=0, lt=1)] | Text | None
Val = Annotated[
    SplitSize,
    option(
        "images to validate on: a fraction of train such as 0.1, other data, the images that --train-limit leaves "
        "out, or none (default: the data's own val split, else a tenth of train, at most 10,000 images)",
        metavar="FRACTION|PATH|rest|none",
        group="data",
        read=read_split_size,
        is_path=True,
        allowed="a fraction between 0 and 1, a path, 'rest' or 'none'",
    ),
]
Test = Annotated[
    SplitSize,
    option(
        "images to test on: a fraction of train such as 0.2, other data, or none "
        "(default: the data's own test split, else none)",
        metavar="FRACTION|PATH|none",
        group="data",
        read=read_split_size,
        is_path=True,
        allowed="a fraction between 0 and 1, a path or 'none'",
    ),
]
TrainLimit = Annotated[
    Count | None,
    option(
        "use N training images, balanced over the classes, as in --train-limit 5000 (default: all)",
        metavar="N",
        group="data",
    ),
]
TestLimit = Annotated[
    Count | None,
    option(
        "test on N images, balanced over the classes, as in --test-limit 1000 (default: all)", metavar="N", group="data"
    ),
]
SplitSeed = Annotated[
    Natural,
    option(
        "seed of cuts and splits; --seed does not change them, so that seeds compare on the same images",
        metavar="N",
        group="data",
    ),
]
Coarse = Annotated[bool, option("CIFAR-100: its 20 superclasses in place of 100 classes", group="data")]
Depth = Annotated[int, Meta(ge=1, le=2)]
ClassDepth = Annotated[
    Depth | None,
    option(
        "1 where class folders lie in DATA or its splits, 2 where they lie in the folders there, as in "
        "--class-depth 2 for patient7/healthy/1.png (default: found from the folders, refused where both are "
        "plausible)",
        metavar="1|2",
        group="data",
    ),
]
GroupBy = Annotated[
    Text | None,
    option(
        "keep images together when they are split: images for whose paths the expression matches the same text, such "
        r"as the frames of a video with '(video\d+)_'",
        metavar="REGEX",
        group="data",
    ),
]
MaxBadShare = Annotated[
    Fraction, option("largest share of unreadable files to go on with, 0 to 1", metavar="FRACTION", group="data")
]
Cache = Annotated[
    bool,
    option(
        "decode all images anew and keep none on disk (by default images that take seconds to decode are kept for the "
        "next run, in $TIMEBOX_CACHE or the user cache)",
        group="data",
    ),
]
AllowPartial = Annotated[
    bool,
    option(
        "where the budget leaves no time to read all images, train on those that can be read, the same share of each "
        "class (by default such a budget is refused)",
        group="data",
    ),
]
DataDir = Annotated[
    Text | None,
    option(
        "where named data sets (cifar10, cifar100, mnist) lie or are downloaded to (default: $TIMEBOX_DATA, else the "
        "user cache)",
        metavar="DIR",
        group="data",
        is_path=True,
    ),
]
DeviceOption = Annotated[Device, option("where to compute (default: auto, a GPU if there is one)", group="machine")]
PrecisionOption = Annotated[
    Precision,
    option(
        "number format of the training (default: auto, the fastest one measured; with --steps fp32 on a CPU, bf16 on a "
        "GPU)",
        group="machine",
    ),
]
TtaOption = Annotated[
    Tta,
    option(
        "test-time augmentation: average the probabilities of several views. recipe: the recipe's own; mirror: the "
        "image and its mirror image; shift: the image, also shifted by a pixel; mirror_shift: both"
    ),
]
