"""The house stands: imports go down only, the command line starts light, files stay short."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "timebox"
MIN_MODULES = 20
MAX_LINES = 400
MAX_FILES = 12
# Folders with a file for each format, or for each verb.
MAY_HAVE_MORE = {"data/formats", "cli", "pipelines"}
MAX_PARAMETERS = 6
# The functions that the package exports take keyword-only options, as many as their verb has.
PUBLIC_VERBS = {
    "benchmark", "evaluate", "export", "inspect", "join", "load_data", "lr_find", "plan", "predict", "train",
    "tune",
}  # fmt: skip
# Triton kernels take pointers and sizes, and torch.autograd.Function its context.
KERNELS = "timebox.models.kernels."
# scikit-learn reads the parameters of an estimator from its constructor.
ESTIMATOR = "timebox.estimator.classifier"

# From the ground up; members of one floor are siblings and never import each other. "timebox" is the package itself,
# whose public names point, lazily, at everything below the command line.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("errors", "formatting", "version"),
    ("machine", "paths", "process_age"),
    ("clock", "files", "file_versions", "processes", "progress"),
    ("configs", "custom"),
    ("data", "models", "optim", "recipes"),
    ("builders",),
    ("runtime",),
    ("distributed",),
    ("evaluation",),
    ("pretrained",),
    ("training",),
    ("planning",),
    ("run",),
    ("reporting", "callbacks"),
    ("jobs",),
    ("pipelines",),
    ("exporting", "diagnosis"),
    ("tuning", "benchmarking", "estimator", "serving"),
    ("timebox",),
    ("cli",),
    ("__main__",),
)
FLOOR_OF = {part: floor for floor, parts in enumerate(FLOORS) for part in parts}
MODULES = sorted(PACKAGE.rglob("*.py"))


def part_of(module: str) -> str:
    """`timebox.data.formats.idx` belongs to `data`; `timebox` to itself."""
    return module.split(".")[1] if "." in module else module


def module_name(path: Path, root: Path = PACKAGE) -> str:
    parts = path.relative_to(root.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_modules(source: str, module: str, is_package: bool) -> Iterator[str]:
    """Every module of timebox that a source imports, at the top, inside functions and under TYPE_CHECKING."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parents = module.split(".")
            above = parents[: len(parents) - node.level + is_package] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            # `from timebox import data` imports a part, `from timebox.data import load_data` a name of one.
            names = [f"timebox.{a.name}" if base == "timebox" and a.name in FLOOR_OF else base for a in node.names]
        else:
            continue
        yield from (name for name in names if name == "timebox" or name.startswith("timebox."))


def wrong_edges(source: str, module: str, is_package: bool = False) -> list[str]:
    own = part_of(module)
    return [
        f"{module} imports {name}"
        for name in imported_modules(source, module, is_package)
        if part_of(name) != own and FLOOR_OF[part_of(name)] >= FLOOR_OF[own]
    ]


def test_imports_only_go_down() -> None:
    assert len(MODULES) >= MIN_MODULES
    wrong = [
        edge
        for path in MODULES
        for edge in wrong_edges(path.read_text(encoding="utf-8"), module_name(path), path.stem == "__init__")
    ]
    assert not wrong, "upward or sideways imports:\n" + "\n".join(wrong)


def test_every_part_has_a_floor() -> None:
    parts = {part_of(module_name(path)) for path in MODULES}
    assert parts <= set(FLOOR_OF), f"give these a floor: {sorted(parts - set(FLOOR_OF))}"
    assert {
        "errors",
        "clock",
        "data",
        "models",
        "optim",
        "recipes",
        "training",
        "planning",
        "run",
        "pipelines",
        "cli",
    } <= parts


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("timebox.data.device.loader", "from timebox.models import resnet9"),
        ("timebox.data.device.loader", "from timebox import recipes"),
        ("timebox.errors", "from timebox.clock import Deadline"),
        ("timebox.training.loop", "def train():\n    import timebox.run.run"),
        ("timebox.training.loop", "if TYPE_CHECKING:\n    from timebox.cli import display"),
        ("timebox.training.loop", "from ..run import run"),
        ("timebox.training.loop", "import timebox"),
        ("timebox.models.resnet9", "from timebox import Recipe"),
    ],
)
def test_the_check_sees_a_wrong_import(module: str, source: str) -> None:
    assert len(wrong_edges(source, module)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("timebox.training.loop", "from timebox.models.resnet9 import ResNet9"),
        ("timebox.training.loop", "from . import pacer\nfrom .pacer import Pace\nfrom ..optim import schedules"),
        ("timebox.clock", "from timebox.errors import BudgetError"),
        ("timebox.cli.train", "from timebox import train\nimport torch, timebox_extras"),
    ],
)
def test_the_check_lets_a_right_import_pass(module: str, source: str) -> None:
    assert wrong_edges(source, module) == []


def test_the_command_line_starts_without_heavy_imports() -> None:
    code = (
        "import sys, timebox.cli\n"
        "timebox.cli.parse(['train', 'digits', '--budget', '1m'])\n"
        "print(sorted({name.split('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = ast.literal_eval(done.stdout)
    assert "timebox" in loaded
    assert not {"torch", "numpy", "rich", "PIL", "sklearn", "scipy", "safetensors"} & set(loaded)


def test_no_file_is_too_long() -> None:
    assert len(MODULES) >= MIN_MODULES
    lengths = {module_name(path): len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES}
    assert {name: lines for name, lines in lengths.items() if lines > MAX_LINES} == {}


def test_folders_are_small() -> None:
    folders = {path.parent.relative_to(PACKAGE).as_posix() for path in MODULES}
    assert folders >= MAY_HAVE_MORE
    files = {name: len(list((PACKAGE / name).glob("*.py"))) for name in folders - MAY_HAVE_MORE}
    assert {name: num_files for name, num_files in files.items() if num_files > MAX_FILES} == {}


def test_each_package_says_what_lives_there_and_what_does_not() -> None:
    packages = [path for path in MODULES if path.name == "__init__.py" and path.parent != PACKAGE]
    assert len(packages) >= 15
    for path in packages:
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        assert len(re.findall(r"[.!](?:\s|$)", text)) >= 3, f"{path}: three sentences"
        assert re.search(r"\b(not|no|nothing|never|none)\b", text, re.IGNORECASE), f"{path}: say what must not be there"


def long_parameter_lists(source: str) -> list[str]:
    """Functions with more than six parameters, self and cls left out. Those that the public API names may have more
    keyword-only ones."""
    return [
        node.name
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef)
        and len([a for a in node.args.posonlyargs + node.args.args if a.arg not in ("self", "cls")])
        + (0 if node.name in PUBLIC_VERBS else len(node.args.kwonlyargs))
        > MAX_PARAMETERS
    ]


def test_no_function_takes_many_parameters() -> None:
    found = {
        module_name(path): names
        for path in MODULES
        if (names := long_parameter_lists(path.read_text(encoding="utf-8")))
    }
    del found[ESTIMATOR]
    assert {module: names for module, names in found.items() if not module.startswith(KERNELS)} == {}
    assert long_parameter_lists("def f(a, b, c, d, e, f, g): ...") == ["f"]
    assert long_parameter_lists("def f(self, a, b, c, *, d, e, f): ...") == []
