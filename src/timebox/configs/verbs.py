"""Configs of the verbs that look at data, or use a trained run: inspect, plan, evaluate, predict, export, report,
compare, serve, watch."""

from typing import Annotated, ClassVar, Literal

from msgspec import Meta

from timebox.configs import options
from timebox.configs.config import Config, Rule, option

PredictionFormat = Literal["csv", "jsonl"]
ExportFormat = Literal["onnx", "torch"]
Engine = Literal["auto", "torch"]
Beginning = Literal["auto", "scratch", "pretrained"]
Shell = Literal["bash", "zsh", "fish", "tcsh", "powershell"]


ServeHost = Annotated[
    options.Text,
    option("name or number under which to listen; for other machines to reach it, 0.0.0.0", metavar="HOST"),
]
ServePort = Annotated[
    Annotated[int, Meta(ge=0, le=65535)], option("port to listen on; 0 for a free one", metavar="PORT")
]
ServeToken = Annotated[
    options.Text | None,
    option(
        "secret that every request has to send (default: none; with --host for other machines a new one, printed)",
        metavar="TOKEN",
    ),
]


class InspectConfig(Config, frozen=True, kw_only=True):
    """The arguments of :func:`timebox.inspect`; documented there."""

    data: options.Data
    image_size: Annotated[
        Annotated[int, Meta(ge=8, le=options.MAX_INT)] | None,
        option(
            "side that images are brought to, as in --image-size 64 (default: chosen from the data)", metavar="PIXELS"
        ),
    ] = None
    coarse: options.Coarse = False
    class_depth: options.ClassDepth = None
    cache: options.Cache = True
    data_dir: options.DataDir = None


class InspectCommandConfig(InspectConfig, frozen=True, kw_only=True):
    """The options of ``timebox inspect``, which shows a run's suspect images too."""

    data: Annotated[
        options.Text,
        option(
            "a folder of class folders, a file, or a name: cifar10, digits, …; with --suspects a run directory",
            positional="DATA",
            is_path=True,
        ),
    ]
    suspects: Annotated[
        bool, option("list the training images of a run whose label its training doubts, the most suspect first")
    ] = False


class PlanConfig(Config, frozen=True, kw_only=True):
    """The arguments of :func:`timebox.plan`; documented there."""

    data: options.Data
    budget: Annotated[
        options.Positive,
        option(
            "the budget of the training, from the start of its command to its exit (default: 10m)",
            metavar="TIME",
            read=options.read_seconds,
            write=options.budget_text,
        ),
    ] = 600.0
    recipe: Annotated[options.Recipe, option("as for `timebox train`")] = "auto"
    settings: options.Settings = ()
    network: options.Network = None
    augment: options.Augment = None
    loss: options.Loss = None
    optimizer: options.Optimizer = None
    init: Annotated[
        Beginning,
        option("as for `timebox train`: auto, scratch or pretrained", group="method"),
    ] = "auto"
    val: options.Val = None
    test: options.Test = None
    test_limit: options.TestLimit = None
    scoring: Annotated[bool, option("plan no time for scoring val and test", group="data")] = True
    group_by: options.GroupBy = None
    train_limit: options.TrainLimit = None
    split_seed: options.SplitSeed = 0
    coarse: options.Coarse = False
    class_depth: options.ClassDepth = None
    max_bad_share: options.MaxBadShare = options.DEFAULT_MAX_BAD_SHARE
    allow_partial: options.AllowPartial = False
    cache: options.Cache = True
    data_dir: options.DataDir = None
    device: options.DeviceOption = "auto"
    precision: options.PrecisionOption = "auto"
    trust_code: options.TrustCode = False

    rules: ClassVar[tuple[Rule, ...]] = ((("test",), options.check_test_split),)


class EvaluateConfig(Config, frozen=True, kw_only=True):
    """The arguments of :func:`timebox.evaluate`; documented there."""

    run: options.RunDirectory
    data: options.Data
    split: Annotated[
        options.Split | None,
        option("split of DATA to score (default: its test split, else the images this run held out, else all)"),
    ] = None
    test_limit: Annotated[
        options.TestLimit,
        option("score N images, balanced over the classes, as in --test-limit 1000 (default: all)"),
    ] = None
    tta: options.TtaOption = "recipe"
    class_depth: options.ClassDepth = None
    max_bad_share: options.MaxBadShare = options.DEFAULT_MAX_BAD_SHARE
    cache: options.Cache = True
    data_dir: options.DataDir = None
    device: options.DeviceOption = "auto"
    trust_code: options.TrustCode = False


