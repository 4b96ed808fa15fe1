"""Initial weights: start a training from the weights of an earlier run."""

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from timebox.errors import RunError, UsageError, option_text
from timebox.files import read_regular
from timebox.machine import check_memory
from timebox.models import networks_of
from timebox.recipes import parse_recipe, parse_settings, setting_text
from timebox.recipes.builtin import auto
from timebox.run.files import CONFIG, MODEL
from timebox.run.run import Run
from timebox.run.tensors import check_finite

# Recipe fields that the weights determine.
WEIGHT_FIELDS = ("model", "width", "blur_pool", "whitening", "norm_epsilon", "celu_alpha")
HEAD, FIRST_NETWORK = "head.", "members.0."
FIRST_FILTERS = "groups.1.0.weight"  # in `auto`'s network; its number of filters is the width
MAX_BYTES = 4 << 30
_TORCH_SAVE_STARTS = (b"PK", b"\x80")  # of a zip archive, and of a pickle as earlier versions of torch wrote it
# Muon's learning rate for trained filters: a third of that for random ones. LOG.md has the measurements.
WARM_FILTER_LR = 0.08


@dataclass(frozen=True, eq=False)
class InitialWeights:
    """The weights of one network that every network of a training starts from.

    Attributes:
        sha256: of their file.
        settings: the recipe fields that they determine, as ``FIELD=VALUE``.
        class_names: the class of each row of the head; None where unknown.
    """

    path: Path
    sha256: str
    settings: tuple[str, ...]
    class_names: tuple[str, ...] | None
    tensors: Mapping[str, Tensor]

    @classmethod
    def read(cls, path: Path, trust_code: bool = False) -> "InitialWeights":
        """Read the weights of a run directory, or of a copy of a run's model.safetensors; of an ensemble, those of its
        first network.

        Args:
            trust_code: whether to import the code that the run names.
        Raises:
            RunError: where there is no such file, or it is damaged.
        """
        file = path / MODEL if path.is_dir() else path
        beside = file.parent / CONFIG
        run = Run(file.parent, "cpu") if os.path.lexists(beside) and file.name == MODEL else None
        try:
            blob = read_regular(file, MAX_BYTES, follow=file == path)  # none of the links in a run
            check_memory(len(blob), repr(str(file)), "a copy of its tensors", RunError)
            tensors = load(blob)
        except FileNotFoundError as error:
            raise RunError(
                f"{str(path)!r} is neither a finished run nor a file with the weights of one; {option_text('init')} "
                "takes auto, scratch and pretrained too"
            ) from error
        except (OSError, SafetensorError, ValueError) as error:
            reason: object = error
            if isinstance(error, SafetensorError) and blob.startswith(_TORCH_SAVE_STARTS):
                reason = "it holds a pickle of torch.save, which is not loaded; save the tensors with safetensors"
            raise RunError(f"{str(file)!r} cannot be read: {reason}") from error
        check_finite(tensors, repr(str(file)))
        first = {name.removeprefix(FIRST_NETWORK): t for name, t in tensors.items() if name.startswith(FIRST_NETWORK)}
        tensors = first or tensors
        sha256 = hashlib.sha256(blob).hexdigest()
        if run is None:
            return cls(path, sha256, _infer_settings(tensors, file), None, tensors)
        run.with_code({}, trust_code)
        values = {name: getattr(run.recipe, name) for name in WEIGHT_FIELDS}
        settings = tuple(f"{name}={setting_text(value)}" for name, value in values.items())
        return cls(path, sha256, settings, run.class_names, tensors)

    def complete_settings(self, recipe: str, settings: Sequence[str]) -> tuple[str, ...]:
        """Settings of a recipe, completed by the fields that these weights determine, and by Muon's learning rate for
        trained filters where `auto` plans. Raises UsageError where a setting contradicts the weights."""
        own, changes = parse_settings(self.settings), parse_settings(settings)
        for name, value in own.items():
            if changes.get(name, value) != value:
                raise UsageError(f"{name} {changes[name]} cannot be set: {str(self.path)!r} has {name} {value}")
        is_warm = parse_recipe(recipe).fixed is None and own["model"] == auto().model
        filter_lr = (f"filter_lr={WARM_FILTER_LR}",) if is_warm else ()
        return (*self.settings, *filter_lr, *settings)

    def copy_to(self, model: nn.Module, class_names: Sequence[str], notify: Callable[[str], None]) -> None:
        """Copy the weights into every network of a model; those of the head only where all its classes were trained.

        Raises UsageError where a tensor is missing or of another shape.
        """
        rows = self._head_rows(class_names)
        for network in networks_of(model):
            head = _head_of(network, len(class_names))
            for name, tensor in network.state_dict().items():
                source = self.tensors.get(name)
                if name.startswith(head):
                    if rows is None:
                        continue
                    has_known_rows = source is not None and source.shape[:1] == (len(self.class_names or ()),)
                    source = source[rows] if source is not None and has_known_rows else None
                if source is None or source.shape != tensor.shape:
                    problem = "missing" if source is None else f"of the shape {tuple(source.shape)}"
                    raise UsageError(
                        f"the weights of {str(self.path)!r} do not fit: {name} is {problem}, here it is of the shape "
                        f"{tuple(tensor.shape)}"
                    )
                with torch.no_grad():
                    tensor.copy_(source)
        head = f"with a new head for {len(class_names)} classes" if rows is None else "head included"
        notify(f"initial weights from {str(self.path)!r}, {head}")

    def _head_rows(self, class_names: Sequence[str]) -> list[int] | None:
        """The head's row of each class; None where a class was not trained, or the rows' classes are unknown."""
        if self.class_names is None or not set(class_names) <= set(self.class_names):
            return None
        return [self.class_names.index(name) for name in class_names]


def _head_of(network: nn.Module, num_classes: int) -> str:
    """The beginning of the names of the head's tensors: ``head.``, or in a network of the user's without such a layer
    the last linear layer or convolution that has an output for each class.

    Raises UsageError where there is none, as then no weights are known to belong to a class.
    """
    if any(name.startswith(HEAD) for name in network.state_dict()):
        return HEAD
    for name, layer in reversed(list(network.named_modules())):
        if isinstance(layer, nn.Linear | nn.Conv2d) and len(layer.weight) == num_classes:
            return f"{name}." if name else ""
    raise UsageError(
        f"a network can begin with weights of another run only where a layer called 'head', or a linear layer, has an "
        f"output for each of its {num_classes} classes"
    )


def _infer_settings(tensors: Mapping[str, Tensor], file: Path) -> tuple[str, ...]:
    """The settings of a file without its run: `auto`'s network, of the width that the weights have."""
    if FIRST_FILTERS not in tensors:
        raise RunError(f"{str(file)!r} does not show which network it belongs to: give the directory of its run")
    return ("model=airbench", f"width={tensors[FIRST_FILTERS].shape[0]}")
