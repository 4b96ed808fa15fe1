"""A training that begins with the weights of an earlier one."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from timebox.errors import RunError, UsageError
from timebox.files import read_regular
from timebox.jobs.config import is_planned
from timebox.models import networks_of
from timebox.recipe import parse_settings
from timebox.recipe.builtin import auto
from timebox.run.files import CONFIG, MODEL
from timebox.run.run import Run

# What the weights leave no choice about.
SETTLED = ("model", "width", "blur_pool", "whitening", "celu_alpha")
HEAD = "head."
MEMBER = "members.0."
# In the network of `auto`, whose width can be told from it.
FIRST_FILTERS = "groups.1.0.weight"
MAX_BYTES = 4 << 30
# The filters are good already: Muon's rate is a third of what random ones take. LOG.md has the figures.
WARM_FILTER_LR = 0.08


@dataclass(frozen=True, eq=False)
class InitialWeights:
    """Weights to begin with.

    Attributes:
        sha256: of the file they were read from.
        settings: what they settle of the recipe, ``FIELD=VALUE``.
        class_names: of the rows of the head; None where they are not known.
        tensors: of one network, by name.
    """

    path: Path
    sha256: str
    settings: tuple[str, ...]
    class_names: tuple[str, ...] | None
    tensors: Mapping[str, Tensor]

    @classmethod
    def read(cls, path: Path) -> "InitialWeights":
        """Of a run directory, or of a run's model.safetensors, wherever it lies now; of several networks, the first.

        Raises:
            RunError: where there is nothing to read, or it is damaged.
        """
        file = path / MODEL if path.is_dir() else path
        beside = file.parent / CONFIG
        run = Run(file.parent, "cpu") if beside.is_file() and file.name == MODEL else None
        try:
            blob = read_regular(file, MAX_BYTES)
            tensors = load(blob)
        except FileNotFoundError as error:
            raise RunError(f"{str(path)!r} is neither a finished run nor a file with the weights of one") from error
        except (OSError, SafetensorError, ValueError) as error:
            raise RunError(f"{str(file)!r} cannot be read: {error}") from error
        if any(name.startswith(MEMBER) for name in tensors):
            tensors = {name.removeprefix(MEMBER): t for name, t in tensors.items() if name.startswith(MEMBER)}
        settings = _settings_of(run) if run else _settings_seen(tensors, file)
        return cls(path, hashlib.sha256(blob).hexdigest(), settings, run.class_names if run else None, tensors)

    def settled(self, recipe: str, settings: Sequence[str]) -> tuple[str, ...]:
        """Settings of a recipe together with what these weights settle, and the rate that `auto` takes for them.

        Raises UsageError where they contradict each other.
        """
        own, asked = parse_settings(self.settings), parse_settings(settings)
        for name, value in own.items():
            if asked.get(name, value) != value:
                raise UsageError(f"{name} {asked[name]} cannot be set: {str(self.path)!r} has {name} {value}")
        rate = (f"filter_lr={WARM_FILTER_LR}",) if is_planned(recipe) and own["model"] == auto().model else ()
        return (*self.settings, *rate, *settings)

    def give(self, model: nn.Module, class_names: Sequence[str], notify: Callable[[str], None]) -> None:
        """Let every network of a model begin with these weights, its head too where the classes are the same.

        Raises UsageError where they do not fit.
        """
        rows = self._rows_for(class_names)
        for network in networks_of(model):
            for name, tensor in network.state_dict().items():
                given = self.tensors.get(name)
                if name.startswith(HEAD):
                    if rows is None:
                        continue
                    fits = given is not None and given.shape[:1] == (len(self.class_names or ()),)
                    given = given[rows] if fits and given is not None else None
                if given is None or given.shape != tensor.shape:
                    there = "missing" if given is None else f"of the shape {tuple(given.shape)}"
                    raise UsageError(
                        f"the weights of {str(self.path)!r} do not fit: {name} is {there}, here it is of the shape "
                        f"{tuple(tensor.shape)}"
                    )
                with torch.no_grad():
                    tensor.copy_(given)
        kept = f"with a new head for {len(class_names)} classes" if rows is None else "its head too"
        notify(f"begins with the weights of {str(self.path)!r}, {kept}")

    def _rows_for(self, class_names: Sequence[str]) -> list[int] | None:
        """Where in its head these classes are; None where one of them was not trained, or that is not known."""
        if self.class_names is None or not set(class_names) <= set(self.class_names):
            return None
        return [self.class_names.index(name) for name in class_names]


def _settings_of(run: Run) -> tuple[str, ...]:
    values = run.recipe.as_dict()
    return tuple(f"{name}={str(values[name]).lower()}" for name in SETTLED)


def _settings_seen(tensors: Mapping[str, Tensor], file: Path) -> tuple[str, ...]:
    """For a file alone: the network of `auto` is told from its weights."""
    if FIRST_FILTERS not in tensors:
        raise RunError(f"{str(file)!r} does not tell which network it belongs to: give the directory of its run")
    return ("model=airbench", f"width={tensors[FIRST_FILTERS].shape[0]}")