class PredictConfig(Config, frozen=True, kw_only=True):
    """The options of ``timebox predict``."""

    run: options.RunDirectory
    images: Annotated[
        tuple[str, ...],
        option(
            "image files, folders to look through, and - for a list of them on stdin, one a line or separated by NUL",
            positional="IMAGE",
            is_path=True,
        ),
    ]
    top: Annotated[options.Count, option("how many labels for each image", metavar="K")] = 1
    format: Annotated[PredictionFormat, option("csv with a header, or JSON lines")] = "csv"
    tta: options.TtaOption = "recipe"
    device: options.DeviceOption = "auto"
    trust_code: options.TrustCode = False


class ExportConfig(Config, frozen=True, kw_only=True):
    """The options of ``timebox export``."""

    run: options.RunDirectory
    format: Annotated[
        ExportFormat,
        option("onnx, for onnxruntime and others (takes the extra `onnx`); torch, a program of torch.export"),
    ] = "onnx"
    output: Annotated[
        options.Text | None,
        option("file to write (default: model.onnx or model.pt2 in RUN)", metavar="FILE", is_path=True),
    ] = None
    overwrite: Annotated[bool, option("replace a file that is there")] = False
    check: Annotated[
        tuple[str, ...],
        option(
            "image files or folders on which to measure the effect of decoding at full size, as other programs do",
            metavar="IMAGE",
            nargs="+",
            is_path=True,
        ),
    ] = ()
    int8: Annotated[
        bool,
        option(
            "compute convolutions in 8-bit integers: a quarter of the size, calibrated on held-out images (onnx only)"
        ),
    ] = False
    data: Annotated[
        options.Text | None,
        option("images for --int8 (default: the validation images of RUN)", metavar="DATA", is_path=True),
    ] = None
    max_loss: Annotated[
        Annotated[float, Meta(ge=0, le=100)],
        option("points of accuracy that --int8 may cost; where it costs more nothing is written", metavar="POINTS"),
    ] = 1.0
    tta: options.TtaOption = "recipe"
    trust_code: options.TrustCode = False


class ReportConfig(Config, frozen=True, kw_only=True):
    """The options of ``timebox report``."""

    run: options.RunDirectory
    output: Annotated[
        options.Text | None, option("file to write (default: report.html in RUN)", metavar="FILE", is_path=True)
    ] = None
    thumbnails: Annotated[bool, option("leave images of the data out of the page")] = True
    tensorboard: Annotated[
        options.Text | None,
        option(
            "write the metrics for TensorBoard too, into a folder in DIR (takes the extra `tensorboard`)",
            metavar="DIR",
            is_path=True,
        ),
    ] = None


class CompareConfig(Config, frozen=True, kw_only=True):
    """The arguments of :func:`timebox.compare`; documented there."""

    runs: Annotated[tuple[str, ...], option("two run directories or more", positional="RUN", is_path=True)]
    output: Annotated[options.Text | None, option("write a page as well", metavar="FILE", is_path=True)] = None


class ServeConfig(Config, frozen=True, kw_only=True):
    """The options of ``timebox serve``."""

    run: options.RunDirectory
    host: ServeHost = "127.0.0.1"
    port: ServePort = 8000
    token: ServeToken = None
    feedback: Annotated[
        options.Text | None,
        option(
            "folder of pictures whose class was corrected, or none (default: feedback, beside RUN)",
            metavar="DIR|none",
            is_path=True,
        ),
    ] = None
    tta: options.TtaOption = "recipe"
    engine: Annotated[
        Engine,
        option(
            "what computes predictions: torch, or torch until ONNX Runtime can, half a minute later, where the extra "
            "`onnx` is installed and it is faster"
        ),
    ] = "auto"
    device: options.DeviceOption = "auto"
    trust_code: options.TrustCode = False


class WatchConfig(Config, frozen=True, kw_only=True):
    """The options of ``timebox watch``."""

    path: Annotated[
        options.Text,
        option(
            "the directory of a training, a search or a benchmark; it may begin later", positional="DIR", is_path=True
        ),
    ]
    host: ServeHost = "127.0.0.1"
    port: ServePort = 8001
    token: ServeToken = None
    exit_after: Annotated[
        options.Positive | None,
        option(
            "end so long after what is watched has ended (default: stay until Ctrl-C)",
            metavar="TIME",
            read=options.read_seconds,
            write=options.budget_text,
        ),
    ] = None
    until_stdin_ends: Annotated[
        bool,
        option(
            "take the end of standard input for the end of the training, whatever its files say: for a program that "
            "trains, starts this page, and closes the pipe"
        ),
    ] = False


class RecipesConfig(Config, frozen=True, kw_only=True):
    """The options of ``timebox recipes``."""

    name: Annotated[
        options.Text | None, option("a recipe to print (default: list all)", positional="NAME", is_path=True)
    ] = None


class DoctorConfig(Config, frozen=True, kw_only=True):
    """The options of ``timebox doctor``: none of its own."""


class CompletionConfig(Config, frozen=True, kw_only=True):
    """The options of ``timebox completion``."""

    shell: Annotated[Shell, option("bash, zsh, fish, tcsh or powershell", positional="SHELL")]
